"""BDD100K: the 10,000 pictures with semantic masks, 720x1280, the 19 Cityscapes classes."""

from __future__ import annotations

from pathlib import Path

from ..label_sets import CITYSCAPES_19
from ..sizes import Size
from . import Dataset, DatasetKind
from ._masks import index_masks
from ._tree import Pattern, Rule, Tree, tree_root

# The test pictures have no published masks.
_COUNTS = {"train": 7000, "val": 1000}


class _Bdd100k(DatasetKind):
    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        root = tree_root("bdd100k", path, size)
        rules = {
            split: Rule(
                Pattern(f"images/10k/{split}/*.jpg"), Pattern(f"labels/sem_seg/masks/{split}/*.png"), expected=count
            )
            for split, count in _COUNTS.items()
        }
        return Tree("bdd100k", root, CITYSCAPES_19, rules, index_masks(len(CITYSCAPES_19), ignored=(255,)))


DATASET = _Bdd100k()
