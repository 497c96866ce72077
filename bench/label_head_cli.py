"""`bench label-head`: what the one-pass label head gains on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

from .turns import RunsOption, TurnsOption, lines


def label_head(
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of ONNX Runtime and PyTorch.")] = 2,
    turns: TurnsOption = 5,
    runs: RunsOption = 10,
    json: JsonOption = None,
) -> None:
    """Time resize and arg-max of 19 classes: ONNX Runtime, PyTorch and the native kernels, in turns."""
    check_json(json)
    from . import machine
    from .label_head import BASELINE, measure, tree_of

    console = err()
    described = machine.describe()
    results = measure(threads, turns, runs, lambda text: console.print(text, markup=False))
    if json:
        write_json(tree_of(results, described, threads), json)
    if json == "-":
        return
    for result in results:
        for line in (f"{result.source} to {result.target}", *lines(result.turns_ms, BASELINE)):
            out().print(line, markup=False)
