"""The network that a search stands at, by the probabilities that it last wrote down; the search itself may go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..choices import Alive
from ..data import DATASETS, open_dataset
from ..errors import DamagedArtifactError, InputFileError, UsageError
from ..files import read_bytes
from ..genotype import Genotype, Provenance
from ..sizes import Size, parse_size
from ..spaces import SPACES
from ..strict_json import MAX_BYTES
from ..supernet import Supernet, weights_of
from . import history
from .run_folder import CONFIG
from .search_budgets import asked_limits
from .search_decisions import Probabilities, mac_prices
from .search_folder import CHOICES
from .search_limits import Limits
from .search_recipe import SearchRecipe, parse_search_recipe


@dataclass(frozen=True)
class _Search:
    """What `config.json` says of a search."""

    space: str
    recipe: SearchRecipe
    size: Size
    data: str
    seed: int

    def supernet(self) -> Supernet:
        """The whole supernet, without numbers."""
        draws = DATASETS.load(self.data.partition(":")[0]).draws
        classes = len(open_dataset(self.data, size=self.size if draws else None).labels)
        with torch.device("meta"):
            return SPACES.load(self.space).supernet(self.recipe.space, classes)

    def provenance(self, step: int) -> Provenance:
        """What the network says about where it came from."""
        name = self.recipe.strategy.name
        return Provenance(
            name=f"{self.space}-{name}-{self.seed}",
            description=f"at {self.size}, step {step}, no validation",
            source=f"searchkit {__version__}",
            strategy=name,
            seed=self.seed,
            data=self.data.partition(":")[0],
        )


def decode_run(folder: Path) -> tuple[Genotype, dict[str, Genotype]]:
    """The network that a search would end in if it ended at its last decision point, and others that it found besides.

    It is decided as a search's end decides, by what is most probable within the limits; but no picture is looked at, so
    what the end decides by a validation (FasterSeg's pair of branches) is decided by its probability here.

    Raises:
        UsageError: the folder is no search's, or the search has written nothing down yet.
        InputFileError: its data set or latency table is gone.
        DamagedArtifactError: a file of the search does not hold what it should.
    """
    search = _read(folder)
    rows = history.read(folder / CHOICES)
    if not rows:
        raise UsageError("the search has not begun", where=str(folder), fix="wait for its first step")
    supernet = search.supernet()
    try:
        step, found = int(rows[-1]["step"]), rows[-1]["probabilities"]
        alive, probabilities = _tables(found, supernet)
        supernet.shrink(alive)
    except (AttributeError, KeyError, TypeError, ValueError):
        where = str(folder / CHOICES)
        raise DamagedArtifactError("not the probabilities of this search", where=where) from None
    limits, _ = asked_limits(search.recipe, search.size, lambda table: None)
    preferences = supernet.weighed(probabilities, lambda weights: None, lambda a: _cost(supernet, limits, a, search))
    supernet.shrink(limits.chosen(supernet, preferences))
    provenance = search.provenance(step)
    return supernet.derive(supernet.alive(), provenance), supernet.companions(provenance)


def _read(folder: Path) -> _Search:
    path = folder / CONFIG
    other = UsageError("not the folder of a search", where=str(folder), fix="name one that `searchkit search` left")
    if not path.exists():
        raise other
    data = read_bytes(path, limit_bytes=MAX_BYTES, what="config of the search")
    try:
        tree = json.loads(data)
        # Trainings leave a config too.
        if isinstance(tree, dict) and "space" not in tree:
            raise other
        recipe = parse_search_recipe(tree["recipe"], where=f"{path}: recipe")
        return _Search(tree["space"], recipe, parse_size(tree["resolution"]), tree["data"]["name"], tree["seed"])
    except (InputFileError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise DamagedArtifactError("not the config of a search", where=str(path)) from None


def _tables(found: Mapping[str, Any], supernet: Supernet) -> tuple[Alive, Probabilities]:
    """What lives, and how probable it is, as `search_decisions.trajectory` has written it down."""
    alive = {name: np.zeros_like(mask) for name, mask in supernet.alive().items()}
    probabilities = {name: np.zeros(mask.shape) for name, mask in alive.items()}
    for name, table in supernet.tables.items():
        for row, candidates in found[name].items():
            for candidate, probability in candidates.items():
                place = table.rows.index(row), table.candidates.index(candidate)
                alive[name][place], probabilities[name][place] = True, float(probability)
    return alive, probabilities


def _cost(supernet: Supernet, limits: Limits, alive: Alive, search: _Search) -> float:
    """Of one network: milliseconds by the search's latency table, where there is one, else MACs."""
    weights = weights_of(alive)
    milliseconds = limits.milliseconds(supernet, weights)
    if milliseconds is not None:
        return milliseconds
    return float(mac_prices().expected(supernet.parts(weights, search.size)))
