"""Studies of searches that anyone can run again, one file each: which arms, what of each is kept, how it is told.

Adding a study is adding one file that defines `STUDY`, a `Study`; its file name is its name on the command line. An arm
is run once with each seed, and all that is measured of it is a row; tables are derived from rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from searchkit.registry import Registry
from searchkit.sizes import Size

if TYPE_CHECKING:
    from ._workbench import Workbench

#: The dimensions of Table 7 of the SSR paper, by the names it gives them.
DIMENSIONS = {
    "Di": ("dilation",),
    "Di+S": ("dilation", "spatial"),
    "Di+C": ("dilation", "channel"),
    "Di+C+S": ("dilation", "channel", "spatial"),
    "all": ("dilation", "channel", "spatial", "depth"),
}


_RESOLUTION = Size(64, 128)
#: What the recipes are scaled down from: section 5.2 of the SSR paper, and its code for the architecture.
_PUBLISHED = {"architecture_lr": 2e-3, "steps": 99_000, "resolution": "512x1024", "channels": [64, 128], "batch": 6}


@dataclass(frozen=True)
class StudyRecipe:
    """How searches and trainings of a study are done: small enough for two CPU cores, the same for all its arms.

    Both learn from the same pictures, by Adam with poly 0.9 and gradients clipped at 5; the search's two updates of a
    step share a batch (as in SSR's release), so that the supernet sees no fewer pictures than a network that is trained
    from scratch.

    Attributes:
        training_pictures, validation_pictures: evenly spread over the splits of the data set.
        steps: of a search, and of a training from scratch. A tenth is the search's warm-up; behind it there is a
            decision point every twentieth.
        lr: of the weights, in both.
        architecture_lr: of the architecture, the same for all strategies. The paper's 2e-3 is for 99,000 steps; in a
            few hundred it would move nothing. Scaled so that `ssr` decides the dilations within the steps: tried with
            seed 0, 0.05 left 8 of 8 choices undecided, 0.1 left 7, and 0.3 left 1.
        loss_scale: of the loss of the architecture step; see `Architecture.loss_scale`. With the release's 100 `ssr`
            leaves 3, 5 and 7 choices undecided within these steps (seeds 0 to 2), at 0.3.
        stem, channels, width_step, width_steps, depths: as in `SSRSearchSpace`.
        fixed_depths: of the two stages where depth is not searched.
        networks: how many are drawn by lot, in studies that do.
        supernet_steps: of a supernet that is trained without searching, in studies that do.
    """

    data: str = "streets"
    resolution: Size = _RESOLUTION
    training_pictures: int = 400
    validation_pictures: int = 64
    steps: int = 200
    batch: int = 4
    lr: float = 5e-3
    architecture_lr: float = 0.3
    loss_scale: float = 1.0
    stem: int = 8
    channels: tuple[int, int] = (16, 32)
    width_step: int = 4
    width_steps: int = 2
    depths: tuple[tuple[int, ...], tuple[int, ...]] = ((2, 3, 4), (4, 5, 6))
    fixed_depths: tuple[int, int] = (3, 5)
    networks: int = 0
    supernet_steps: int = 0

    @property
    def warmup_steps(self) -> int:
        """Steps of a search without architecture steps."""
        return self.steps // 10

    @property
    def decide_every(self) -> int:
        """Steps between two decision points."""
        return max(1, self.steps // 20)

    def quick(self) -> StudyRecipe:
        """A few steps of it on a tiny space: shows that everything runs, and nothing else."""
        return replace(
            self,
            resolution=Size(32, 64),
            training_pictures=8,
            validation_pictures=3,
            steps=8,
            batch=2,
            stem=4,
            channels=(8, 12),
            width_step=2,
            width_steps=2,
            depths=((1, 2), (1, 2)),
            fixed_depths=(1, 2),
            networks=min(self.networks, 3),
            supernet_steps=min(self.supernet_steps, 4),
        )

    def space(self, dimensions: Sequence[str]) -> dict[str, Any]:
        """Settings of an SSR search space in which these dimensions are searched."""
        depths = self.depths if "depth" in dimensions else [[depth] for depth in self.fixed_depths]
        return {
            # A depth of one candidate is decided; it says how many layers there are.
            "dimensions": list(dict.fromkeys([*dimensions, "depth"])),
            "depths": [list(stage) for stage in depths],
            "stem": self.stem,
            "channels": list(self.channels),
            "width_step": self.width_step,
            "width_steps": self.width_steps,
            "head": "classifier",
        }

    def to_tree(self) -> dict[str, Any]:
        """All of it as plain JSON values, with what it is scaled down from."""
        tree = asdict(self) | {"resolution": str(self.resolution)}
        more = {"warmup_steps": self.warmup_steps, "decide_every": self.decide_every, "scaled_from": _PUBLISHED}
        return tree | more


@dataclass(frozen=True)
class Row:
    """What became of one arm with one seed.

    Attributes:
        values: what was measured, as plain JSON values; shares, not percent. Empty where it failed.
        failed: why a search or a training could not go on.
        cpu_s: seconds of processor time that the row took, validations included.
    """

    arm: str
    seed: int
    values: dict[str, Any]
    cpu_s: float
    failed: str | None = None


class Study(ABC):
    """One study."""

    recipe: ClassVar[StudyRecipe]

    @abstractmethod
    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        """Names of what is compared, in the order in which they take turns within a seed."""

    @abstractmethod
    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        """The values of a row: the same for the same arm, seed and recipe, but for times.

        Raises:
            SearchFailedError, TrainingFailedError: it could not go on; the row will say so.
        """

    @abstractmethod
    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        """What came out as Markdown, derived from the rows alone; arms without rows are left out."""


STUDIES: Registry[Study] = Registry("bench.studies", "STUDY", "study")
