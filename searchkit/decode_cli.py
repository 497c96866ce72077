"""`searchkit decode`: from architecture parameters to a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, out, write_json

if TYPE_CHECKING:
    from .genotype import Genotype

# Files say in words where they are from.
_STRING_BYTES = 4096


def decode(
    parameters: Annotated[
        Path,
        typer.Argument(metavar="PARAMETERS|RUN_DIR", help="A file of architecture parameters, or a search's folder."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The genotype.")],
    rule: Annotated[
        str | None,
        typer.Option("--rule", metavar="NAME", help="How a file is decoded: joint if left out, or release."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="NAME", help="Search space of a file; needed where several have such files."),
    ] = None,
    companion: Annotated[
        str | None,
        typer.Option("--companion", metavar="NAME", help="Write what was searched beside, such as `teacher`, instead."),
    ] = None,
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="HxW", help="Height x width at which MACs are counted.")
    ] = "512x1024",
    json: JsonOption = None,
) -> None:
    """Decode architecture parameters, published or of a search that may still go on, to a genotype."""
    check_json(json)
    from .files import write_text
    from .sizes import parse_size

    size = parse_size(resolution)
    if parameters.is_dir():
        network, others = _of_run(parameters, rule, space)
    else:
        network, others = _of_file(parameters, rule, space)
    chosen = network if companion is None else _companion(others, companion)
    chosen.size_rule.check(size, network=chosen.name)
    cost = chosen.cost(size)
    write_text(output, chosen.to_json())
    if json:
        tree = {"schema": 1, "genotype": str(output), "network": chosen.name, "digest": chosen.digest}
        more = {"resolution": str(size), "params": cost.params, "conv_macs": cost.conv_macs}
        write_json(tree | more | {"companions": sorted(others)}, json)
    if json != "-":
        beside = "".join(f"; --companion {name} writes its {name}" for name in sorted(others) if name != companion)
        out().print(
            f"{output}: {cost.params / 1e6:.3f} M parameters, {cost.conv_macs / 1e9:.4g} GMACs at {size}{beside}",
            markup=False,
        )


def _of_run(folder: Path, rule: str | None, space: str | None) -> tuple[Genotype, dict[str, Genotype]]:
    from .errors import UsageError
    from .training.decode_run import decode_run

    for option, value in (("--rule", rule), ("--space", space)):
        if value is not None:
            raise UsageError("a search says itself what it is, and how it decodes", where=option, fix="leave it out")
    return decode_run(folder)


def _of_file(path: Path, rule: str | None, name: str | None) -> tuple[Genotype, dict[str, Genotype]]:
    from . import strict_json
    from .errors import InputFileError, UsageError, unknown_name
    from .files import read_bytes
    from .spaces import SPACES

    space = SPACES.load(name or _only_decoder())
    if not space.decoding_rules:
        raise UsageError("the space reads no files of architecture parameters", where="--space", got=space.name)
    wanted = rule or space.decoding_rules[0]
    if wanted not in space.decoding_rules:
        raise unknown_name("rule", wanted, space.decoding_rules, where="--rule")
    data = read_bytes(path, limit_bytes=strict_json.MAX_BYTES, what="architecture parameters")
    tree = strict_json.loads(data, where=str(path), string_bytes=_STRING_BYTES)
    try:
        if not isinstance(tree, dict):
            raise InputFileError("not architecture parameters", got=strict_json.Spelling.of(tree))
        return space.decode(tree, wanted)
    except InputFileError as error:
        raise error.at(str(path)) from None


def _only_decoder() -> str:
    """The space whose files these must be."""
    from .errors import UsageError
    from .spaces import SPACES

    names = [name for name in SPACES.names() if SPACES.load(name).decoding_rules]
    if len(names) != 1:
        raise UsageError("several spaces read such files", where="--space", allowed=", ".join(names), fix="name one")
    return names[0]


def _companion(others: dict[str, Genotype], name: str) -> Genotype:
    from .errors import unknown_name

    if name not in others:
        raise unknown_name("companion", name, others, where="--companion")
    return others[name]
