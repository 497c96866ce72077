"""How a search ends: the choices that are left are decided, and the network is counted, or measured, as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import SearchFailedError
from ..files import read_bytes
from ..genotype import Genotype, Provenance
from .search import Searcher
from .search_decisions import standing
from .search_folder import RESULT, SearchFolder
from .search_limits import Outcome, Timer

_MAX_BYTES = 1 << 20
# No table that was measured here falls short of a network by so much: see `docs/search.md`.
_BUSY = 2.0


def conclude(searcher: Searcher, provenance: Provenance, timer: Timer | None = None) -> tuple[Genotype, dict[str, Any]]:
    """Decide what is undecided by argmax within the budgets; write the network, its weights and the result.

    Asked again of a search that has ended, it writes the same bytes: what was measured then is not measured again.

    Args:
        timer: measures the milliseconds of a whole network where a latency is limited; they are predicted without one.

    Returns:
        The network, and what `result.json` holds with the paths of what was written (None in a process that does not
        lead).

    Raises:
        SearchFailedError: the network as a whole breaks a limit; it was written as `nearest.json`.
        StorageError: the disk refused.
    """
    supernet, folder = searcher.supernet, searcher.folder
    undecided, probabilities = supernet.undecided(), searcher.probabilities()
    relaxed = searcher.relaxed_weights()
    before = searcher.validation_row(relaxed)["miou"]
    searcher.choose(probabilities)
    decided = searcher.decided_weights()
    # A supernet that shrank to one network is that network, unless its last weights are no ones.
    same = not undecided and all(torch.equal(relaxed[name], decided[name]) for name in decided)
    after = before if same else searcher.validation_row(decided)["miou"]
    genotype = supernet.derive(supernet.alive(), provenance)
    outcomes = _outcomes(searcher, genotype, timer)
    broken = [outcome for outcome in outcomes if not outcome.met]
    result = {
        "schema": 1,
        "network": genotype.name,
        "digest": genotype.digest,
        "steps": searcher.position.step,
        "decided_by": "argmax" if undecided else "shrinking",
        "undecided_before": undecided,
        "miou_before": before,
        "miou_after": after,
        "gap": None if before is None or after is None else before - after,
        "cost": _cost(searcher, genotype),
        "budgets": {outcome.budget.name: outcome.to_tree() for outcome in outcomes},
        "broken": [outcome.text for outcome in broken],
    }
    paths: dict[str, Any] = {"genotype": None, "companions": {}}
    if searcher.job.world.leads:
        folder.draw()
        folder.write_decisions(standing(searcher.position.decided, supernet.tables))
        searched = supernet.searched(provenance)
        if searched is not None:
            folder.write_searched(*searched, searcher.job.identity)
        found = supernet.companions(provenance)
        companions = {name: str(folder.write_companion(name, other)) for name, other in found.items()}
        paths = {"genotype": str(folder.write_network(genotype, met=not broken)), "companions": companions}
        folder.write_result(result)
    if broken:
        raise _breaks(broken, folder)
    return genotype, result | paths


def _cost(searcher: Searcher, genotype: Genotype) -> dict[str, Any]:
    cost = genotype.cost(searcher.job.resolution)
    return {"resolution": str(searcher.job.resolution), "params": cost.params, "conv_macs": cost.conv_macs}


def _outcomes(searcher: Searcher, genotype: Genotype, timer: Timer | None) -> list[Outcome]:
    """What the network has of what is limited; the leading process measures, and all judge by that."""
    limits, world = searcher.job.limits, searcher.job.world
    if timer is None:
        return limits.judged(genotype)

    def shared(whole: Genotype) -> float:
        mine = 0.0
        if world.leads:
            earlier = _measured_earlier(searcher.folder, whole)
            mine = timer(whole) if earlier is None else earlier
        return world.mean(mine) * world.size

    return limits.judged(genotype, shared)


def _measured_earlier(folder: SearchFolder, genotype: Genotype) -> float | None:
    """Milliseconds of this network in the result that this search has written before, if it has."""
    path = folder.path / RESULT
    if not path.exists():
        return None
    try:
        tree = json.loads(read_bytes(path, limit_bytes=_MAX_BYTES, what="result of the search"))
        latency = tree["budgets"]["latency"]
        same = tree["digest"] == genotype.digest and latency["how"] == "measured"
        return float(latency["value"]) if same else None
    except (KeyError, TypeError, ValueError):
        return None


def _breaks(broken: Sequence[Outcome], folder: SearchFolder) -> SearchFailedError:
    fix = "the nearest network is kept as nearest.json; raise the limit or search again with another seed"
    for outcome in broken:
        if outcome.predicted is not None and outcome.predicted < outcome.value:
            fix += f"; the table predicts {outcome.budget.text(outcome.predicted)}: "
            if outcome.value > _BUSY * outcome.predicted:
                fix += "other processes were busy, it seems; `bench fps` times nearest.json again"
            else:
                least = outcome.budget.limit * outcome.predicted / outcome.value
                fix += f"a limit of {outcome.budget.text(least)} has room for the difference"
    return SearchFailedError(
        "the network that was found breaks a limit",
        got="; ".join(outcome.text for outcome in broken),
        where=str(folder.path),
        fix=fix,
    )
