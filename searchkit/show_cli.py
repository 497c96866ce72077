"""`searchkit show`: a network as a tree of its stages, or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, out, write_json
from .export_cli import NetworkArgument

if TYPE_CHECKING:
    from .anatomy import Part
    from .networks import Network
    from .sizes import Size


def show(
    network: NetworkArgument,
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="HxW", help="Height x width of the input.")
    ] = "512x1024",
    depth: Annotated[int, typer.Option("--depth", min=0, max=8, help="Levels below the network.")] = 2,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the genotype into this file instead.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show a network's stages as a tree: shapes, parameters, MACs, receptive field; or draw its genotype."""
    check_json(json)
    from .networks import resolve
    from .sizes import parse_size

    found, size = resolve(network), parse_size(resolution)
    found.check(size)
    if svg is not None:
        _draw(found, size, svg)
        if json is None:
            return
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
    if json != "-" and svg is None:
        _print_tree(found.name, part, str(size))


def _draw(network: Network, size: Size, path: Path) -> None:
    from .errors import UsageError
    from .files import write_text

    if network.genotype is None:
        raise UsageError(
            "only networks of a search space can be drawn",
            where="--svg",
            got=f"{network.name}, a fixed network",
            fix="leave --svg out for its tree",
        )
    from .diagram_svg import draw_genotype
    from .spaces import SPACES

    diagram = SPACES.load(network.genotype.space).diagram(network.genotype, size)
    write_text(path, draw_genotype(network.genotype, diagram, size))


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
