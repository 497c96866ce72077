"""What the commands that measure share: options of several names, progress, and where tables and samples go."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from searchkit.console import err, out, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from .fps import Outcome
    from .protocol import Scalar
    from .table import Row


def check_outputs(files: Mapping[str, str | None]) -> None:
    """Refuse what cannot be written now, rather than after a minute of measuring: option -> path."""
    from searchkit.errors import StorageError, UsageError

    if sum(path == "-" for path in files.values()) > 1:
        raise UsageError("only one result can go to standard output", allowed="one `-`", fix="give a file name")
    for option, path in files.items():
        if path and path != "-" and not os.path.isdir(os.path.dirname(path) or "."):
            raise StorageError(
                "the folder does not exist", where=f"{option} {path}", fix="create it first, with `mkdir -p`"
            )


def people(files: Mapping[str, str | None]) -> Console:
    """Where people read: standard output, unless a program reads that."""
    return err() if "-" in files.values() else out()


def listed(values: Sequence[str] | None) -> list[str]:
    """An option that may be repeated, and may name several with commas."""
    return [name.strip() for value in values or () for name in value.split(",")]


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error where that is a terminal; drawn between turns only, as a drawing thread takes time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = err()
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=total)

        def step(text: str) -> None:
            bar.update(task, description=text)
            bar.refresh()
            bar.advance(task)

        yield step


def write_results(
    files: Mapping[str, str | None],
    rows: Sequence[Row],
    outcome: Outcome,
    machine: dict[str, Scalar],
    more: Mapping[str, object] | None = None,
) -> None:
    """The samples as JSON, `more` beside them, and the table as CSV and as Markdown, where they were asked for."""
    from .table import csv_text, markdown

    if path := files.get("--json"):
        write_json(results_tree(rows, outcome, machine) | dict(more or {}), path)
    if path := files.get("--csv"):
        write_out(csv_text(rows), path)
    if path := files.get("--markdown"):
        write_out(markdown(rows) + _missing(outcome), path)


def results_tree(rows: Sequence[Row], outcome: Outcome, machine: dict[str, Scalar]) -> dict[str, object]:
    """What `read_results` reads."""
    from .measurement import SCHEMA

    tree: dict[str, object] = {
        "schema": SCHEMA,
        "machine": machine,
        "measurements": [measurement.to_tree() for measurement in outcome.measurements],
        "failures": [failure.to_tree() for failure in outcome.failures],
        "statistics": [row.to_tree() for row in rows],
        "complete": outcome.stopped is None,
    }
    if outcome.stopped is not None:
        tree["note"] = PARTIAL
    return tree


PARTIAL = "partial: the run was interrupted, and only the rounds that were finished by then are here"


def _missing(outcome: Outcome) -> str:
    text = ""
    if outcome.failures:
        text += "\nNot measured:\n\n" + "".join(f"- {failure}\n" for failure in outcome.failures)
    if outcome.stopped is not None:
        text += f"\n{PARTIAL[0].upper()}{PARTIAL[1:]}.\n"
    return text


def write_out(text: str, path: str) -> None:
    """To a file, whole or not at all, or to standard output for `-`."""
    if path == "-":
        sys.stdout.write(text)
        return
    from searchkit.files import write_text

    write_text(path, text)


def ended(outcome: Outcome, files: Mapping[str, str | None], *, strict: bool) -> None:
    """Say what failed or was interrupted, and end with the exit code that belongs to it.

    Raises:
        typer.Exit: 130 or 143 after an interrupt, that of the first failure, or 1 for a doubt under `--strict`.
    """
    from searchkit.console import Terminated

    for failure in outcome.failures:
        print(f"error: {failure}", file=sys.stderr)
    if outcome.stopped is not None:
        kept = " and written" if any(path and path != "-" for path in files.values()) else ""
        print(f"interrupted: finished rounds are kept{kept}; the result is partial and says so", file=sys.stderr)
        raise typer.Exit(143 if isinstance(outcome.stopped, Terminated) else 130)
    if outcome.failures:
        raise typer.Exit(outcome.failures[0].error.exit_code)
    if strict and any(measurement.warnings for measurement in outcome.measurements):
        raise typer.Exit(1)
