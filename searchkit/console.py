"""What both commands share: how an app is run, how errors end, where output goes.

Exit codes: 0 done, 2 usage, 3 bad input file, 4 disk or input/output, 5 damaged artifact, 6 search or training failed,
7 backend not available here, 130 and 143 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
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
    """Run a Typer app and return its exit code; a `SearchkitError` becomes one paragraph on standard error."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        # Outside its standalone mode the app returns the code of `typer.Exit`, and raises everything else.
        code = app(args=argv, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SearchkitError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; nothing was left half-written", 128 + signal.SIGINT)
    except Terminated:
        return _fail("terminated; nothing was left half-written", 128 + signal.SIGTERM)
    except BrokenPipeError:
        # The reader (such as `head`) has gone: point stdout away, or the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        from .files import storage_error

        problem = storage_error(error, error.filename or "output")
        return _fail(str(problem), problem.exit_code)
    except Exception as error:
        # Usage errors: their class has moved between Typer's releases, their two members have not.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def write_json(tree: object, path: str) -> None:
    """Write JSON to a file, whole or not at all, or to standard output for `-`."""
    text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
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

    return Console(stderr=True, highlight=False)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated
