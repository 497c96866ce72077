"""`bench lowering`: what each rewrite of an exported graph gains on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json


def lowering(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK", help="Genotype files, bundles or shipped names; all shipped ones if none."),
    ] = None,
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Input, height x width.")] = "512x1024",
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME[:MODE]", help="What runs the graphs.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="CPU threads.")] = 2,
    rounds: Annotated[int, typer.Option("--rounds", min=2, max=1000, help="How often the models take turns.")] = 12,
    json: JsonOption = None,
) -> None:
    """Time the rewrites that `searchkit export --lowering` knows, alone and together, in turns."""
    check_json(json)
    from dataclasses import replace

    from deploy.lowering.choice import Lowering
    from searchkit.networks import known_names, resolve
    from searchkit.sizes import parse_size

    asked, size = Lowering.parse("auto", backend, threads), parse_size(resolution)
    found = [resolve(name) for name in networks or known_names()]

    from . import machine
    from .lowering import alone, measure, together, tree_of

    assert asked is not None
    console, described, asked = err(), machine.describe(), replace(asked, rounds=rounds)
    tree = tree_of(measure(found, size, asked, lambda text: console.print(text, markup=False)), described, size, asked)
    if json:
        write_json(tree, json)
    if json == "-":
        return
    for result in tree["results"]:
        whole = together(result)
        kept = f"{', '.join(result['applied'])}: {whole.median:.2f} times as fast" if whole else "nothing is faster"
        out().print(f"{result['network']} on {result['backend']}: {kept}", markup=False)
        for name, ratio in alone(result).items():
            text = f"  {name:24} {ratio.median:5.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})"
            out().print(text, markup=False)
