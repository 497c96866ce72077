"""`bench study`: run a study of searches again, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import check_json, err, out, write_json
from searchkit.errors import UsageError

if TYPE_CHECKING:
    from .studies import StudyRecipe


def study(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The study; all are listed if left out.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,N,...", help="Each arm is run once with each.")] = "0,1,2",
    count: Annotated[
        int | None, typer.Option("--count", min=1, metavar="N", help="The seeds 0 to N - 1, in place of --seeds.")
    ] = None,
    spaces: Annotated[
        str | None, typer.Option("--spaces", metavar="NAME,...", help="Of `genotypes`: these search spaces, not all.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=4, help="Of each search and training, in place of the study's.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps of a tiny space: a trial of the code.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the rows of --json; seeds may be added.")
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="PATH", help="Save after every row; `-` is standard output.")
    ] = None,
) -> None:
    """Run a study of searches: every arm with every seed, in turns; ends in a table of Markdown."""
    if name is None:
        _list()
        return
    check_json(json)
    path = Path(json) if json and json != "-" else None
    if resume and path is None:
        raise UsageError("nothing to resume", where="--resume", fix="give --json with the file of the study")
    numbers = _parsed(seeds) if count is None else tuple(range(count))
    from .studies import STUDIES
    from .studies._record import begin, check_free, resumed, run_missing

    found = STUDIES.load(name)
    if path:
        check_free(path, resume=resume)
    recipe = _changed(found.recipe.quick() if quick else found.recipe, steps, spaces)
    record = begin(name.replace("_", "-"), found, recipe, numbers, _machine(), quick=quick)
    if path and resume and path.exists():
        record = resumed(record, path)
    if record.missing:
        from .studies._workbench import Workbench

        console, bench = err(), Workbench(recipe)
        # Before the first row, whose time they are no part of.
        for split in ("train", "val") if recipe.training_pictures else ():
            bench.pictures(split)
        run_missing(record, found, bench, path, lambda text: console.print(text, markup=False))
    if json == "-":
        write_json(record.to_tree(), "-")
        return
    _print(found.tables(record.rows, recipe), quick=quick)


def _changed(recipe: StudyRecipe, steps: int | None, spaces: str | None) -> StudyRecipe:
    """The recipe with what the command line changes of it."""
    from dataclasses import replace

    if steps is not None:
        if not recipe.steps:
            raise UsageError("this study neither searches nor trains", where="--steps", fix="leave it out")
        return replace(recipe, steps=steps)
    if spaces is None:
        return recipe
    from .studies.genotypes import GenotypesRecipe

    if not isinstance(recipe, GenotypesRecipe):
        raise UsageError("this study is not one of several spaces", where="--spaces", fix="leave it out")
    from searchkit.spaces import SPACES

    names = tuple(dict.fromkeys(SPACES.load(name.strip()).name for name in spaces.split(",")))
    return replace(recipe, spaces=names)


def _list() -> None:
    from .studies import STUDIES

    for name in STUDIES.names():
        out().print(f"{name:14} {STUDIES.summary(name)}", markup=False)


def _parsed(seeds: str) -> tuple[int, ...]:
    parts = [part.strip() for part in seeds.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts) or len({*parts}) < len(parts):
        raise UsageError("not seeds", where="--seeds", got=seeds, allowed="different whole numbers, such as 0,1,2")
    return tuple(map(int, parts))


def _machine() -> dict[str, str | int | float | bool | None]:
    import torch

    from . import machine

    return machine.describe() | {"torch_threads": torch.get_num_threads()}


def _print(text: str, *, quick: bool) -> None:
    if quick:
        out().print("A trial of the code: these figures mean nothing.", markup=False)
    out().print(text, markup=False)
