"""`bench fasterseg-step`: what a search step of FasterSeg keeps in memory."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json


def fasterseg_step(
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width.")] = "256x512",
    batch: Annotated[int, typer.Option("--batch", min=1, max=1024, help="Pictures a step.")] = 3,
    json: JsonOption = None,
) -> None:
    """Count what a search step of FasterSeg keeps in memory, beside the release's way; nothing is computed."""
    check_json(json)
    from searchkit.sizes import parse_size

    from . import machine
    from .fasterseg_step import GIB
    from .fasterseg_step import fasterseg_step as count

    console = err()
    tree = count(
        parse_size(resolution), batch, machine.describe(), None, lambda text: console.print(text, markup=False)
    )
    if json:
        write_json(tree, json)
    if json == "-":
        return
    for name, steps in tree["activation_bytes"].items():
        text = ", ".join(f"{step} {count / GIB:.3f} GiB" for step, count in steps.items())
        out().print(f"{name:46} {text}; {tree['share_of_baseline'][name]:.2f} of the first", markup=False)
