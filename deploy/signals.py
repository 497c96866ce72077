"""Ctrl-C and SIGTERM kept back while foreign code runs that an interrupt in its midst would leave broken."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of the block; a second one does not.

    Yields a function that says whether one is waiting, for code that can end early. In another thread than the main
    one nothing is changed, as signals never arrive there.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None stands for a handler that is not Python's and could not be put back.
    previous = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        restore()

    for number in previous:
        signal.signal(number, remember)
    try:
        yield lambda: bool(arrived)
    finally:
        restore()
        if arrived:
            signal.raise_signal(arrived[0])
