"""DCNAS in small: mIoU of networks within a supernet against their own, over networks drawn by lot (Fig. 3, Table 6).

The paper repeats its search about 40 times and holds the validation mIoU at the end of each search against that of the
retrained network. Here networks are drawn by lot from one space; each is measured with the weights it has in a supernet
that was trained under sampled paths (Eq. 5 and 6, before the first architecture step), and trained from scratch. Two
supernets: one channel in four goes through the operators, as published, and all of them do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from searchkit.genotype import Genotype, Provenance
from searchkit.spaces import SPACES
from searchkit.supernet import Supernet, weights_of

from . import StudyRecipe
from ._workbench import Workbench
from .correlation import CorrelationStudy

if TYPE_CHECKING:
    from searchkit.choices import Alive

_WHOLE, _QUARTER = "1", "4"


@dataclass(frozen=True)
class DCNASRecipe(StudyRecipe):
    """The space beside the training; what `StudyRecipe` says of the space of SSR has no meaning here.

    Attributes:
        layers, width, head, inputs: L, F, the head's channels and the most inputs of a module, as in
            `DCNASSearchSpace`.
    """

    layers: int = 3
    width: int = 8
    head: int = 16
    inputs: int = 3

    def quick(self) -> DCNASRecipe:
        small = super().quick()
        assert isinstance(small, DCNASRecipe)
        return replace(small, layers=2, width=4, head=4)

    def dcnas(self, partial: str) -> dict[str, Any]:
        """Settings of the search space in which one in `partial` channels goes through the operators."""
        sizes = {"layers": self.layers, "channels": self.width, "stem": self.stem, "head": self.head}
        return {**sizes, "inputs": self.inputs, "partial": int(partial)}

    def to_tree(self) -> dict[str, Any]:
        """What of it counts, and what it is scaled down from."""
        kept = ("data", "training_pictures", "validation_pictures", "steps", "batch", "lr", "networks")
        tree = {name: getattr(self, name) for name in (*kept, "supernet_steps")}
        published = {"layers": 14, "channels": 64, "epochs": [80, 120], "experiments": 40}
        return tree | {
            "resolution": str(self.resolution),
            "space": self.dcnas(_QUARTER),
            "scaled_from": published,
        }


class _Inherited(nn.Module):
    """A network as it stands in a supernet, alone."""

    def __init__(self, supernet: Supernet, alive: Alive) -> None:
        super().__init__()
        self.supernet, self.weights = supernet, weights_of(alive)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.supernet(images, self.weights)
        return logits


class DCNASWorkbench(Workbench):
    """Supernets of a `DCNASRecipe`, named by how many channels there are for one that goes through the operators."""

    def supernet(self, dimensions: str) -> Supernet:
        recipe = self.recipe
        assert isinstance(recipe, DCNASRecipe)
        return SPACES.load("dcnas").supernet(recipe.dcnas(dimensions), self.classes)

    def _lot(self, supernet: Supernet, number: int) -> tuple[Genotype, dict[str, Any]]:
        """One operator and up to as many connections a module as it may keep, each number of them as likely."""
        rng, drawn = np.random.default_rng(number), {}
        for name, table in supernet.tables.items():
            drawn[name] = np.zeros_like(table.alive)
            for row, mask in enumerate(table.alive):
                live = np.flatnonzero(mask)
                count = int(rng.integers(1, min(table.keeps, len(live)) + 1))
                drawn[name][row, rng.choice(live, count, replace=False)] = True
        alive = supernet.closed(drawn)
        return supernet.derive(alive, Provenance(name="study")), alive

    def inherited(self, supernet: Supernet, number: int, seed: int) -> dict[str, float | None]:
        supernet = copy.deepcopy(supernet)
        _, alive = self._lot(supernet, number)
        supernet.shrink(alive)
        network = _Inherited(supernet, alive)
        as_is = self.miou(network, "val")
        with torch.no_grad():
            self._recalibrate(network, seed)
        return {"as_is": as_is, "recalibrated": self.miou(network, "val")}


class DCNASCorrelationStudy(CorrelationStudy):
    """What a supernet with sampled paths says of networks that are trained alone."""

    recipe: ClassVar[StudyRecipe] = DCNASRecipe(networks=20, supernet_steps=400, training_pictures=200)
    supernets: ClassVar[Mapping[str, tuple[str, str]]] = {
        "sampled paths, r = 1/4": (_QUARTER, "sampled_paths"),
        "sampled paths, r = 1": (_WHOLE, "sampled_paths"),
    }
    drawn: ClassVar[str] = _QUARTER

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        return super().run(arm, seed, DCNASWorkbench(bench.recipe, bench._kept))


STUDY = DCNASCorrelationStudy()
