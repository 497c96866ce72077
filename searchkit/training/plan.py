"""What a search will need, said before it runs: memory, work, steps, hours and disk, without a GPU and without data.

Memory, work and steps are counted (see `dry_run`). Hours are predicted from a device's published rates and stated
utilisations; nothing is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..choices import Alive
from ..sizes import Size
from ..supernet import Supernet
from .dry_run import StepNeeds, UpdateNeeds, dry_run, dry_run_of_warmup, dry_runs
from .meta_operators import MetaOperators
from .search_recipe import SearchRecipe

#: Shares of a device's least time that a step attains: assumed for eager PyTorch, not measured.
UTILISATION = (0.15, 0.6)

#: How many steps are gone through where the strategy draws what a step computes.
DRAWS = 5

#: Candidates of each choice that are looked at, besides all of them.
STAGES_OF_SHRINKING = (5, 2, 1)

#: Of the paper's own search, with the preset `paper` of `ssr` and the full space: not of this code.
PUBLISHED = (
    {"figure": "18 h on one V100 for the whole search", "source": "Ye et al., IJCV 2022, Table 8"},
    {"figure": "15.6 GB at batch 6, 512x1024", "source": "a note in the authors' release"},
)

_SECONDS = 3600.0


@dataclass(frozen=True)
class Work:
    """Of a step; where steps draw what they compute, the mean."""

    macs: int
    traffic_bytes: int


@dataclass(frozen=True)
class Rates:
    """A device, by its published figures.

    Attributes:
        tera_ops: 1e12 operations a second in `precision`, two to a multiply-accumulate.
        bandwidth_gb_s, memory_gb: of its memory, in 1e9 bytes.
    """

    name: str
    title: str
    precision: str
    tera_ops: float
    bandwidth_gb_s: float
    memory_gb: float

    def step_s(self, needs: Work | UpdateNeeds) -> float:
        """The least time of a step: that of its work or of its traffic, whichever is longer."""
        return max(2 * needs.macs / (self.tera_ops * 1e12), needs.traffic_bytes / (self.bandwidth_gb_s * 1e9))

    def hours(self, needs: Work | UpdateNeeds, steps: int) -> tuple[float, float]:
        """Predicted hours of so many steps that all need this, at the higher and the lower of `UTILISATION`."""
        least = steps * self.step_s(needs) / _SECONDS
        return least / UTILISATION[1], least / UTILISATION[0]


@dataclass(frozen=True)
class Row:
    """A step of a search that has shrunk so far.

    Attributes:
        candidates: of each choice that are left, at most; None where all are.
        alive: candidates that are left, in all choices.
        draws: of seeded steps, several where the strategy draws what a step computes.
    """

    candidates: int | None
    alive: int
    draws: tuple[StepNeeds, ...]

    @property
    def needs(self) -> StepNeeds:
        """Of the draw that needs most memory."""
        return max(self.draws, key=lambda needs: needs.worst.peak_bytes)

    @property
    def work(self) -> Work:
        """The mean of all draws."""
        count = len(self.draws)
        return Work(
            round(sum(needs.macs for needs in self.draws) / count),
            round(sum(needs.traffic_bytes for needs in self.draws) / count),
        )

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values; memory is that of the draw that needs most."""
        candidates = {"candidates": self.candidates or "all", "alive": self.alive}
        return candidates | {"step_macs": self.work.macs} | asdict(self.needs) | {"sampled": self._sampled()}

    def _sampled(self) -> dict[str, Any] | None:
        if len(self.draws) == 1:
            return None
        peaks, macs = [needs.worst.peak_bytes for needs in self.draws], [needs.macs for needs in self.draws]
        return {
            "draws": len(self.draws),
            "peak_bytes": {"mean": round(sum(peaks) / len(peaks)), "greatest": max(peaks)},
            "step_macs": {"mean": self.work.macs, "greatest": max(macs)},
        }


@dataclass(frozen=True)
class Pretraining:
    """The steps in which only the weights learn, if there are any.

    Attributes:
        crop, batch: those of the search, unless the recipe says otherwise.
        needs: of one, with all candidates; the first draw, where the strategy draws.
    """

    crop: Size
    batch: int
    steps: int
    needs: UpdateNeeds

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"crop": str(self.crop), "batch": self.batch, "steps": self.steps, "counted": asdict(self.needs)}


@dataclass(frozen=True)
class Disk:
    """Bytes on disk.

    Attributes:
        checkpoint: of the whole supernet; while one replaces another there are two.
        caches: of decoded pictures, training and validation; the system shares them between searches.
    """

    checkpoint: int
    caches: int

    @property
    def total(self) -> int:
        """At most."""
        return 2 * self.checkpoint + self.caches


@dataclass(frozen=True)
class Pictures:
    """How many there are, of each split."""

    train: int
    validation: int


@dataclass(frozen=True)
class Plan:
    """What a search will need.

    Attributes:
        crop: what the pictures are cut to, in the search.
        batch: of the search.
        steps: pretraining included.
        rows: from all candidates to one a choice, in the search.
        published: figures of the paper's own search, where it is the one that is planned.
    """

    space: str
    size: Size
    crop: Size
    batch: int
    pictures: Pictures
    steps: int
    warmup: int
    decisions: int
    rows: tuple[Row, ...]
    disk: Disk
    devices: tuple[Rates, ...]
    published: tuple[dict[str, str], ...] = ()
    pretraining: Pretraining | None = None

    @property
    def needs(self) -> StepNeeds:
        """Of a step with all candidates: the highest of the search."""
        return self.rows[0].needs

    @property
    def peak_bytes(self) -> int:
        """The most that any step of either phase keeps in memory at one time."""
        return max(self.needs.worst.peak_bytes, self.pretraining.needs.peak_bytes if self.pretraining else 0)

    def hours(self, rates: Rates, needs: Work) -> tuple[float, float]:
        """Predicted for all steps, if all but those of the pretraining needed this; see `Rates.hours`."""
        if (early := self.pretraining) is None:
            return rates.hours(needs, self.steps)
        before, behind = rates.hours(early.needs, early.steps), rates.hours(needs, self.steps - early.steps)
        return before[0] + behind[0], before[1] + behind[1]

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values; every figure is counted or predicted, as its key says."""
        return {
            "schema": 1,
            "space": self.space,
            "resolution": str(self.size),
            "crop": str(self.crop),
            "batch": self.batch,
            "pictures": asdict(self.pictures),
            "steps": self.steps,
            "warmup_steps": self.warmup,
            "decision_points": self.decisions,
            "pretraining": self.pretraining.to_tree() if self.pretraining else None,
            "counted": [row.to_tree() for row in self.rows],
            "disk_bytes": asdict(self.disk) | {"total": self.disk.total},
            "utilisation_assumed": list(UTILISATION),
            "predicted": [self._predicted(rates) for rates in self.devices],
            "published": list(self.published),
        }

    def _predicted(self, rates: Rates) -> dict[str, Any]:
        rows = [
            {"candidates": row.candidates or "all", "hours": list(self.hours(rates, row.work))} for row in self.rows
        ]
        fits = self.peak_bytes <= rates.memory_gb * 1e9
        return asdict(rates) | {"fits_memory": fits, "hours_if_all_steps_were_so": rows}


Build = Callable[[], Supernet]


def plan(
    build: Build,
    space: str,
    recipe: SearchRecipe,
    size: Size,
    pictures: Pictures,
    devices: tuple[Rates, ...] = (),
    published: tuple[dict[str, str], ...] = (),
) -> Plan:
    """Count what a search needs, with all candidates and as it shrinks.

    Args:
        build: the supernet; called several times, on the meta device.
        pictures: of the data set; the recipe may take fewer.
    """
    pictures = Pictures(
        min(pictures.train, recipe.training_pictures or pictures.train),
        min(pictures.validation, recipe.validation_pictures or pictures.validation),
    )
    whole, crop = _built(build), recipe.augmentation.crop_at(size)
    most = max(mask.shape[1] for mask in whole.alive().values())
    operators = MetaOperators()
    rows = [_row(whole, None, recipe, crop, operators)]
    for candidates in STAGES_OF_SHRINKING:
        if candidates < most:
            rows.append(_row(_built(build), candidates, recipe, crop, operators))
    return Plan(
        space=space,
        size=size,
        crop=crop,
        batch=recipe.batch,
        pictures=pictures,
        steps=recipe.length(pictures.train),
        warmup=recipe.warmup(pictures.train),
        decisions=len(recipe.decision_steps(pictures.train)),
        rows=tuple(rows),
        disk=Disk(rows[0].needs.state_bytes, cache_bytes(pictures, size, recipe.stored)),
        devices=devices,
        published=published,
        pretraining=_pretraining(build, recipe, size, pictures, operators),
    )


def _pretraining(
    build: Build, recipe: SearchRecipe, size: Size, pictures: Pictures, operators: MetaOperators
) -> Pretraining | None:
    steps = min(recipe.warmup(pictures.train), recipe.length(pictures.train))
    if steps == 0:
        return None
    early = recipe.in_pretraining()
    crop = early.augmentation.crop_at(size)
    needs = dry_run_of_warmup(_built(build), early, crop, operators=operators)
    return Pretraining(crop, early.batch, steps, needs)


def peak_bytes(build: Build, recipe: SearchRecipe, size: Size) -> int:
    """The most that a step of the whole supernet keeps in memory at one time, weights and optimisers included.

    Args:
        size: of the pictures, where the recipe crops none.
    """
    found = dry_run(_built(build), recipe, recipe.augmentation.crop_at(size)).worst.peak_bytes
    if recipe.pretraining is None:
        return found
    early = recipe.in_pretraining()
    return max(found, dry_run_of_warmup(_built(build), early, early.augmentation.crop_at(size)).peak_bytes)


def cache_bytes(pictures: Pictures, size: Size, stored: int) -> int:
    """Of the decoded samples: three bytes a pixel and one for its label, training pictures `stored` times the size."""
    pixels = size.height * size.width
    return 4 * pixels * (pictures.train * stored**2 + pictures.validation)


def thinned(alive: Alive, candidates: int) -> Alive:
    """At most so many candidates of each choice, spread evenly over those that live."""
    found = {}
    for name, mask in alive.items():
        kept = np.zeros_like(mask)
        for row, lives in enumerate(mask):
            live = np.flatnonzero(lives)
            count = min(candidates, len(live))
            # One alone is the middle one.
            places = (
                np.linspace(0, len(live) - 1, count + 2)[1:-1] if count == 1 else np.linspace(0, len(live) - 1, count)
            )
            kept[row, live[places.round().astype(int)]] = True
        found[name] = kept
    return found


def _built(build: Build) -> Supernet:
    with torch.device("meta"):
        return build().train()


def _row(supernet: Supernet, candidates: int | None, recipe: SearchRecipe, size: Size, operators: MetaOperators) -> Row:
    if candidates is not None:
        supernet.shrink(supernet.closed(thinned(supernet.alive(), candidates)))
    alive = sum(int(mask.sum()) for mask in supernet.alive().values())
    return Row(candidates, alive, dry_runs(supernet, recipe, size, draws=DRAWS, operators=operators))
