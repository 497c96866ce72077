"""Models timed in turns on one backend: what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backends import Backend, SessionInfo
from ..variant import Variant

if TYPE_CHECKING:
    from ..backends import Model, Session

#: Name of a model -> milliseconds, one a round.
Times = dict[str, tuple[float, ...]]

#: Times `models` on a backend; what `take_turns` does.
Measure = Callable[[Mapping[str, "Model"]], tuple[Times, SessionInfo]]

_WARM_UP_RUNS = 3
_TIMED_RUNS = 3


class Rewritten(Variant):
    """A network with a rewritten float32 ONNX model, whatever precision it is exported in."""

    precision_record: dict[str, Any] | None = None

    @property
    def precision(self) -> str:
        """float32 is what is rewritten and measured."""
        return "fp32"


@dataclass(frozen=True)
class Quartiles:
    """How many times as fast one model is as another, round by round: of a ratio over 1 the first is the slower."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, slow: tuple[float, ...], fast: tuple[float, ...]) -> Quartiles:
        """Of the ratios of the times of two models in the same rounds."""
        return cls(*statistics.quantiles([a / b for a, b in zip(slow, fast, strict=True)], n=4, method="inclusive"))


def take_turns(
    models: Mapping[str, Model], backend: Backend, *, mode: str | None, threads: int | None, rounds: int
) -> tuple[Times, SessionInfo]:
    """Let all models take their turn once a round; the order moves on by one each round.

    A turn is an untimed run and three timed ones, of which the fastest counts: what interrupts a run makes it slower.

    Returns:
        Milliseconds of each, one value a round, and what they ran on.

    Raises:
        BackendUnavailableError, UsageError: see `Backend.open`.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for name, model in models.items():
            session = stack.enter_context(backend.open(model, threads=threads, mode=mode))
            session.load(model.example().numpy())
            for _ in range(_WARM_UP_RUNS):
                _run_ms(session)
            sessions[name] = session
        names = list(models)
        for number in range(rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                # The model before has filled the caches, and its threads may still spin.
                _run_ms(sessions[name])
                times[name].append(min(_run_ms(sessions[name]) for _ in range(_TIMED_RUNS)))
        info = sessions[names[0]].info
    return {name: tuple(values) for name, values in times.items()}, info


def _run_ms(session: Session) -> float:
    began = time.perf_counter()
    session.execute()
    session.synchronize()
    return (time.perf_counter() - began) * 1e3
