"""Data sets that are folders of pictures and masks, paired by their names.

A split is two patterns, `leftImg8bit/train/*/*_leftImg8bit.png` and `gtFine/train/*/*_gtFine_labelIds.png`: what the
stars stand for is the key of a sample, and the same key is looked for under both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputFileError, SearchkitError, UsageError
from ..label_sets import LabelSet
from ..pictures import read_picture
from ..sizes import Size
from . import Dataset, Problem, Sample
from ._masks import MaskCode

Key = tuple[str, ...]

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


@dataclass(frozen=True)
class Pattern:
    """A relative path in which each `*` stands for a part of a name, never for a `/`."""

    text: str

    @property
    def parent(self) -> Pattern:
        """The pattern of the folders that the files lie in."""
        return Pattern(self.text.rpartition("/")[0])

    @property
    def folder(self) -> str:
        """The part before the first star that is a whole folder; `.` for the root itself."""
        return self.text.partition("*")[0].rpartition("/")[0] or "."

    @property
    def stars(self) -> int:
        """How many stars it has."""
        return self.text.count("*")

    def fill(self, key: Key) -> str:
        """The path of a key."""
        pieces = self.text.split("*")
        return pieces[0] + "".join(value + piece for value, piece in zip(key, pieces[1:], strict=True))

    def key(self, path: str) -> Key | None:
        """The key of a relative path; None where it does not match."""
        match = re.fullmatch("([^/]+)".join(map(re.escape, self.text.split("*"))), path, re.DOTALL)
        return match.groups() if match else None

    def find(self, root: Path) -> set[Key]:
        """The keys of all files under `root` that match, but hidden ones: archives made on other systems hold some."""
        found = (path.relative_to(root) for path in root.glob(self.text))
        keys = (self.key(path.as_posix()) for path in found if not any(part.startswith(".") for part in path.parts))
        return {key for key in keys if key is not None}


@dataclass(frozen=True)
class Rule:
    """Where the files of a split lie and how they are called.

    Args:
        images: the pictures.
        masks: the masks; as many stars as `images`.
        expected: how many samples the published split has; None where there is no such number.
        members: the keys of the split in order, where a list names them; None for every file that is found.
        name: what a key, its parts joined by `/`, must look like.
        beside: names of other pictures that may lie among the masks.
    """

    images: Pattern
    masks: Pattern
    expected: int | None = None
    members: tuple[Key, ...] | None = None
    name: re.Pattern[str] | None = None
    beside: re.Pattern[str] | None = None

    def keys(self, root: Path) -> list[Key]:
        """All samples in order. One whose picture or mask is missing is counted: it must be noticed, not skipped."""
        if self.members is not None:
            return list(self.members)
        return sorted(self.images.find(root) | self.masks.find(root))


class Tree(Dataset):
    """Pictures and masks in folders.

    Args:
        kind: name of the data set.
        root: the folder that the patterns start from.
        labels: the classes.
        rules: one for each split, in the order in which they are listed.
        masks: the code of the masks.
    """

    def __init__(self, kind: str, root: Path, labels: LabelSet, rules: Mapping[str, Rule], masks: MaskCode) -> None:
        self.kind = kind
        self.labels = labels
        self._root = root
        self._rules = dict(rules)
        self._masks = masks
        self._known: dict[str, list[Key]] = {}

    def splits(self) -> tuple[str, ...]:
        return tuple(self._rules)

    def count(self, split: str) -> int:
        return len(self._keys(split))

    def name(self, split: str, index: int) -> str:
        return "/".join(self._key(split, index))

    def read(self, split: str, index: int) -> Sample:
        key, rule = self._key(split, index), self._rule(split)
        sample = Sample(
            read_picture(self._root / rule.images.fill(key)), self._masks.read(self._root / rule.masks.fill(key))
        )
        if problem := _size_problem(sample):
            raise InputFileError(problem, where=str(self._root / rule.masks.fill(key)))
        return sample

    def fingerprint(self, split: str) -> str:
        rule, digest = self._rule(split), hashlib.sha256()
        digest.update(repr((self.kind, split, self.labels, self._masks)).encode())
        for key in self._keys(split):
            for name in (rule.images.fill(key), rule.masks.fill(key)):
                try:
                    found = (self._root / name).stat()
                    digest.update(repr((name, found.st_size, found.st_mtime_ns)).encode())
                except OSError:
                    digest.update(repr((name, None)).encode())
        return digest.hexdigest()

    def check(self) -> Iterator[Problem]:
        for split, rule in self._rules.items():
            missing = self._missing_folders(rule)
            for folder in missing:
                yield Problem(folder, f"folder is missing (split {split})")
            if missing:
                continue
            yield from self._misnamed(rule)
            keys = rule.keys(self._root)
            for key in keys:
                yield from self._check_sample(rule, key)
            expected = rule.expected
            if not keys or (expected is not None and len(keys) != expected):
                wanted = "at least 1" if expected is None else f"{expected} are published"
                yield Problem(rule.images.folder, f"split {split} has {len(keys)} samples, {wanted}")

    def _check_sample(self, rule: Rule, key: Key) -> Iterator[Problem]:
        names = image, mask = rule.images.fill(key), rule.masks.fill(key)
        if rule.name and not rule.name.fullmatch("/".join(key)):
            yield Problem(image, "misnamed: not a name of this data set, or in the wrong folder")
        there = [name for name in names if (self._root / name).is_file()]
        if not there:
            yield Problem(image, "listed, but neither the picture nor its mask is there")
        elif there == [image]:
            yield Problem(image, f"picture without a mask; {mask} is missing")
        elif there == [mask]:
            yield Problem(mask, f"mask without a picture; {image} is missing")
        arrays = []
        for name in there:
            try:
                arrays.append((read_picture if name == image else self._masks.read)(self._root / name))
            except SearchkitError as error:
                error.where = None
                yield Problem(name, str(error).removesuffix("."))
        if len(arrays) == 2 and (problem := _size_problem(Sample(*arrays))):
            yield Problem(mask, problem)

    def _misnamed(self, rule: Rule) -> Iterator[Problem]:
        for pattern, beside in ((rule.images, None), (rule.masks, rule.beside)):
            for folder in sorted(self._root.glob(pattern.parent.text) if pattern.parent.text else [self._root]):
                for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                    name = path.relative_to(self._root).as_posix()
                    known = pattern.key(name) or (beside and beside.fullmatch(path.name))
                    if path.suffix.lower() in _PICTURE_SUFFIXES and not path.name.startswith(".") and not known:
                        yield Problem(name, f"misnamed: {pattern.text} is expected here")

    def _missing_folders(self, rule: Rule) -> list[str]:
        folders = dict.fromkeys((rule.images.folder, rule.masks.folder))
        return [folder for folder in folders if not (self._root / folder).is_dir()]

    def _rule(self, split: str) -> Rule:
        if split not in self._rules:
            raise UsageError("no such split", where=self.kind, got=split, allowed=", ".join(self._rules) or "none")
        return self._rules[split]

    def _keys(self, split: str) -> list[Key]:
        rule = self._rule(split)
        if split not in self._known:
            for folder in self._missing_folders(rule):
                raise InputFileError(
                    f"a folder of split {split} is missing",
                    where=str(self._root / folder),
                    fix=f"check the tree with `searchkit data check {self.kind}:{self._root}`",
                )
            self._known[split] = rule.keys(self._root)
        return self._known[split]

    def _key(self, split: str, index: int) -> Key:
        keys = self._keys(split)
        check_index(self.kind, split, index, len(keys))
        return keys[index]


def check_index(kind: str, split: str, index: int, count: int) -> None:
    """Raise `UsageError` unless `index` is one of `count` samples."""
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise UsageError(f"no such sample in split {split}", where=kind, got=index, allowed=f"0 to {count - 1}")


def tree_root(kind: str, path: Path | None, size: Size | None) -> Path:
    """The root of a tree, as `DatasetKind.open` gets it.

    Raises:
        UsageError: no path, or a size.
        InputFileError: no folder is there.
    """
    if path is None:
        raise UsageError("a path is needed", where="--data", got=kind, fix=f"write {kind}:PATH")
    if size is not None:
        raise UsageError("this data set has the size it is stored in", where=kind, got=str(size), allowed="no size")
    if not path.is_dir():
        raise InputFileError("there is no folder here", where=str(path), fix=f"give the root of the {kind} tree")
    return path


def _size_problem(sample: Sample) -> str | None:
    image, labels = Size(*sample.image.shape[:2]), Size(*sample.labels.shape)
    return None if image == labels else f"the mask is {labels}, its picture {image}"
