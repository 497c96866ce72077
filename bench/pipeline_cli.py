"""`bench pipeline`: a picture in, labels out, by the plain way and by those of a bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

from .turns import RunsOption, TurnsOption, lines


def pipeline(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK", help="Shipped names; all if none.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of every runtime.")] = 2,
    turns: TurnsOption = 5,
    runs: RunsOption = 5,
    json: JsonOption = None,
) -> None:
    """Time whole pictures: plain torch.onnx.export with ONNX Runtime and numpy, and bundles, in turns."""
    check_json(json)
    from searchkit.networks import known_names, resolve

    found = [resolve(name) for name in networks or known_names()]
    from . import machine
    from .pipeline import PLAIN, measure, tree_of

    console = err()
    people = err() if json == "-" else out()
    described = machine.describe()
    results = []
    for result in measure(found, threads, turns, runs, lambda text: console.print(text, markup=False)):
        results.append(result)
        people.print(f"{result.network}, {result.case.name}", markup=False)
        for name, line in zip(result.turns_ms, lines(result.turns_ms, PLAIN), strict=True):
            people.print(f"{line}, {result.agreement[name]:.3%} of labels alike, {result.says[name]}", markup=False)
        if json and json != "-":
            # After each case: a long run that is stopped leaves what it has.
            write_json(tree_of(results, described, threads), json)
    if json == "-":
        write_json(tree_of(results, described, threads), json)
