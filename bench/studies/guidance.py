"""LGCNet's cells: shared, independent, and independent with what one cell learns from the one before it (FC, GCN).

In small what Table VI of the LGCNet paper shows: mIoU, parameters and multiply-accumulates of the derived network,
which is trained from scratch, and how decided the search was at its end. All arms sample by Gumbel-softmax at a falling
temperature. The published table is of searches with a latency loss; here nothing presses on the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.supernet import Supernet

from . import Row, Study, StudyRecipe
from ._tables import number, percent, table
from ._workbench import Workbench as _Workbench

if TYPE_CHECKING:
    from ._workbench import Workbench

_ARMS: dict[str, dict[str, str]] = {
    "shared": {"cells": "shared", "guidance": "none"},
    "independent": {"guidance": "none"},
    "independent + FC": {"guidance": "fc"},
    "independent + GCN": {"guidance": "gcn"},
}


@dataclass(frozen=True)
class GuidanceRecipe(StudyRecipe):
    """The space beside the training; what `StudyRecipe` says of the space of SSR has no meaning here.

    Attributes:
        length, reductions, fusion_channels: as in `LGCNetSearchSpace`, and so is `stem`.
    """

    architecture_lr: float = 0.05
    stem: int = 4
    length: int = 6
    reductions: tuple[int, int] = (1, 3)
    fusion_channels: int = 16

    def quick(self) -> GuidanceRecipe:
        return replace(  # type: ignore[return-value]
            super().quick(),
            stem=2,
            length=4,  # type: ignore[call-arg]
            reductions=(1, 2),
            fusion_channels=4,
        )

    def lgcnet(self, arm: str) -> dict[str, Any]:
        """Settings of an arm's search space."""
        sizes = {"length": self.length, "reductions": list(self.reductions), "stem": self.stem}
        return {**sizes, "fusion_channels": self.fusion_channels, **_ARMS[arm]}

    def to_tree(self) -> dict[str, Any]:
        """What of it counts, and what it is scaled down from."""
        kept = ("data", "training_pictures", "validation_pictures", "steps", "batch", "lr", "architecture_lr")
        tree = {name: getattr(self, name) for name in (*kept, "warmup_steps", "decide_every", "length", "stem")}
        published = {"architecture_lr": 1e-3, "batch": 16, "length": 14, "stem": 8, "fusion_channels": 48}
        return {
            **tree,
            "resolution": str(self.resolution),
            "reductions": list(self.reductions),
            "fusion_channels": self.fusion_channels,
            "scaled_from": published,
        }


class _Cells(_Workbench):
    """A workbench whose supernets are of this space; arms stand for dimensions."""

    def supernet(self, dimensions: str) -> Supernet:
        assert isinstance(self.recipe, GuidanceRecipe)
        return SPACES.load("lgcnet").supernet(self.recipe.lgcnet(dimensions), self.classes)


class GuidanceStudy(Study):
    """Ways in which cells have choices."""

    recipe: ClassVar[StudyRecipe] = GuidanceRecipe(resolution=Size(64, 128))

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return tuple(_ARMS)

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        found = _Cells(bench.recipe, bench._kept).search(arm, "gumbel", seed)
        training = bench.train(found.genotype, seed)
        return {**found.values, "miou_retrained": training.miou, "retrain_cpu_s": training.cpu_s}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        columns = (
            number("entropy at the start, nats", "entropy_start"),
            number("at the end", "entropy_end"),
            number("parameters, k", "params", factor=1e-3),
            number("conv MACs, M", "conv_macs", factor=1e-6),
            number("search, CPU s", "search_cpu_s"),
            percent("mIoU discretised, inherited, %", "miou_inherited"),
            percent("from scratch", "miou_retrained"),
            percent("from scratch, less `independent`", "miou_retrained", less="independent"),
        )
        return table(rows, tuple(_ARMS), columns, first="cells")


STUDY = GuidanceStudy()
