"""The command `bench headline`."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption

from .fps_cli import (
    CsvOption,
    DeviceOption,
    IoOption,
    MarkdownOption,
    PrecisionOption,
    QuickOption,
    RoundsOption,
    StrictOption,
    ThreadsOption,
    protocol_of,
)
from .outputs import check_outputs, ended, listed, people, progress_bar, write_results

WholeOption = Annotated[
    str, typer.Option("--resolution", metavar="HxW", help="FasterSeg's in the headline; SSR's is half of it.")
]
PaperBackendOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", metavar="NAME[:MODE],...", help="As for `bench fps`. (default: pytorch, as in the paper)"
    ),
]


def headline(
    resolution: WholeOption = "1024x2048",
    backend: PaperBackendOption = None,
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
    """SSR against FasterSeg as the SSR paper compares them, and at equal resolution, beside the paper's figures.

    Both networks run at both resolutions, all four in the same rounds. Published figures are never mixed with measured
    ones: they stand in lines of their own, with device and software.
    """
    from searchkit.sizes import parse_size

    files = {"--json": json, "--csv": csv, "--markdown": markdown}
    check_outputs(files)
    whole = parse_size(resolution)
    protocol = protocol_of(quick=quick, rounds=rounds)

    from deploy.contracts import CONTRACTS

    from . import machine
    from .fps import Setting, runtimes_of
    from .headline import compare, lines, measure, sizes_of, total_steps
    from .printing import print_fps
    from .table import rows_of

    sizes_of(whole)
    CONTRACTS.load(io)
    runtimes = runtimes_of(listed(backend) or ["pytorch"], device, listed(precision))
    setting = Setting(whole, io, protocol, machine.describe(), device, threads)
    with progress_bar(total_steps(runtimes, setting)) as step:
        outcome = measure(runtimes, whole, setting, step)
    rows = rows_of(outcome.measurements)
    comparisons = compare(outcome.measurements, whole)
    console = people(files)
    more = {"headline": [comparison.to_tree() for comparison in comparisons]}
    write_results(files, rows, outcome, setting.machine, more)
    print_fps(console, rows, setting)
    for line in lines(comparisons):
        console.print(line, markup=False, soft_wrap=True)
    ended(outcome, files, strict=strict)
