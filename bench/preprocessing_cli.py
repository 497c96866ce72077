"""`bench preprocessing`: what the one-pass pre-processing gains on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

from .turns import RunsOption, TurnsOption, lines


def preprocessing(
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of the native kernel, once more.")] = 2,
    turns: TurnsOption = 5,
    runs: RunsOption = 10,
    json: JsonOption = None,
) -> None:
    """Time resize, normalisation and layout of a picture: Pillow and numpy, and the native kernels, in turns."""
    check_json(json)
    from . import machine
    from .preprocessing import BASELINE, measure, tree_of

    console = err()
    described = machine.describe()
    results = measure(threads, turns, runs, lambda text: console.print(text, markup=False))
    if json:
        write_json(tree_of(results, described, threads), json)
    if json == "-":
        return
    for result in results:
        for line in (f"{result.picture} to {result.input}", *lines(result.turns_ms, BASELINE)):
            out().print(line, markup=False)
