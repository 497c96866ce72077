"""How a search ends: the choices that are left are decided, and the network is counted as a whole."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import SearchFailedError
from ..genotype import Genotype, Provenance
from .search import Searcher
from .search_decisions import standing


def conclude(searcher: Searcher, provenance: Provenance) -> tuple[Genotype, dict[str, Any]]:
    """Decide what is undecided by argmax within the budgets; write the network, its weights and the result.

    Asked again of a search that has ended, it writes the same bytes.

    Returns:
        The network, and what `result.json` holds.

    Raises:
        SearchFailedError: the network, counted as a whole, breaks a limit; it was written as `nearest.json`.
        StorageError: the disk refused.
    """
    supernet, folder, limits = searcher.supernet, searcher.folder, searcher.job.limits
    undecided, probabilities = supernet.undecided(), searcher.probabilities()
    relaxed = searcher.relaxed_weights()
    before = searcher.validation_row(relaxed)["miou"]
    searcher.choose(probabilities)
    decided = searcher.decided_weights()
    # A supernet that shrank to one network is that network, unless its last weights are no ones.
    same = not undecided and all(torch.equal(relaxed[name], decided[name]) for name in decided)
    after = before if same else searcher.validation_row(decided)["miou"]
    genotype = supernet.derive(supernet.alive(), provenance)
    broken = limits.broken(genotype)
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
        "budgets": limits.values(genotype),
        "broken": broken,
    }
    if searcher.job.world.leads:
        folder.draw()
        folder.write_decisions(standing(searcher.position.decided, supernet.tables))
        searched = supernet.searched(provenance)
        if searched is not None:
            folder.write_searched(*searched, searcher.job.identity)
        path = folder.write_network(genotype, met=not broken)
        folder.write_result(result)
    if broken:
        raise SearchFailedError(
            "the network that was found breaks a limit",
            got="; ".join(broken),
            where=str(folder.path),
            fix="the nearest network is kept as nearest.json; raise the limit or search again with another seed",
        )
    return genotype, result | {"genotype": str(path) if searcher.job.world.leads else None}


def _cost(searcher: Searcher, genotype: Genotype) -> dict[str, Any]:
    cost = genotype.cost(searcher.job.resolution)
    return {"resolution": str(searcher.job.resolution), "params": cost.params, "conv_macs": cost.conv_macs}
