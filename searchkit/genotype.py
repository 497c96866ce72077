"""The genotype: a discrete network as a JSON file.

A genotype says what a network is and nothing about how it is trained. It is strict (unknown, missing or mistyped fields
are refused, never guessed), canonical (equal networks have equal bytes, hence equal `digest`) and bounded (its cost is
known before a single tensor is allocated). `provenance` stands beside it and is not part of what the digest covers.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from . import strict_json
from ._genotype_errors import input_error
from .cost import Cost, Stage
from .errors import InputFileError, UsageError, nearest
from .files import read_bytes
from .sizes import Size, SizeRule

SCHEMA = 1

MIN_CLASSES, MAX_CLASSES = 2, 4096

_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_TEXT = r"^[^\x00-\x1f]{0,256}$"
_DIGEST = r"^([0-9a-f]{64})?$"

# A pattern in words, for messages and for readers of the JSON Schema.
_NAME_WORDS: JsonDict = {"$comment": "1 to 64 of a-z, 0-9, '_', '.' and '-', the first a letter or a digit"}
_TEXT_WORDS: JsonDict = {"$comment": "text of at most 256 characters without control characters"}
_DIGEST_WORDS: JsonDict = {"$comment": "64 hexadecimal digits, or nothing"}


class Part(BaseModel):
    """Base of everything inside a genotype: frozen, strict in its types, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _integer(value: Any) -> Any:
    if type(value) is not int:
        raise PydanticCustomError("literal_error", "not an integer")
    return value


# Even where it is strict, pydantic takes 1.0 for a `Literal[1]`, which would be a second spelling of one network.
EXACT = BeforeValidator(_integer)

Text = Annotated[str, Field(pattern=_TEXT, json_schema_extra=_TEXT_WORDS)]


class Provenance(Part):
    """Where a genotype came from. Not covered by the digest: renaming a network does not change it."""

    name: str = Field(
        default="unnamed",
        pattern=_NAME,
        description="what tables call this network",
        json_schema_extra=_NAME_WORDS,
    )
    description: Text = ""
    source: Text = Field(default="", description="paper, or tool and version")
    strategy: Text = ""
    seed: int | None = Field(default=None, ge=0)
    data: Text = ""
    parent: str = Field(
        default="",
        pattern=_DIGEST,
        description="digest it was derived from",
        json_schema_extra=_DIGEST_WORDS,
    )


class Genotype(Part, ABC):
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
    classes: int = Field(ge=MIN_CLASSES, le=MAX_CLASSES, description="output channels of the classifier")
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

    @abstractmethod
    def stage_costs(self, size: Size) -> Iterator[Stage]:
        """The convolutions and maps of each stage at an input of `size`, without building the network."""

    def cost(self, size: Size) -> Cost:
        """Parameters, convolution MACs and largest maps at an input of `size`, in microseconds and without torch."""
        return Cost.of(self.stage_costs(size))

    def with_classes(self, classes: int) -> Self:
        """The same network for another number of classes; raises `UsageError` where that is out of range."""
        check_classes(classes)
        return type(self).model_validate_json(strict_json.canonical(self.to_tree() | {"classes": classes}))

    def to_tree(self) -> dict[str, Any]:
        """Every field as plain JSON values; provenance last."""
        tree = self.model_dump(mode="json", by_alias=True)
        return tree | {"provenance": tree.pop("provenance")}

    def to_json(self) -> str:
        """Canonical form for people: every field, in the order of the schema, two spaces, one line per leaf list."""
        return _pretty(self.to_tree()) + "\n"


def check_classes(classes: int) -> None:
    """Raise `UsageError` unless a network can have this many classes."""
    if type(classes) is not int or not MIN_CLASSES <= classes <= MAX_CLASSES:
        raise UsageError("number of classes out of range", got=classes, allowed=f"{MIN_CLASSES} to {MAX_CLASSES}")


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
            got=strict_json.Spelling.of(tree),
            allowed="a JSON object with `schema` and `space`",
            fix="check that this is the file you meant",
        )
    _check_schema(tree, where)
    genotype_type = _genotype_type(tree, where)
    try:
        # In JSON mode a strict tuple takes an array, and nothing else loosens.
        return genotype_type.model_validate_json(strict_json.canonical(tree))
    except ValidationError as error:
        raise input_error(error, genotype_type.model_json_schema(), where) from None


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
    place, fix = f"{where}: schema", f'write "schema": {SCHEMA}'
    if "schema" not in tree:
        raise InputFileError("missing field", where=place, allowed=f"{SCHEMA}", fix=fix)
    version = tree["schema"]
    got = strict_json.Spelling.of(version)
    if type(version) is not int or version < 1:
        raise InputFileError("unknown schema", where=place, got=got, allowed=f"{SCHEMA}", fix=fix)
    if version > SCHEMA:
        raise InputFileError(
            "written by a newer searchkit",
            where=place,
            got=got,
            allowed=f"{SCHEMA}",
            fix="upgrade searchkit; it never guesses what newer fields mean",
        )


def _genotype_type(tree: dict[str, Any], where: str) -> type[Genotype]:
    from .spaces import SPACES

    space, known = tree.get("space"), SPACES.names()
    if isinstance(space, str) and space in known:
        return SPACES.load(space).genotype_type
    allowed = " or ".join(f'"{name}"' for name in known)
    if "space" not in tree:
        raise InputFileError(
            "missing field", where=f"{where}: space", allowed=allowed, fix="add the name of its search space"
        )
    raise InputFileError(
        "unknown search space",
        where=f"{where}: space",
        got=strict_json.Spelling.of(space),
        allowed=allowed,
        fix=f"did you mean {' or '.join(nearest(space, known))}?" if isinstance(space, str) else "write one of these",
    )


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
