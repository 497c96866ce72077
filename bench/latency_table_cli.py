"""`bench latency-table`: what each operator of a search space takes on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import err, out

if TYPE_CHECKING:
    from searchkit.costs.latency import LatencyTable

#: More than so many cores of other processes are mentioned.
BUSY_CORES = 0.2


def latency_table(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Search space, such as `ssr`.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The table, as JSON.")],
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Input, height x width.")] = "512x1024",
    backend: Annotated[str, typer.Option("--backend", metavar="NAME", help="onnxruntime or pytorch.")] = "onnxruntime",
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; the backend's default.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads.")] = None,
    classes: Annotated[int, typer.Option("--classes", min=2, max=255, help="Of the last layer.")] = 19,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Of the space; width_step=8 and width_steps=4 measure a third of the shapes.",
        ),
    ] = None,
    networks: Annotated[int, typer.Option("--networks", min=0, max=1000, help="Whole ones to hold sums to.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the networks that are sampled.")] = 0,
) -> None:
    """Measure every operator of a space once a shape, and how far sums of them miss whole networks."""
    from searchkit.errors import UsageError
    from searchkit.sizes import parse_size
    from searchkit.training.search_recipe import changed

    from .latency_table import Setting, measure

    if output.suffix != ".json":
        raise UsageError("a latency table is a JSON file", where="--output", got=str(output), allowed="NAME.json")
    if networks == 1:
        raise UsageError("one network has no correlation", where="--networks", got=1, allowed="0, or 2 and more")
    tree = changed({}, [f"space.{setting}" for setting in settings or []]).get("space", {})
    console = err()
    table = measure(
        Setting(space, tree, classes, parse_size(resolution), backend, device, threads, networks, seed),
        lambda text: console.print(text, markup=False),
    )
    table.save(output)
    out().print(
        f"{len(table.entries_ms)} operators on {table.device}, {table.runtime} {table.runtime_version}", markup=False
    )
    for line in remarks(table):
        out().print(line, markup=False)


def remarks(table: LatencyTable) -> list[str]:
    """How far the table can be believed, in words."""
    found = []
    if (additivity := table.additivity) is not None:
        found.append(
            f"sums of entries against {additivity.networks} whole networks: Pearson {additivity.pearson:.3f}, ratio "
            f"{additivity.ratio:.2f} ({additivity.ratio_low:.2f} to {additivity.ratio_high:.2f})"
        )
        if additivity.measured_ms:
            least, most = min(additivity.measured_ms), max(additivity.measured_ms)
            found.append(f"these networks take {least:.3g} to {most:.3g} ms")
    others = (table.conditions or {}).get("others_cores")
    if isinstance(others, float) and others > BUSY_CORES:
        found.append(f"other processes kept {others:.1f} cores busy meanwhile: measure again when the machine is idle")
    return found
