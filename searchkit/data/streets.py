"""Street scenes drawn from a seed: no download, exact labels, all 19 Cityscapes classes.

Surfaces share colour and grain, so that position, extent and neighbours tell them apart, and many things are
thin or small. The scene of an index is laid out in metres and painted at any size; nothing but the arguments
decides a byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from ..label_sets import CITYSCAPES_19
from ..sizes import MAX_SIDE_PX, Size
from . import Dataset, DatasetKind, Problem, Sample
from ._streets_layout import NOISE_STREAM, lay_out
from ._streets_paint import paint
from ._streets_scene import generator
from ._tree import check_index

DEFAULT_DIFFICULTY = 0.5
DEFAULT_SIZE = Size(128, 256)
# Split -> seed, number of samples (those of Cityscapes, whose own test masks are not published).
SPLITS = {"train": (0, 2975), "val": (1, 500), "test": (2, 500)}
_PROBES = 4
_PROBE_SIZE = Size(64, 128)


def draw(seed: int, index: int, size: Size, difficulty: float = DEFAULT_DIFFICULTY) -> Sample:
    """Picture `index` of the endless set `seed`, at `size` (each side 1 to 8192 px).

    The scene does not depend on the size. `difficulty`, 0 to 1, raises what surfaces share, sensor noise, the
    spread of the light, and the number of vehicles, people and small things.

    Raises:
        UsageError: an argument is out of its range.
    """
    for name, value in (("seed", seed), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise UsageError("not a number of the series", where=name, got=value, allowed="0 to 2**63 - 1")
    for name, value in zip(("height", "width"), size, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE_PX:
            raise UsageError("side out of range", where=name, got=value, allowed=f"1 to {MAX_SIDE_PX} px")
    if isinstance(difficulty, bool) or not isinstance(difficulty, int | float) or not 0 <= difficulty <= 1:
        raise UsageError("not a difficulty", where="difficulty", got=difficulty, allowed="0 to 1")
    scene = lay_out(seed, index, float(difficulty))
    image, labels = paint(scene, Size(*size), generator(seed, index, NOISE_STREAM))
    return Sample(image, labels)


class Streets(Dataset):
    """Three splits of fixed length, drawn at one size; see `draw`.

    Raises:
        UsageError: the size or the difficulty is out of its range.
    """

    kind = "streets"
    labels = CITYSCAPES_19

    def __init__(self, size: Size = DEFAULT_SIZE, difficulty: float = DEFAULT_DIFFICULTY) -> None:
        # Drawn once for the checks of the arguments.
        draw(0, 0, Size(1, 1), difficulty)
        for side in size:
            if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= MAX_SIDE_PX:
                raise UsageError("side out of range", where="size", got=side, allowed=f"1 to {MAX_SIDE_PX} px")
        self.size = Size(*size)
        self.difficulty = float(difficulty)

    def splits(self) -> tuple[str, ...]:
        return tuple(SPLITS)

    def count(self, split: str) -> int:
        return self._split(split)[1]

    def name(self, split: str, index: int) -> str:
        seed, count = self._split(split)
        check_index(self.kind, split, index, count)
        return f"streets-{seed}-{index}"

    def read(self, split: str, index: int) -> Sample:
        seed, count = self._split(split)
        check_index(self.kind, split, index, count)
        return draw(seed, index, self.size, self.difficulty)

    def fingerprint(self, split: str) -> str:
        # A few pictures stand for the painter itself: no version number has to be remembered when it changes.
        seed, count = self._split(split)
        digest = hashlib.sha256(repr((seed, count, tuple(self.size), self.difficulty)).encode())
        for index in range(_PROBES):
            sample = draw(seed, index, _PROBE_SIZE, self.difficulty)
            digest.update(sample.image.tobytes() + sample.labels.tobytes())
        return digest.hexdigest()

    def check(self) -> Iterator[Problem]:
        """Nothing: it has no files."""
        return iter(())

    def _split(self, split: str) -> tuple[int, int]:
        if split not in SPLITS:
            raise UsageError("no such split", where=self.kind, got=split, allowed=", ".join(SPLITS))
        return SPLITS[split]


class _Streets(DatasetKind):
    """`streets`, or `streets:difficulty=0.7`."""

    draws = True

    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        difficulty = DEFAULT_DIFFICULTY
        if path is not None:
            match = re.fullmatch(r"difficulty=([0-9]*\.?[0-9]+)", str(path), re.ASCII)
            if match is None:
                raise UsageError(
                    "streets has no path", where="--data", got=str(path), allowed="streets, or streets:difficulty=0.7"
                )
            difficulty = float(match[1])
        return Streets(size or DEFAULT_SIZE, difficulty)


DATASET = _Streets()
