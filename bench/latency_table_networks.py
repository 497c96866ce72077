"""Whole networks beside sums of a table's entries: how far a table can be believed, and what a network really takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deploy.deployable import Deployable
from searchkit.choices import Alive
from searchkit.costs.latency import Additivity, LatencyTable
from searchkit.errors import SearchkitError, UsageError
from searchkit.genotype import Genotype, Provenance
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.supernet import Supernet

from . import machine
from .latency_table_frames import OperatorModel
from .latency_table_turns import NETWORK, Opening, Timer, median
from .statistics import percentile

#: Of so many times as many networks as are wanted, those are taken that lie evenly between the fastest and the slowest.
DRAWN = 8

SAMPLING = (
    "each network draws its choices by shares of candidates of its own (Dirichlet, 0.5); "
    f"of {DRAWN} times as many, those at even steps of rank by sum of entries"
)

# Draws that make no network are drawn again, so often.
_TRIES = 50


def sampled(supernet: Supernet, count: int, seed: int) -> list[Genotype]:
    """Networks drawn from a space such that they differ as networks of a search do: see `SAMPLING`.

    Each prefers some candidates of a table over others, in all its choices. Where every choice was drawn for itself,
    networks of many layers would all take about as long as the mean.

    Raises:
        UsageError: the space gives no network in many draws.
    """
    rng = np.random.default_rng(seed)
    return [_drawn(supernet, rng) for _ in range(count)]


def spread(genotypes: Sequence[Genotype], costs: Sequence[float], count: int) -> list[Genotype]:
    """So many of them, at even steps of rank by cost, the least and the greatest among them."""
    order = sorted(range(len(genotypes)), key=lambda index: costs[index])
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return [genotypes[order[place]] for place in places]


def _drawn(supernet: Supernet, rng: np.random.Generator) -> Genotype:
    for _ in range(_TRIES):
        alive = supernet.closed(_one_of_each(supernet, rng))
        try:
            return supernet.derive(alive, Provenance(name="sampled"))
        except (ValueError, SearchkitError):
            continue
    raise UsageError(f"{_TRIES} draws gave no network", where=type(supernet).__name__)


def _one_of_each(supernet: Supernet, rng: np.random.Generator) -> Alive:
    """In each choice one live candidate, or up to as many as it keeps."""
    found: Alive = {}
    for name, table in supernet.tables.items():
        mask = table.alive
        taste = np.log(rng.dirichlet(np.full(mask.shape[1], 0.5)) + 1e-12)
        # The greatest of shares with Gumbel noise is a draw by those shares, the next ones draws without replacement.
        keys = np.where(mask, taste + rng.gumbel(size=mask.shape), -np.inf)
        ranks = (-keys).argsort(axis=1).argsort(axis=1)
        found[name] = mask & (ranks < rng.integers(1, table.keeps + 1, size=(len(mask), 1)))
    return found


def additivity(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Additivity:
    """How well sums of entries predict whole networks; needs two or more that differ."""
    ratios = [one / other for one, other in zip(sums_ms, measured_ms, strict=True)]
    return Additivity(
        networks=len(ratios),
        pearson=float(np.corrcoef(sums_ms, measured_ms)[0, 1]),
        ratio=percentile(ratios, 50),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        sums_ms=tuple(sums_ms),
        measured_ms=tuple(measured_ms),
        sampling=SAMPLING,
    )


def networks_ms(genotypes: Sequence[Genotype], size: Size, timer: Timer, report: Callable[[str], None]) -> list[float]:
    """Milliseconds of whole networks, each the median of its turns."""
    models = {}
    for number, model in enumerate(_prepared(genotypes, size)):
        models[f"network {number + 1}"] = model
        report(f"prepared network {number + 1} of {len(genotypes)}")
    timed = timer.turns_ms(models, NETWORK, evict=False)
    return [median(timed[name]) for name in models]


def _prepared(genotypes: Sequence[Genotype], size: Size) -> Iterator[OperatorModel]:
    for genotype in genotypes:
        deployable = Deployable(from_genotype(genotype), size, "logits")
        # The exporter that operators are written by takes a third of the time, and the runtime as long for the result.
        model = OperatorModel(deployable.module, (1, 3, size.height, size.width))
        _ = model.onnx
        yield model


@dataclass(frozen=True)
class Whole:
    """Times whole networks as a table's entries were timed: its backend, device, threads and input size."""

    table: LatencyTable

    def __call__(self, genotype: Genotype) -> float:
        """Milliseconds, the median of the turns.

        Raises:
            UsageError: the runtime fails.
            BackendUnavailableError: it cannot run here.
        """
        table = self.table
        device = "cuda" if table.device == machine.describe().get("gpu") else "cpu"
        timer = Timer(Opening(table.runtime, device, table.threads))
        model = Deployable(from_genotype(genotype), Size(*table.network_input), "logits")
        with torch.random.fork_rng(devices=[]):
            return median(timer.turns_ms({genotype.name: model}, NETWORK, evict=False)[genotype.name])
