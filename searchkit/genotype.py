"""The genotype: a discrete network as a JSON file.

A genotype says what a network is and nothing about how it is trained. It is strict (unknown, missing or mistyped fields
are refused, never guessed), canonical (equal networks have equal bytes, hence equal `digest`) and bounded (its cost is
known before a single tensor is allocated). `provenance` stands beside it and is not part of what the digest covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import strict_json
from .cost import Cost, Stage
from .errors import InputFileError, nearest
from .files import read_bytes
from .sizes import Size, SizeRule

SCHEMA = 1

_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_TEXT = r"^[^\x00-\x1f]{0,256}$"


class Part(BaseModel):
    """Base of everything inside a genotype: frozen, strict in its types, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Provenance(Part):
    """Where a genotype came from. Not covered by the digest: renaming a network does not change it."""

    name: str = Field(default="unnamed", pattern=_NAME, description="what tables call this network")
    description: str = Field(default="", pattern=_TEXT)
    source: str = Field(default="", pattern=_TEXT, description="paper, or tool and version")
    strategy: str = Field(default="", pattern=_TEXT)
    seed: int | None = Field(default=None, ge=0)
    data: str = Field(default="", pattern=_TEXT)
    parent: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="digest it was derived from")


class Genotype(Part):
    """What every genotype has. Each search space adds its fields in a subclass.

    Attributes:
        schema_version: version of the file format; written as `schema`.
        space: the search space, which is also the folder under `searchkit/spaces`.
        classes: number of output channels.
        provenance: see `Provenance`.
    """

    # Subclasses state `space: Literal["name"]`.
    schema_version: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    space: str
    classes: int = Field(ge=2, le=4096, description="output channels of the classifier")
    provenance: Provenance = Provenance()

    size_rule: ClassVar[SizeRule]

    @property
    def name(self) -> str:
        return self.provenance.name

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the canonical JSON of all but `provenance`."""
        tree = self.model_dump(mode="json", by_alias=True, exclude={"provenance"})
        return hashlib.sha256(strict_json.canonical(tree)).hexdigest()

    def stage_costs(self, size: Size) -> Iterator[Stage]:
        """The convolutions and maps of each stage at an input of `size`, without building the network."""
        raise NotImplementedError

    def cost(self, size: Size) -> Cost:
        """Parameters, convolution MACs and largest maps at an input of `size`, in microseconds and without torch."""
        return Cost.of(self.stage_costs(size))

    def with_classes(self, classes: int) -> Self:
        """The same network for another number of classes."""
        return type(self).model_validate_json(strict_json.canonical(self.to_tree() | {"classes": classes}))

    def to_tree(self) -> dict[str, Any]:
        """Every field as plain JSON values; provenance last."""
        tree = self.model_dump(mode="json", by_alias=True)
        return tree | {"provenance": tree.pop("provenance")}

    def to_json(self) -> str:
        """Canonical form for people: every field, in the order of the schema, two spaces, one line per leaf list."""
        return _pretty(self.to_tree()) + "\n"


def load(path: Path) -> Genotype:
    """Read and validate a genotype file.

    Raises:
        InputFileError: naming the file, the field, what was found, what is allowed and what to do.
    """
    where = str(path)
    return parse(read_bytes(path, limit_bytes=strict_json.MAX_BYTES, what="genotype"), where=where)


def parse(data: bytes, *, where: str) -> Genotype:
    """Validate the bytes of a genotype; see `load`."""
    tree = strict_json.loads(data, where=where)
    if not isinstance(tree, dict):
        raise InputFileError(
            "not a genotype",
            where=where,
            got=type(tree).__name__,
            allowed="a JSON object with `schema` and `space`",
        )
    _check_schema(tree, where)
    genotype_type = _genotype_type(tree, where)
    try:
        # In JSON mode a strict tuple takes an array, and nothing else loosens.
        return genotype_type.model_validate_json(strict_json.canonical(tree))
    except ValidationError as error:
        raise _input_error(error, genotype_type, where) from None


def json_schema(space: str | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one space's genotypes, or of all of them."""
    from .spaces import SPACES

    names = [space] if space else SPACES.names()
    schemas = {name: SPACES.load(name).genotype_type.model_json_schema() for name in names}
    if space:
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schemas[space]}
    definitions: dict[str, Any] = {}
    for name, schema in schemas.items():
        # Definitions of different spaces may share a name, so each space's are moved under its own prefix.
        text = json.dumps(schema).replace("#/$defs/", f"#/$defs/{name}.")
        moved = json.loads(text)
        definitions |= {f"{name}.{key}": value for key, value in moved.pop("$defs", {}).items()}
        definitions[name] = moved
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "searchkit genotype",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in names],
        "$defs": definitions,
    }


def _check_schema(tree: dict[str, Any], where: str) -> None:
    if "schema" not in tree:
        raise InputFileError("missing field", where=f"{where}: schema", allowed=f"{SCHEMA}", fix='add "schema": 1')
    version = tree["schema"]
    if type(version) is not int or version < 1:
        raise InputFileError("unknown schema", where=f"{where}: schema", got=version, allowed=f"1 to {SCHEMA}")
    if version > SCHEMA:
        raise InputFileError(
            "written by a newer searchkit",
            where=f"{where}: schema",
            got=version,
            allowed=f"1 to {SCHEMA}",
            fix="upgrade searchkit; it never guesses what newer fields mean",
        )


def _genotype_type(tree: dict[str, Any], where: str) -> type[Genotype]:
    from .spaces import SPACES

    space = tree.get("space")
    if not isinstance(space, str) or space not in SPACES.names():
        known = SPACES.names()
        fix = f"did you mean {' or '.join(nearest(space, known))}?" if isinstance(space, str) else None
        raise InputFileError(
            "missing field" if "space" not in tree else "unknown search space",
            where=f"{where}: space",
            got=space,
            allowed=", ".join(known),
            fix=fix or 'add "space"',
        )
    return SPACES.load(space).genotype_type


def _input_error(error: ValidationError, model: type[Genotype], where: str) -> InputFileError:
    """The first of pydantic's complaints, in our words; how many more there are is said."""
    details = error.errors(include_url=False)
    first = details[0]
    kind, loc = first["type"], first["loc"]
    path, _ = _place(model, loc)
    place = f"{where}: {path}" if path else where
    more = f"; {len(details) - 1} more after this one" if len(details) > 1 else ""
    if kind == "extra_forbidden":
        _, known = _place(model, loc[:-1])
        guess = f"did you mean {' or '.join(nearest(str(loc[-1]), known))}?" if known else "delete it"
        return InputFileError("unknown field" + more, where=place, got=loc[-1], allowed=", ".join(known), fix=guess)
    if kind == "missing":
        return InputFileError("missing field" + more, where=place, fix="add it; see `searchkit schema`")
    if kind == "value_error":
        return InputFileError(first["msg"].removeprefix("Value error, ") + more, where=place)
    return InputFileError(
        "wrong value" + more,
        where=place,
        got=first["input"],
        allowed=first["msg"].removeprefix("Input should be "),
        fix="correct the field; see `searchkit schema`",
    )


def _place(model: type[Genotype], loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A pydantic location as `stages[1].layers[3].dilation`, and the names of the fields that belong there.

    Pydantic puts the tag of a union into the location although the file has no such level; the JSON Schema tells tags
    from fields.
    """
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    text = ""
    for part in loc:
        node = _resolve(node, schema)
        tags = node.get("discriminator", {}).get("mapping", {})
        if isinstance(part, int):
            text += f"[{part}]"
            node = node.get("items", {})
        elif part in tags:
            node = {"$ref": tags[part]}
        else:
            text += f".{part}" if text else part
            node = node.get("properties", {}).get(part, {})
    return text, sorted(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[1]] if reference else node


def _pretty(value: Any, indent: int = 0) -> str:
    """JSON with short objects and lists on one line, so that a layer is a line that a person can compare."""
    flat = json.dumps(value, ensure_ascii=True)
    if not isinstance(value, dict | list) or len(flat) + indent <= 100:
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        body = ",\n".join(f"{pad}{json.dumps(k)}: {_pretty(v, indent + 2)}" for k, v in value.items())
        return "{\n" + body + "\n" + " " * indent + "}"
    body = ",\n".join(pad + _pretty(v, indent + 2) for v in value)
    return "[\n" + body + "\n" + " " * indent + "]"
