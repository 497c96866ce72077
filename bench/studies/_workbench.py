"""What studies are made of: a search, a training from scratch, networks drawn by lot, weights that are inherited."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from searchkit.choices import one_hot
from searchkit.costs.budget import macs_budget
from searchkit.data import DATASETS, Sample, open_dataset
from searchkit.genotype import Genotype, Provenance
from searchkit.networks import from_genotype
from searchkit.normalization import normalise
from searchkit.settings import parse_settings
from searchkit.spaces import SPACES
from searchkit.strategies import STRATEGIES, Progress, Strategy, total_entropy
from searchkit.supernet import Supernet
from searchkit.training import history
from searchkit.training.evaluate import spread
from searchkit.training.loader import Batches
from searchkit.training.metrics import Confusion
from searchkit.training.recipe import Augmentation, parse_recipe
from searchkit.training.run_folder import RunFolder
from searchkit.training.search import Searcher
from searchkit.training.search_end import conclude
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_job import SearchJob, SearchReport
from searchkit.training.search_limits import Limits
from searchkit.training.search_recipe import parse_search_recipe
from searchkit.training.train import Job, Trainer, predicted

from . import DIMENSIONS, StudyRecipe

_WEIGHTS = {"name": "adam", "weight_decay": 1e-4}
_POLY = {"type": "poly", "power": 0.9}
_CLIP = 5.0
# Batches by which the statistics of BatchNorm are taken anew, and pictures that are validated at once.
_RECALIBRATION, _TOGETHER = 10, 16
_PROVENANCE = Provenance(name="study")


@dataclass(frozen=True)
class Search:
    """A search that has ended: its network, and what is kept of it in a row."""

    genotype: Genotype
    values: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """mIoU after a training from scratch, as shares, on the validation pictures and on those of the test split if
    asked for, and the processor time that the training took."""

    miou: float
    test_miou: float | None
    cpu_s: float


@dataclass
class Workbench:
    """The pictures of a recipe, and what can be done with them."""

    recipe: StudyRecipe
    _kept: dict[str, list[Sample]] = field(default_factory=dict)

    @cached_property
    def dataset(self) -> Any:
        """The recipe's data set; one that draws does so at the recipe's resolution."""
        name = self.recipe.data
        return open_dataset(name, size=self.recipe.resolution if DATASETS.load(name.partition(":")[0]).draws else None)

    @property
    def classes(self) -> int:
        """How many the data set has."""
        return len(self.dataset.labels)

    def pictures(self, split: str) -> list[Sample]:
        """The samples of a split that the recipe uses, in memory."""
        if split not in self._kept:
            limit = self.recipe.training_pictures if split == "train" else self.recipe.validation_pictures
            chosen = spread(self.dataset.count(split), limit)
            self._kept[split] = [self.dataset.read(split, index) for index in chosen]
        return self._kept[split]

    def supernet(self, dimensions: str) -> Supernet:
        """A new one, drawn from torch's generator; `dimensions` is a key of `DIMENSIONS`."""
        return SPACES.load("ssr").supernet(self.recipe.space(DIMENSIONS[dimensions]), self.classes)

    def baseline(self) -> Genotype:
        """Nothing searched: the fixed depths, full width, dilation 1, full resolution."""
        supernet = self.supernet("Di")
        first = one_hot({name: -mask.cumsum(axis=1) for name, mask in supernet.alive().items()}, supernet.alive())
        return supernet.derive(supernet.closed(first), _PROVENANCE)

    def drawn(self, dimensions: str, number: int) -> Genotype:
        """Network `number` of an endless series drawn by lot."""
        return self._lot(self.supernet(dimensions), number)[0]

    def _lot(self, supernet: Supernet, number: int) -> tuple[Genotype, dict[str, Any]]:
        torch.manual_seed(number)
        lottery = _strategy("random", {}, supernet)
        wanted = lottery.decide(supernet.tables, Progress(0, 1, 0, 1), lambda _: True)
        alive = supernet.closed(wanted)
        return supernet.derive(alive, _PROVENANCE), alive

    def search(
        self,
        dimensions: str,
        strategy: str,
        seed: int,
        *,
        settings: Mapping[str, Any] | None = None,
        max_macs: int | None = None,
    ) -> Search:
        """Search to the end of the recipe's steps; a supernet that is discrete before is trained on."""
        job = self._search_job(dimensions, strategy, seed, settings or {}, max_macs, warmup=self.recipe.warmup_steps)
        with TemporaryDirectory(prefix="searchkit-study-") as folder:
            searcher = Searcher(job, SearchFolder(Path(folder)), listener=lambda report: last.keep(report, searcher))
            last, start = LastStep(), total(searcher)
            cpu_s, wall_s = _run_timed(searcher)
            removed = last.removed(searcher)
            genotype, result = conclude(searcher, _PROVENANCE)
            rows = history.read(Path(folder) / "history.jsonl")
        entropies = [[0, start], *([row["step"], row["entropy"]] for row in rows if "entropy" in row)]
        discrete = next((row["step"] for row in rows if row.get("undecided") == 0), None)
        # Behind a removal there is a row without a loss.
        before = [row["entropy"] for row in rows if "loss" in row]
        return Search(
            genotype,
            {
                "entropies": entropies,
                "entropy_start": start,
                "entropy_before_last_decision": before[-1],
                "entropy_end": entropies[-1][1],
                "discrete_step": discrete,
                "undecided_at_end": result["undecided_before"],
                "search_cpu_s": cpu_s,
                "search_wall_s": wall_s,
                "miou_supernet": self.miou(last, "val") if removed else result["miou_before"],
                "miou_inherited": result["miou_after"],
                "digest": genotype.digest,
                **self.costs(genotype),
            },
        )

    def costs(self, genotype: Genotype) -> dict[str, int]:
        """Parameters, and multiply-accumulates of the convolutions at the recipe's resolution."""
        cost = genotype.cost(self.recipe.resolution)
        return {"params": cost.params, "conv_macs": cost.conv_macs}

    def trained_supernet(self, dimensions: str, strategy: str, seed: int) -> Supernet:
        """A supernet whose weights alone are trained, under the relaxation that a strategy begins with."""
        steps = self.recipe.supernet_steps
        bench = type(self)(replace(self.recipe, steps=steps), self._kept)
        job = bench._search_job(dimensions, strategy, seed, {}, None, warmup=steps)
        with TemporaryDirectory(prefix="searchkit-study-") as folder:
            searcher = Searcher(job, SearchFolder(Path(folder)))
            searcher.run()
        return searcher.supernet

    def inherited(self, supernet: Supernet, number: int, seed: int) -> dict[str, float | None]:
        """mIoU of network `number` of the series with a supernet's weights, as they are and with the statistics of
        BatchNorm taken anew."""
        supernet = copy.deepcopy(supernet)
        _, alive = self._lot(supernet, number)
        supernet.shrink(alive)
        found = supernet.searched(_PROVENANCE)
        assert found is not None, "the SSR space gives its searched network"
        network = from_genotype(found[0]).build()
        network.load_state_dict(found[1])
        as_is = self.miou(network, "val")
        self._recalibrate(network, seed)
        return {"as_is": as_is, "recalibrated": self.miou(network, "val")}

    def train(self, genotype: Genotype, seed: int, *, test: bool = False) -> Training:
        """Train a network from scratch for the recipe's steps.

        Args:
            test: also measure it on the test split, of which nothing was chosen.
        """
        job = Job(
            network=from_genotype(genotype),
            recipe=parse_recipe(self._training_tree(), where="study"),
            resolution=self.recipe.resolution,
            seed=seed,
            train=self.pictures("train"),
            validation=self.pictures("val"),
            identity="study",
            device=torch.device("cpu"),
        )
        with TemporaryDirectory(prefix="searchkit-study-") as folder:
            trainer = Trainer(job, RunFolder(Path(folder)))
            began = time.process_time()
            result = trainer.run()
            cpu_s = time.process_time() - began
        assert result.miou is not None, "the pictures have labels"
        return Training(result.miou, self.miou(trainer.inference, "test") if test else None, cpu_s)

    @torch.no_grad()
    def miou(self, network: nn.Module, split: str) -> float | None:
        """Of a network's label maps of a split's pictures, as a share."""
        network.eval()
        confusion, samples = Confusion(self.classes), self.pictures(split)
        for start in range(0, len(samples), _TOGETHER):
            some = samples[start : start + _TOGETHER]
            logits = network(torch.cat([torch.from_numpy(normalise(sample.image)) for sample in some]))
            for sample, labels in zip(some, predicted(logits, some[0].labels.shape), strict=True):
                confusion.add(sample.labels, labels.numpy())
        return confusion.mean_iou()

    @torch.no_grad()
    def _recalibrate(self, network: nn.Module, seed: int) -> None:
        network.eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
                module.train()
        recipe = self.recipe
        batches = Batches(self.pictures("train"), seed, Augmentation(), recipe.resolution, recipe.batch)
        for images, _ in batches.iterate(0, _RECALIBRATION, 0):
            network(images)

    def _search_job(
        self,
        dimensions: str,
        strategy: str,
        seed: int,
        settings: Mapping[str, Any],
        max_macs: int | None,
        *,
        warmup: int,
    ) -> SearchJob:
        recipe = self.recipe
        tree = {
            "batch": recipe.batch,
            "steps": recipe.steps,
            "warmup_steps": warmup,
            "decide_every": recipe.decide_every,
            "split": "same",
            "stop_when_discrete": False,
            "weights": {"optimiser": {**_WEIGHTS, "lr": recipe.lr}, "schedule": _POLY, "clip_norm": _CLIP},
            "architecture": {"lr": recipe.architecture_lr, "loss_scale": recipe.loss_scale},
        }
        budgets = () if max_macs is None else (macs_budget(str(max_macs), recipe.resolution),)
        return SearchJob(
            build=lambda: self.supernet(dimensions),
            lead=lambda levels: _led(strategy, settings, levels),
            recipe=parse_search_recipe(tree, where="study"),
            resolution=recipe.resolution,
            seed=seed,
            train=self.pictures("train"),
            validation=self.pictures("val"),
            identity="study",
            device=torch.device("cpu"),
            limits=Limits(budgets),
        )

    def _training_tree(self) -> dict[str, Any]:
        stage = {
            "loss_at": "eighth",
            "batch": self.recipe.batch,
            "steps": self.recipe.steps,
            "loss": {"type": "cross_entropy"},
            "optimiser": {**_WEIGHTS, "lr": self.recipe.lr},
            "schedule": _POLY,
            "clip_norm": _CLIP,
        }
        return {"validate_every": self.recipe.steps, "stages": [stage]}


class LastStep(nn.Module):
    """The relaxed supernet as it was behind the last step, when the last decision was still to be made."""

    def keep(self, report: SearchReport, searcher: Searcher) -> None:
        """Take a copy, if it is the last step."""
        if report.step == report.steps:
            self.supernet, self.weights = copy.deepcopy(searcher.supernet), searcher.relaxed_weights()

    def removed(self, searcher: Searcher) -> bool:
        """Whether the last decision removed anything."""
        after = searcher.supernet.alive()
        return any((mask != after[name]).any() for name, mask in self.supernet.alive().items())

    def forward(self, images: Tensor) -> Tensor:
        """Its logits."""
        logits: Tensor = self.supernet(images, self.weights)
        return logits


def total(searcher: Searcher) -> float:
    """The total entropy, in nats."""
    return sum(total_entropy(probabilities) for probabilities in searcher.probabilities().values())


def _led(strategy: str, settings: Mapping[str, Any], levels: Sequence[str]) -> Strategy:
    kind = STRATEGIES.load(strategy)
    return kind(parse_settings(kind.settings_type, settings, what=f"strategy {strategy}"), tuple(levels))


def _strategy(name: str, settings: Mapping[str, Any], supernet: Supernet) -> Strategy:
    return _led(name, settings, supernet.levels)


def _run_timed(searcher: Searcher) -> tuple[float, float]:
    """Seconds of processor time and of the clock that the search took."""
    cpu, wall = time.process_time(), time.perf_counter()
    searcher.run()
    return time.process_time() - cpu, time.perf_counter() - wall
