"""Data sets, one file each: pictures with label maps, found by name.

Adding one is adding one file that defines `DATASET`, a `DatasetKind`; its file name is its name. `streets` needs no
download: it draws its pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..label_sets import LabelSet
from ..registry import Registry
from ..sizes import Size

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sample:
    """A picture and its labels.

    Attributes:
        image: H x W x 3, uint8, RGB.
        labels: H x W, uint8; indices into the data set's label set, `ignore` (255) where nothing counts.
    """

    image: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file of a data set's tree."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class Dataset(ABC):
    """An opened data set. Reading is pure: the same split and index give the same bytes, in any process."""

    #: the name of its kind, as on the command line; caches are named after it
    kind: str = "dataset"
    #: what the numbers in its label maps mean
    labels: LabelSet

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of its splits, such as train, val, test."""

    @abstractmethod
    def count(self, split: str) -> int:
        """Number of samples in a split; raises `UsageError` for a split it does not have."""

    @abstractmethod
    def name(self, split: str, index: int) -> str:
        """What a person calls a sample: relative path without extension, or `streets-0-17`."""

    @abstractmethod
    def read(self, split: str, index: int) -> Sample:
        """Read one sample at the size it is stored in.

        Raises:
            InputFileError: a file is missing, unreadable, of a wrong size, or holds labels out of range.
        """

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """SHA-256, in hexadecimal, of what decides every byte of a split, without decoding it: names, sizes, times."""

    @abstractmethod
    def check(self) -> Iterator[Problem]:
        """Everything that is wrong with its files, one by one; nothing if it is whole."""


class DatasetKind(ABC):
    """What a module of this package defines as `DATASET`."""

    #: whether it draws its samples: then it needs no path, and takes the size to draw them at
    draws: bool = False

    @abstractmethod
    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        """Open the data set.

        Args:
            path: the root of its tree; None where none is needed.
            size: for data sets that draw: the size of the samples. Others refuse it unless None.

        Raises:
            UsageError: a path is needed, or not taken; a size is not taken.
        """


DATASETS: Registry[DatasetKind] = Registry("searchkit.data", "DATASET", "data set")


def open_dataset(argument: str, *, size: Size | None = None) -> Dataset:
    """Open what `--data NAME[:PATH]` names.

    Raises:
        UsageError: no such data set; the nearest names are listed.
    """
    name, _, path = argument.partition(":")
    if not name:
        raise UsageError("no data set named", where="--data", got=argument, allowed="NAME or NAME:PATH")
    return DATASETS.load(name).open(Path(path) if path else None, size=size)
