"""The `searchkit` command. Every command imports what it needs inside its own function, so that `--help` is instant."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from . import deploy_cli, inspect_cli
from .console import JsonOption, out, run, write_json
from .data_cli import app as data_app
from .decode_cli import decode
from .evaluate_cli import evaluate
from .export_cli import export
from .plan_cli import plan
from .show_cli import show
from .strategies_cli import strategies
from .training import search_cli, train_cli

app = typer.Typer(
    name="searchkit",
    help="Real-time segmentation networks: from a genotype to a verified engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
for command in (
    plan,
    search_cli.search,
    decode,
    train_cli.train,
    evaluate,
    export,
    deploy_cli.verify,
    deploy_cli.run,
    deploy_cli.segment,
    inspect_cli.doctor,
    inspect_cli.inspect,
    strategies,
    show,
):
    app.command()(command)

ResolutionOption = Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width of the input.")]


@app.command()
def networks(
    resolution: ResolutionOption = "512x1024",
    costs: Annotated[bool, typer.Option("--costs", help="Add parameters and MACs of every network.")] = False,
    json: JsonOption = None,
) -> None:
    """List the networks that can be named."""
    from .baselines import BASELINES
    from .networks import known_names, resolve
    from .sizes import parse_size

    size = parse_size(resolution)
    rows: list[dict[str, Any]] = []
    for name in known_names():
        found = resolve(name)
        about = found.genotype.provenance.description if found.genotype else BASELINES.summary(name)
        row: dict[str, Any] = {"name": name, "kind": found.kind, "family": found.family, "about": about}
        if costs:
            from .footprint import on_meta

            found.size_rule.check(size, network=name)
            cost = on_meta(found.build_on_meta(), size)
            row |= {
                "params": cost.params,
                "conv_macs": cost.conv_macs,
                "activation_bytes": cost.activation_bytes,
            }
        rows.append(row)
    if json:
        write_json({"schema": 1, "resolution": str(size), "networks": rows}, json)
    if json != "-":
        _print_networks(rows, str(size), costs)


def _print_networks(rows: list[dict[str, Any]], size: str, costs: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("network", "family"):
        table.add_column(heading, no_wrap=True)
    if costs:
        for heading in ("params M", f"GMACs {size}", "peak MiB"):
            table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("about")
    for row in rows:
        cells = [row["name"], row["family"]]
        if costs:
            cells += [
                f"{row['params'] / 1e6:.3f}",
                f"{row['conv_macs'] / 1e9:.2f}",
                f"{row['activation_bytes'] / 2**20:.0f}",
            ]
        table.add_row(*cells, row["about"])
    out().print(table)


@app.command()
def schema(
    space: Annotated[str | None, typer.Argument(metavar="[SPACE]", help="One search space; all if left out.")] = None,
    json: JsonOption = "-",
) -> None:
    """Print the JSON Schema of genotypes."""
    from .genotype import json_schema

    write_json(json_schema(space), json or "-")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(app))
