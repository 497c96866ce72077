"""`bench supernet-step`: what a step of the SSR supernet costs in time and memory."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

from .turns import RunsOption, TurnsOption


def supernet_step(
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width.")] = "128x256",
    batch: Annotated[int, typer.Option("--batch", min=1, max=1024, help="Pictures a step.")] = 2,
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of PyTorch.")] = 2,
    turns: TurnsOption = 3,
    runs: RunsOption = 1,
    json: JsonOption = None,
) -> None:
    """Time a weight and an architecture step of the SSR supernet beside plain forms of it, in turns; measure memory."""
    check_json(json)
    import torch

    from searchkit.sizes import parse_size

    from . import machine
    from .supernet_step import Setting
    from .supernet_step import supernet_step as measure

    described = machine.describe()
    torch.set_num_threads(threads)
    console = err()
    setting = Setting(parse_size(resolution), batch, turns=turns, runs=runs)
    tree = measure(setting, described, lambda text: console.print(text, markup=False))
    if json:
        write_json(tree, json)
    if json == "-":
        return
    from statistics import median

    for name, times in tree["pair_ms"].items():
        literal, vector = (tree[f"times_as_fast_as_{form}"][name]["median"] for form in ("literal", "mask_vector"))
        peak = tree["memory_bytes"][name]["peak"] / 1e6
        faster = f"{literal:5.2f} times as fast as literal, {vector:5.2f} as mask vector"
        text = f"{name:30} {median(times):7.0f} ms a pair, {faster}, {peak:6.0f} MB"
        out().print(text, markup=False)
    for kind, ratio in tree["supernet_over_discrete"].items():
        text = f"one alive, {kind}: a weight step takes {ratio:.2f} times that of the discrete network"
        out().print(text, markup=False)
