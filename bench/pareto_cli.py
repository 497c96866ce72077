"""`bench pareto`: the networks that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import JsonOption, write_json

from .outputs import check_outputs, people

if TYPE_CHECKING:
    from rich.table import Table

    from .pareto import Objective
    from .report.fronts import PlacedFront

FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Of `bench fps --json` and `searchkit evaluate --json`.", show_default=False),
]
MiouOption = Annotated[
    list[str] | None,
    typer.Option("--miou", metavar="[FILE/]NETWORK=PERCENT", help="An mIoU, for the networks of one file or of all."),
]
_AXES = "miou, latency, macs or params."


def pareto(
    files: FilesArgument,
    objectives: Annotated[
        str | None, typer.Option("--objectives", metavar="NAME,...", help=f"What counts: {_AXES} (default: x and y)")
    ] = None,
    x: Annotated[str, typer.Option("--x", metavar="NAME", help="Of the plot.")] = "latency",
    y: Annotated[str, typer.Option("--y", metavar="NAME", help="Of the plot.")] = "miou",
    miou: MiouOption = None,
    published: Annotated[
        str | None, typer.Option("--published", metavar="val|test", help="Take papers' mIoU on Cityscapes too; marked.")
    ] = None,
    json: JsonOption = None,
    csv: Annotated[
        str | None, typer.Option("--csv", metavar="PATH", help="Write the table as CSV; `-` is standard output.")
    ] = None,
    svg: Annotated[str | None, typer.Option("--svg", metavar="PATH", help="Draw x against y.")] = None,
) -> None:
    """Find the networks that no other one beats in everything asked for, and say who beats the others.

    Latencies of different files or devices, and mIoU of different data sets, are never on one front.
    """
    outputs = {"--json": json, "--csv": csv, "--svg": svg}
    check_outputs(outputs)
    axes = (_objective(x, "--x"), _objective(y, "--y"))
    asked = _objectives(objectives) if objectives is not None else tuple(dict.fromkeys(axes))
    found = _fronts(files, miou or [], published, asked)
    if svg:
        _draw(found, axes, svg)
    if json:
        write_json({"schema": 1, "kind": "pareto", "fronts": [front.to_tree() for front in found]}, json)
    if csv:
        from .report.front_text import csv_text

        _write(csv_text(found), csv)
    from .report.front_text import remarks_of

    console = people(outputs)
    for front in found:
        console.print(f"\n{front.title}", markup=False)
        console.print(_table(front))
        for remark in remarks_of(front):
            console.print(remark, markup=False)


def _fronts(
    files: Sequence[str], miou: Sequence[str], published: str | None, objectives: Sequence[Objective]
) -> list[PlacedFront]:
    from searchkit.errors import InputFileError, unknown_name

    from .report.fronts import check_scores, fronts
    from .report.scores import GIVEN_SCALE, PUBLISHED_SCALES, from_papers, given
    from .report.sources import read_sources

    if published is not None and published not in PUBLISHED_SCALES:
        raise unknown_name("split of Cityscapes", published, PUBLISHED_SCALES, where="--published")
    sources = read_sources(files)
    names = [measurement.network.name for measurement in sources.measurements]
    if not names:
        raise InputFileError(
            "no measurement in the files", where=", ".join(files), fix="give a file of `bench fps --json`"
        )
    scale = PUBLISHED_SCALES[published] if published else GIVEN_SCALE
    scores = [*given(miou, [place.file for place in sources.places], names, scale), *sources.scores]
    if published:
        scores += from_papers(names, published)
    found = fronts(sources, scores, objectives)
    check_scores(found, objectives)
    return found


def _objective(name: str, where: str) -> Objective:
    from searchkit.errors import unknown_name

    from .pareto import Objective

    if name not in list(Objective):
        raise unknown_name("objective", name, [str(objective) for objective in Objective], where=where)
    return Objective(name)


def _objectives(text: str) -> tuple[Objective, ...]:
    return tuple(dict.fromkeys(_objective(name.strip(), "--objectives") for name in text.split(",")))


def _draw(found: Sequence[PlacedFront], axes: tuple[Objective, Objective], path: str) -> None:
    from searchkit.errors import UsageError

    from .report.scatter import svg_file

    if axes[0] == axes[1]:
        raise UsageError("both axes of the plot are the same", where="--x and --y", got=str(axes[0]))
    if len(found) != 1:
        raise UsageError(
            "one plot holds one front",
            where="--svg",
            got="; ".join(front.title for front in found),
            fix="give the file of one machine and one kind of mIoU; `bench report` draws them all",
        )
    front = found[0]
    if not any(not point.lacks(axes) for point in front.front.best):
        raise UsageError(
            "the front has no values for the axes of the plot", where="--svg", got=f"--x {axes[0]} --y {axes[1]}"
        )
    _write(svg_file(front.front, *axes, f"{axes[1].unit} against {axes[0].unit}, {front.title}"), path)


def _table(front: PlacedFront) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from .pareto import Objective
    from .report.front_text import rows_of, value

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("network", no_wrap=True)
    for objective in Objective:
        table.add_column(objective.unit, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", min_width=8)
    for point, became in rows_of(front):
        table.add_row(*(Text(cell) for cell in (point.label, *(value(point, o) for o in Objective), became)))
    return table


def _write(text: str, path: str) -> None:
    import sys

    from searchkit.files import write_text

    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)
