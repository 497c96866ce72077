"""The `bench` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import JsonOption, err, out, run, write_json

from . import label_head_cli, lowering_cli, pipeline_cli, preprocessing_cli, training_cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from searchkit.networks import Network

    from .fps import Failure, Setting
    from .measurement import Measurement, Scalar
    from .table import Row

app = typer.Typer(
    name="bench",
    help="Measure networks: how fast they are here, and what they consist of.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(training_cli.training)
app.command("label-head")(label_head_cli.label_head)
app.command()(lowering_cli.lowering)
app.command()(preprocessing_cli.preprocessing)
app.command()(pipeline_cli.pipeline)

NetworksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK",
        help="Genotype files, bundles or shipped names; all shipped ones if none.",
        show_default=False,
    ),
]
NetworkArgument = Annotated[
    str, typer.Argument(metavar="NETWORK", help="Genotype file, bundle or shipped name.", show_default=False)
]
ResolutionOption = Annotated[
    str, typer.Option("--resolution", metavar="HxW", help="Input, height x width, such as 512x1024.")
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="NAME[:MODE],...",
        help="Such as openvino:bf16; several with commas; `all` is every one here, `auto` the fastest that passes. "
        "(default: onnxruntime)",
    ),
]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option("--precision", metavar="NAME,...", help="Of the models: fp32, fp16, int8. (default: fp32)"),
]
IoOption = Annotated[
    str,
    typer.Option("--io", metavar="NAME", help="Tensor contract; with `logits` all answer at the input's resolution."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cpu or cuda; the backend's first if not given.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads; the backend's default if not given.")
]
RoundsOption = Annotated[
    int | None, typer.Option(min=1, max=1000, help="How often the networks take turns. (default: 5)")
]
QuickOption = Annotated[bool, typer.Option("--quick", help="A rough look: fewer and shorter turns.")]
CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="PATH", help="Write the table as CSV; `-` is standard output.")
]
MarkdownOption = Annotated[
    str | None, typer.Option("--markdown", metavar="PATH", help="Write the table as Markdown; `-` is standard output.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 1 if a measurement carries a warning.")]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv)


@app.command()
def fps(
    networks: NetworksArgument = None,
    resolution: ResolutionOption = "512x1024",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    io: IoOption = "logits",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    rounds: RoundsOption = None,
    quick: QuickOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
    markdown: MarkdownOption = None,
    strict: StrictOption = False,
) -> None:
    """Time networks in turns on this machine and compare them with FasterSeg.

    FPS is 1000 / median latency in ms, batch 1. Networks and backends take turns, so that a machine that slows down
    slows all of them alike.
    """
    from searchkit.networks import known_names, resolve
    from searchkit.sizes import parse_size

    from .measurement import Protocol

    files = {"--json": json, "--csv": csv, "--markdown": markdown}
    _check_outputs(files)
    size = parse_size(resolution)
    found = [resolve(name) for name in networks or known_names()]
    protocol = Protocol.quick() if quick else Protocol()
    if rounds is not None:
        protocol = protocol.with_rounds(rounds)

    from . import machine
    from .fps import Setting
    from .printing import print_fps
    from .table import rows_of

    setting = Setting(size, io, protocol, machine.describe(), device, threads)
    measurements, failures = _measure(found, _listed(backend), _listed(precision), setting)
    rows = rows_of(measurements)
    print_fps(_people(files), rows, setting)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    _write_fps(files, rows, measurements, failures, setting.machine)
    if failures:
        raise typer.Exit(failures[0].error.exit_code)
    if strict and any(measurement.warnings for measurement in measurements):
        raise typer.Exit(1)


@app.command()
def profile(
    network: NetworkArgument,
    resolution: ResolutionOption = "512x1024",
    json: JsonOption = None,
) -> None:
    """Count parameters, operations by operator and stage, and memory; nothing is timed."""
    from searchkit.networks import resolve
    from searchkit.sizes import parse_size

    _check_outputs({"--json": json})
    size = parse_size(resolution)
    found = resolve(network)

    from .printing import print_profile
    from .profile import profile as count

    result = count(found, size)
    print_profile(_people({"--json": json}), result)
    if json:
        write_json(result.to_tree(), json)


def _check_outputs(files: dict[str, str | None]) -> None:
    """Refuse what cannot be written now, rather than after a minute of measuring."""
    from searchkit.errors import StorageError, UsageError

    if sum(path == "-" for path in files.values()) > 1:
        raise UsageError("only one result can go to standard output", allowed="one `-`", fix="give a file name")
    for option, path in files.items():
        if path and path != "-" and not os.path.isdir(os.path.dirname(path) or "."):
            raise StorageError(
                "the folder does not exist", where=f"{option} {path}", fix="create it first, with `mkdir -p`"
            )


def _people(files: dict[str, str | None]) -> Console:
    """Where people read: standard output, unless a program reads that."""
    return err() if "-" in files.values() else out()


def _listed(values: Sequence[str] | None) -> list[str]:
    """An option that may be repeated, and may name several with commas."""
    return [name.strip() for value in values or () for name in value.split(",")]


def _measure(
    networks: Sequence[Network], backends: Sequence[str], precisions: Sequence[str], setting: Setting
) -> tuple[list[Measurement], list[Failure]]:
    from deploy.contracts import CONTRACTS

    from .fps import ALL, left_out, measure, runtimes_of, steps

    CONTRACTS.load(setting.io)
    runtimes = runtimes_of(backends, setting.device, precisions)
    for remark in left_out(setting.device, precisions) if ALL in backends else []:
        print(remark, file=sys.stderr)
    with _progress(steps(networks, runtimes, setting.protocol)) as step:
        return measure(networks, runtimes, setting, step)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
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


def _write_fps(
    files: dict[str, str | None],
    rows: Sequence[Row],
    measurements: Sequence[Measurement],
    failures: Sequence[Failure],
    machine: dict[str, Scalar],
) -> None:
    from .measurement import SCHEMA
    from .table import csv_text, markdown

    if path := files["--json"]:
        tree = {
            "schema": SCHEMA,
            "machine": machine,
            "measurements": [measurement.to_tree() for measurement in measurements],
            "failures": [failure.to_tree() for failure in failures],
            "statistics": [row.to_tree() for row in rows],
        }
        write_json(tree, path)
    if path := files["--csv"]:
        _write_text(csv_text(rows), path)
    if path := files["--markdown"]:
        missing = "".join(f"- {failure}\n" for failure in failures)
        _write_text(markdown(rows) + (f"\nNot measured:\n\n{missing}" if missing else ""), path)


def _write_text(text: str, path: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    from searchkit.files import write_text

    write_text(path, text)


if __name__ == "__main__":
    sys.exit(main())
