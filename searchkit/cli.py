"""The `searchkit` command. Every command imports what it needs inside its own function, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import JsonOption, check_json, err, out, run, write_json
from .data_cli import app as data_app
from .evaluate_cli import evaluate
from .training import train_cli

if TYPE_CHECKING:
    from deploy.deployable import Deployable
    from deploy.verify import Report

    from .anatomy import Part

app = typer.Typer(
    name="searchkit",
    help="Real-time segmentation networks: from a genotype to a verified engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command()(evaluate)

app.command()(train_cli.train)

NetworkArgument = Annotated[
    str,
    typer.Argument(metavar="NETWORK", help="A genotype file, a bundle folder, or a name from `searchkit networks`."),
]
ResolutionOption = Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width of the input.")]


@app.command()
def export(
    network: NetworkArgument,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Trained weights (.safetensors), or `streets` for those that come with ssr; seeded ones if left out.",
        ),
    ] = None,
    resolution: ResolutionOption = "512x1024",
    io: Annotated[
        str,
        typer.Option(
            "--io",
            metavar="CONTRACT",
            help="raw: float NCHW to logits; labels: uint8 NHWC to a uint8 label map; logits: raw at full resolution.",
        ),
    ] = "raw",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Bundle folder; NETWORK-CONTRACT-HxW if left out."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the weights where none are given.")] = 0,
    json: JsonOption = None,
) -> None:
    """Export a network to ONNX, verify it against PyTorch, and write a bundle."""
    from deploy.contracts import CONTRACTS

    from .errors import unknown_name
    from .networks import resolve
    from .sizes import parse_size
    from .trained import find_weights

    # All that can be refused is refused before torch is imported.
    check_json(json)
    found, size = resolve(network), parse_size(resolution)
    if io.replace("_", "-") not in CONTRACTS.names():
        raise unknown_name("tensor contract", io, CONTRACTS.names(), where="--io")
    found.check(size)
    file = find_weights(weights, found.name) if weights else None

    from deploy.deployable import Deployable
    from deploy.export import export as export_bundle

    console = err()
    folder = output or Path(f"{found.name}-{io}-{size}")
    console.print(f"building {found.name} at {size}, contract {io}", markup=False)
    model = Deployable(found, size, io, weights=file, seed=seed)
    if not model.weights.trained:
        console.print(f"weights are {model.weights.text}: speed is real, the labels mean nothing")
    console.print("exporting and verifying against PyTorch")
    report = export_bundle(model, folder)
    if json:
        write_json(_export_tree(model, report, folder), json)
    if json != "-":
        _print_export(model, report, folder)


def _print_export(model: Deployable, report: Report, folder: Path) -> None:
    worst = max(c.max_abs_error for c in report.comparisons)
    agreement = min(c.label_agreement for c in report.comparisons)
    out().print(
        f"{folder}: model.onnx, {len(model.onnx) / 1e6:.1f} MB, verified: max abs error {worst:.1e}, "
        f"labels agree on {agreement:.4%} of pixels and on 100% of clear ones, "
        f"{report.comparisons[0].classes_in_reference} classes seen",
        markup=False,
    )


def _export_tree(model: Deployable, report: Report, folder: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "network": model.network.name,
        "digest": model.network.digest,
        "resolution": str(model.size),
        "io": model.io,
        "trained": model.weights.trained,
        "onnx_bytes": len(model.onnx),
        "onnx_sha256": model.onnx_sha256,
        "bundle": str(folder),
        "verification": report.to_tree(),
    }


@app.command()
def show(
    network: NetworkArgument,
    resolution: ResolutionOption = "512x1024",
    depth: Annotated[int, typer.Option("--depth", min=0, max=8, help="Levels below the network.")] = 2,
    json: JsonOption = None,
) -> None:
    """Show a network's stages as a tree: shapes, parameters, MACs, receptive field."""
    from .networks import resolve
    from .sizes import parse_size

    found, size = resolve(network), parse_size(resolution)
    found.check(size)
    from .anatomy import dissect

    part = dissect(found.build_on_meta(), size, depth=depth)
    if json:
        tree = {
            "schema": 1,
            "network": found.name,
            "digest": found.digest,
            "resolution": str(size),
            "tree": part.to_tree(),
        }
        write_json(tree, json)
    if json != "-":
        _print_tree(found.name, part, str(size))


def _print_tree(name: str, part: Part, size: str) -> None:
    from rich.tree import Tree

    def label(p: Part, title: str) -> str:
        shape = "x".join(map(str, p.output_shape[1:])) if p.output_shape else "-"
        sees = "x".join(map(str, p.receptive_field_px)) if p.receptive_field_px else "-"
        return (
            f"[bold]{title}[/bold] {p.kind}  [cyan]{shape}[/cyan]  {p.params / 1e3:,.1f} k params  "
            f"{p.conv_macs / 1e9:.3f} GMACs  sees {sees} px"
        )

    def grow(tree: Tree, p: Part) -> None:
        for child in p.children:
            grow(tree.add(label(child, child.name)), child)

    root = Tree(label(part, name))
    grow(root, part)
    console = out()
    console.print(root)
    console.print(
        f"input 3x{size}, batch 1; shapes are CxHxW; a MAC is one multiply-accumulate of a convolution or matrix "
        "product; 'sees' is the theoretical receptive field (height x width) of one output value"
    )


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


@app.command()
def doctor(json: JsonOption = None) -> None:
    """Say what is installed, which backends can run here, and how to get the rest."""
    from deploy.doctor import diagnose

    diagnosis = diagnose()
    if json:
        write_json(diagnosis.to_tree(), json)
    if json != "-":
        console = out()
        for key, value in diagnosis.system.items():
            console.print(f"{key}: {value}")
        console.print()
        for package in diagnosis.packages:
            console.print(f"{package.name:16} {package.version or 'not installed: ' + package.install}", markup=False)
        console.print()
        for backend in diagnosis.backends:
            state = (
                f"runs here, version {backend.version}, on {', '.join(backend.devices)}"
                if backend.available
                else f"cannot run here: {backend.reason}. {backend.install}"
            )
            console.print(f"backend {backend.name}: {state}", markup=False)
        for problem in diagnosis.problems:
            console.print(f"problem: {problem}", markup=False)
    if diagnosis.problems:
        raise typer.Exit(7)


@app.command()
def segment(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder made by `searchkit export`.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of any size.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The coloured label map.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Blend the colours with the picture.")] = False,
    json: JsonOption = None,
) -> None:
    """Run a bundle on a picture and write the label map as a coloured PNG."""
    check_json(json)
    import numpy as np

    from deploy.segmenter import load

    from .pictures import check_output, read_picture, resize_picture, write_picture
    from .sizes import Size

    check_output(output)
    picture = read_picture(image)
    with load(bundle) as segmenter:
        labels = segmenter(resize_picture(picture, segmenter.size))
        names, coloured = segmenter.labels.names, segmenter.labels.colour(labels)
        if not segmenter.trained:
            err().print("this bundle holds untrained weights: its label map means nothing")
    original = Size(picture.shape[0], picture.shape[1])
    coloured = resize_picture(coloured, original, nearest=True)
    if overlay:
        coloured = ((coloured.astype(np.uint16) + picture) // 2).astype(np.uint8)
    write_picture(output, coloured)
    counts = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    if json:
        shares = {name: float(share) for name, share in zip(names, counts, strict=False)}
        write_json({"schema": 1, "output": str(output), "share_of_pixels": shares}, json)
    if json != "-":
        seen = int((counts > 0).sum())
        out().print(f"{output}: {original}, {seen} of {len(names)} classes", markup=False)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(app))
