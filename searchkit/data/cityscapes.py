"""Cityscapes: 50 cities, 1024x2048, 19 classes (leftImg8bit, gtFine, gtCoarse)."""

from __future__ import annotations

import re
from pathlib import Path

from ..label_sets import CITYSCAPES_19
from ..sizes import Size
from . import Dataset, DatasetKind
from ._masks import NOT_ALLOWED, IndexMasks
from ._tree import Pattern, Rule, Tree, tree_root

# id -> trainId in cityscapesScripts, helpers/labels.py; every other id is not counted there.
TRAIN_IDS = {
    7: 0,
    8: 1,
    11: 2,
    12: 3,
    13: 4,
    17: 5,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    31: 16,
    32: 17,
    33: 18,
}
_LAST_ID = 33
# The id of a licence plate is -1, which a tool that draws it writes as 255.
_LICENCE_PLATE = 255

# aachen/aachen_000000_000019: city, then sequence and frame.
_NAME = re.compile(r"([a-z][a-z-]*)/\1_[0-9]{6}_[0-9]{6}")
_BESIDE = re.compile(r".*_gt(Fine|Coarse)_(color|instanceIds|labelTrainIds|instanceTrainIds)\.png")
_FINE_COUNTS = {"train": 2975, "val": 500, "test": 1525}


class _Cityscapes(DatasetKind):
    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        root = tree_root("cityscapes", path, size)
        rules = {split: _rule(split, "gtFine", expected=count) for split, count in _FINE_COUNTS.items()}
        # `train_coarse` is the coarse annotation of the very pictures of `train`.
        for name, split in (("train_coarse", "train"), ("train_extra", "train_extra")):
            if (root / "gtCoarse" / split).is_dir():
                rules[name] = _rule(split, "gtCoarse", expected=_FINE_COUNTS.get(split))
        return Tree("cityscapes", root, CITYSCAPES_19, rules, label_ids())


def label_ids() -> IndexMasks:
    """The code of `labelIds` masks: 0 to 33, of which 19 are classes."""
    table = [TRAIN_IDS.get(number, 255) if number <= _LAST_ID else NOT_ALLOWED for number in range(256)]
    table[_LICENCE_PLATE] = 255
    return IndexMasks(tuple(table))


def _rule(split: str, annotation: str, *, expected: int | None) -> Rule:
    return Rule(
        images=Pattern(f"leftImg8bit/{split}/*/*_leftImg8bit.png"),
        masks=Pattern(f"{annotation}/{split}/*/*_{annotation}_labelIds.png"),
        expected=expected,
        name=_NAME,
        beside=_BESIDE,
    )


DATASET = _Cityscapes()
