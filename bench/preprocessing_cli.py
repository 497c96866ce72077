"""`bench preprocessing`: what the one-pass pre-processing gains on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json


def preprocessing(
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of the native kernel, once more.")] = 2,
    turns: Annotated[int, typer.Option("--turns", min=1, max=1000, help="How often they take turns.")] = 5,
    runs: Annotated[int, typer.Option("--runs", min=1, max=10000, help="Runs in a turn of each.")] = 10,
    json: JsonOption = None,
) -> None:
    """Time resize, normalisation and layout of a picture: Pillow and numpy, and the native kernels, in turns."""
    check_json(json)
    from . import machine
    from .preprocessing import measure, tree_of

    console = err()
    described = machine.describe()
    results = measure(threads, turns, runs, lambda text: console.print(text, markup=False))
    if json:
        write_json(tree_of(results, described, threads), json)
    if json == "-":
        return
    from statistics import median

    for result in results:
        out().print(f"{result.picture} to {result.input}", markup=False)
        for name, times in result.turns_ms.items():
            typical, least, greatest = result.ratio(name)
            text = f"  {name:20} {median(times):8.2f} ms  {typical:5.1f} times as fast ({least:.1f} to {greatest:.1f})"
            out().print(text, markup=False)
