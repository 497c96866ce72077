"""`bench label-head`: what the one-pass label head gains on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json


def label_head(
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of ONNX Runtime and PyTorch.")] = 2,
    turns: Annotated[int, typer.Option("--turns", min=1, max=1000, help="How often they take turns.")] = 5,
    runs: Annotated[int, typer.Option("--runs", min=1, max=10000, help="Runs in a turn of each.")] = 10,
    json: JsonOption = None,
) -> None:
    """Time resize and arg-max of 19 classes: ONNX Runtime, PyTorch and the native kernels, in turns."""
    check_json(json)
    from . import machine
    from .label_head import measure, tree_of

    console = err()
    described = machine.describe()
    results = measure(threads, turns, runs, lambda text: console.print(text, markup=False))
    if json:
        write_json(tree_of(results, described, threads), json)
    if json == "-":
        return
    from statistics import median

    for result in results:
        out().print(f"{result.source} to {result.target}", markup=False)
        for name, times in result.turns_ms.items():
            typical, least, greatest = result.ratio(name)
            text = f"  {name:20} {median(times):8.2f} ms  {typical:5.1f} times as fast ({least:.1f} to {greatest:.1f})"
            out().print(text, markup=False)
