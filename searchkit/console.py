"""What both commands share: how an app is run, how errors end, where output goes.

Exit codes: 0 done, 2 usage, 3 bad input file, 4 disk or input/output, 5 damaged artifact, 6 search or training failed,
7 backend not available here, 130 and 143 interrupted.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .errors import SearchkitError

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output."),
]


class Terminated(BaseException):
    """SIGTERM, as an exception, so that unfinished output is removed on the way out."""


def run(app: typer.Typer, argv: list[str] | None = None) -> int:
    """Run a Typer app and return its exit code; a `SearchkitError` becomes one paragraph on standard error.

    Without `argv` the command line is that of the process, which is expected to end with this call.
    """
    _replace_closed_streams()
    stopped_by: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        stopped_by.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    # What the caller chose to ignore, as `nohup` and background jobs do, stays ignored.
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in handled}
    try:
        code = _invoke(app, argv)
        sys.stdout.flush()
        return code
    except BaseException as error:
        # torch turns an interrupt that meets one of its imports into an error of its own.
        return _stopped(stopped_by[0]) if stopped_by else _explained(error)
    finally:
        for number, handler in previous.items():
            # The work is done: nothing is left to interrupt but the interpreter's own end.
            signal.signal(number, signal.SIG_IGN if argv is None else handler)
        _let_go_of_output()


def _stopped(number: int) -> int:
    word = "interrupted" if number == signal.SIGINT else "terminated"
    return _fail(f"{word}; nothing was left half-written", 128 + number)


def _explained(error: BaseException) -> int:
    """Say what went wrong and return the exit code; an error that nobody foresaw is raised again."""
    if isinstance(error, SearchkitError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _stopped(signal.SIGINT)
    # Rich turns a broken pipe into an exit of its own.
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return 128 + signal.SIGPIPE
    if isinstance(error, OSError):
        from .files import storage_error

        problem = storage_error(error, error.filename or "output")
        return _fail(str(problem), problem.exit_code)
    raise error


def _invoke(app: typer.Typer, argv: list[str] | None) -> int:
    """What Typer's own `main` does, less its handling of interrupts and broken pipes, which differs by release."""
    command = typer.main.get_command(app)
    try:
        with command.make_context(app.info.name, list(sys.argv[1:] if argv is None else argv)) as context:
            command.invoke(context)
            return 0
    except typer.Exit as stop:
        return int(stop.exit_code)
    except Exception as error:
        # Usage errors: their class has moved between Typer's releases, their two members have not.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        raise


def check_json(path: str | None) -> None:
    """Refuse a `--json` target that cannot be written, before the work rather than after it."""
    if not path or path == "-":
        return
    from .files import storage_error

    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise storage_error(OSError(errno.ENOENT, ""), path)
    if os.path.isdir(path):
        raise storage_error(OSError(errno.EISDIR, ""), path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise storage_error(OSError(errno.ENXIO, ""), path)


def write_json(tree: object, path: str) -> None:
    """Write JSON to a file, whole or not at all, or to standard output for `-`."""
    # ASCII, so that neither the locale nor a file name that is no UTF-8 stands in the way.
    text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    from .files import write_text

    write_text(path, text)


def out() -> Console:
    """Standard output, for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """Standard error, for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def _fail(message: str, code: int) -> int:
    with suppress(OSError):
        print(f"error: {message}", file=sys.stderr)
    return code


def _replace_closed_streams() -> None:
    """Python has None for a stream that the caller closed; nothing should fail for that."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A path may hold what the locale cannot spell.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Where output can no longer be written, point it away, or the interpreter complains about it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
