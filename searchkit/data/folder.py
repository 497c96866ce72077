"""Your own pictures and masks: a folder with a `dataset.toml` that says where they are.

name = "yard"
masks = "index"                        # or "colour": what the pixels of a mask hold
ignore = 255                           # the number, or the colour [r, g, b], of what is not counted

[[classes]]                            # in the order of the labels, from 0
name = "path"
colour = [128, 64, 128]

[splits.train]                         # a picture and its mask agree in what the stars stand for
images = "images/train/*.jpg"
masks = "masks/train/*.png"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputFileError
from ..files import read_bytes
from ..label_sets import MAX_CLASSES, LabelSet
from ..sizes import Size
from . import Dataset, DatasetKind
from ._masks import ColourMasks, MaskCode, index_masks
from ._tree import Pattern, Rule, Tree, tree_root

FILE = "dataset.toml"
_MAX_BYTES = 1 << 20
_MAX_NAME = 80
_DEFAULT_IGNORE = 255

_Level = Annotated[int, Field(ge=0, le=255)]
_Colour = Annotated[list[_Level], Field(min_length=3, max_length=3)]
_Name = Annotated[str, Field(min_length=1, max_length=_MAX_NAME)]
# One plain part after another: no absolute path, no `..`, no hidden file, and no wildcard but the star.
_PLAIN_PATTERN = re.compile(r"(?!\.)[^/\\?\[\]]+(/(?!\.)[^/\\?\[\]]+)*")
_SPLIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Class(_Part):
    name: _Name
    colour: _Colour


class _Split(_Part):
    images: str
    masks: str


class _Description(_Part):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
    masks: Literal["index", "colour"]
    ignore: _Level | _Colour | None = None
    classes: Annotated[list[_Class], Field(min_length=1, max_length=MAX_CLASSES)]
    splits: Annotated[dict[str, _Split], Field(min_length=1)]


class _Folder(DatasetKind):
    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        root = tree_root("folder", path, size)
        where = str(root / FILE)
        description = _read(root / FILE)
        _refuse_twins("name", [part.name for part in description.classes], where)
        _refuse_twins("colour", [tuple(part.colour) for part in description.classes], where)
        labels = LabelSet(
            name=description.name,
            names=tuple(part.name for part in description.classes),
            palette=tuple(_rgb(part.colour) for part in description.classes),
        )
        return Tree("folder", root, labels, _rules(description, where), _masks(description, labels, where))


def _read(path: Path) -> _Description:
    data = read_bytes(path, limit_bytes=_MAX_BYTES, what="description of the data set")
    try:
        return _Description.model_validate(tomllib.loads(data.decode()))
    except UnicodeDecodeError:
        raise InputFileError("file is not UTF-8", where=str(path)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputFileError(f"not TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        raise InputFileError(
            "unknown key" if unknown else first["msg"][:1].lower() + first["msg"][1:],
            where=f"{path}: {field}",
            got=None if first["type"] == "missing" else first["input"],
        ) from None


def _rules(description: _Description, where: str) -> dict[str, Rule]:
    rules = {}
    for name, split in description.splits.items():
        if not _SPLIT_NAME.fullmatch(name):
            raise InputFileError(
                "not a name of a split", where=f"{where}: splits", got=name, allowed="a-z, 0-9 and _, 40 at most"
            )
        for field, text in (("images", split.images), ("masks", split.masks)):
            if not _PLAIN_PATTERN.fullmatch(text) or not text.isprintable() or "**" in text or "*" not in text:
                raise InputFileError(
                    "not a pattern of files in this folder",
                    where=f"{where}: splits.{name}.{field}",
                    got=text,
                    allowed="a relative path with at least one `*`, without `..`, `**`, `?` and `[]`",
                )
        rule = Rule(Pattern(split.images), Pattern(split.masks))
        if rule.images.stars != rule.masks.stars:
            raise InputFileError(
                "the patterns of pictures and masks have different numbers of stars",
                where=f"{where}: splits.{name}",
                got=[split.images, split.masks],
                fix="use the same stars in both, so that a picture finds its mask",
            )
        rules[name] = rule
    return rules


def _masks(description: _Description, labels: LabelSet, where: str) -> MaskCode:
    ignore = description.ignore
    if description.masks == "index":
        ignore = _DEFAULT_IGNORE if ignore is None else ignore
        if not isinstance(ignore, int) or ignore < len(labels):
            raise InputFileError(
                "not a number that can be ignored",
                where=f"{where}: ignore",
                got=ignore,
                allowed=f"{len(labels)} to 255, as the {len(labels)} classes have the numbers below",
            )
        return index_masks(len(labels), ignored=(ignore,))
    colours = {colour: label for label, colour in enumerate(labels.palette)}
    if ignore is not None:
        if isinstance(ignore, int) or _rgb(ignore) in colours:
            raise InputFileError(
                "not a colour that can be ignored",
                where=f"{where}: ignore",
                got=ignore,
                allowed="[r, g, b], and no class has it",
            )
        colours[_rgb(ignore)] = labels.ignore
    return ColourMasks(tuple(colours.items()))


def _refuse_twins(what: str, values: Sequence[object], where: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise InputFileError(f"two classes have the same {what}", where=f"{where}: classes", got=value)


def _rgb(colour: list[int]) -> tuple[int, int, int]:
    red, green, blue = colour
    return red, green, blue


DATASET = _Folder()
