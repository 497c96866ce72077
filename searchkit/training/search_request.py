"""What the words of `searchkit search` ask for, checked, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..costs.latency import LatencyTable
from ..data import DATASETS, Dataset, open_dataset
from ..errors import InputFileError, UsageError
from ..genotype import Provenance
from ..settings import parse_settings
from ..sizes import Size, parse_size
from ..spaces import SPACES
from ..strategies import STRATEGIES, Settings, Strategy
from ..supernet import Supernet
from .search_batches import Excerpt
from .search_budgets import asked_limits
from .search_limits import Limits
from .search_recipe import (
    DEFAULT_PRESET,
    SearchRecipe,
    changed,
    load_search_recipe,
    merged_error,
    parse_search_recipe,
    with_strategy,
)

SCHEMA = 1
_DEFAULT_SIZE = Size(512, 1024)


@dataclass(frozen=True)
class Words:
    """The arguments of the command that decide the search; None where one is left out."""

    space: str
    data: str
    seed: int
    strategy: str | None = None
    preset: str | None = None
    recipe: Path | None = None
    resolution: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchRequest:
    """A search that can be begun.

    Attributes:
        dataset: at `size`; `stored` is the same at `recipe.stored` times that.
        table: SHA-256 of the latency table, where there is one; of two, joined by `+`.
    """

    space: str
    recipe: SearchRecipe
    size: Size
    dataset: Dataset
    stored: Dataset
    argument: str
    seed: int
    strategy_settings: Settings
    limits: Limits
    table: str | None

    @classmethod
    def parse(cls, words: Words, check_table: Callable[[LatencyTable], None] = lambda table: None) -> SearchRequest:
        """Check everything that can be checked; reads the data set's names and the latency table, writes nothing.

        Args:
            check_table: refuses a latency table that is of another place than is meant.

        Raises:
            UsageError: a word, a setting or a size is refused, or no network of the space is within the limits.
            InputFileError: recipe, data set or latency table cannot be read.
        """
        kind = SPACES.load(words.space)
        recipe = asked_recipe(words.space, words.preset, words.recipe, words.settings, words.strategy)
        size = parse_size(words.resolution) if words.resolution else Size(*(recipe.resolution or _DEFAULT_SIZE))
        for wanted in (size, *(each.augmentation.crop_at(size) for each in (recipe, recipe.in_pretraining()))):
            kind.genotype_type.size_rule.check(wanted, network=words.space)
        strategy = STRATEGIES.load(recipe.strategy.name)
        settings = parse_settings(strategy.settings_type, recipe.strategy.settings, what="strategy")
        limits, table = asked_limits(recipe, size, check_table)
        dataset, stored = _datasets(words.data, size, recipe)
        found = cls(words.space, recipe, size, dataset, stored, words.data, words.seed, settings, limits, table)
        supernet = found.supernet_on_meta()
        found.strategy(supernet.levels)
        limits.check(supernet)
        return found

    @property
    def classes(self) -> int:
        """Of the data set."""
        return len(self.dataset.labels)

    def supernet(self) -> Supernet:
        """The whole supernet, drawn from torch's generator."""
        return SPACES.load(self.space).supernet(self.recipe.space, self.classes)

    def supernet_on_meta(self) -> Supernet:
        """The same without numbers: costs nothing, computes nothing."""
        with torch.device("meta"):
            return self.supernet()

    def strategy(self, levels: tuple[str, ...]) -> Strategy:
        """The strategy, for a supernet with these levels."""
        return STRATEGIES.load(self.recipe.strategy.name)(self.strategy_settings, levels)

    def config(self) -> dict[str, Any]:
        """Everything that decides the search."""
        return {
            "schema": SCHEMA,
            "space": self.space,
            "data": {
                "name": self.argument,
                "train": self.stored.fingerprint("train"),
                "val": self.dataset.fingerprint("val"),
            },
            "resolution": str(self.size),
            "seed": self.seed,
            "latency table": self.table,
            "recipe": self.recipe.to_tree(),
            "strategy": json.loads(self.strategy_settings.model_dump_json()),
        }

    def provenance(self) -> Provenance:
        """What the network says about where it came from; no path of this machine."""
        name = self.recipe.strategy.name
        return Provenance(
            name=f"{self.space}-{name}-{self.seed}",
            description=f"searched at {self.size}",
            source=f"searchkit {__version__}",
            strategy=name,
            seed=self.seed,
            data=self.dataset.kind,
        )


def asked_recipe(
    space: str, preset: str | None, path: Path | None, settings: tuple[str, ...] = (), strategy: str | None = None
) -> SearchRecipe:
    """A shipped recipe or one from a file, with what the command line sets on top; see `search_recipe.changed`.

    Raises:
        UsageError: both are given, there is no such preset, or a setting is refused.
        InputFileError: the file is not a recipe.
    """
    if preset and path:
        raise UsageError("both a preset and a recipe are given", where="--recipe", fix="leave one out")
    tree = load_search_recipe(space, preset=preset, path=path)
    parse_search_recipe(tree, where=str(path) if path else f"preset {preset or DEFAULT_PRESET}")
    if strategy:
        tree = with_strategy(tree, strategy)
    try:
        return parse_search_recipe(changed(tree, settings), where="recipe")
    except InputFileError as error:
        raise merged_error(error) from None


def _datasets(argument: str, size: Size, recipe: SearchRecipe) -> tuple[Dataset, Dataset]:
    draws = DATASETS.load(argument.partition(":")[0]).draws
    large = Size(size.height * recipe.stored, size.width * recipe.stored)
    limits = {"train": recipe.training_pictures, "val": recipe.validation_pictures}
    wanted = {split: count for split, count in limits.items() if count is not None}
    dataset = Excerpt(open_dataset(argument, size=size if draws else None), wanted)
    stored = Excerpt(open_dataset(argument, size=large), wanted) if draws and recipe.stored > 1 else dataset
    return dataset, stored
