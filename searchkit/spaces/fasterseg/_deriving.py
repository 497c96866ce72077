"""From the tables of choices to discrete networks, and from the supernet's weights to theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...choices import Alive, one_hot
from ...supernet import Quality, weights_of
from ._cells import Cell
from ._closing import closed
from ._routes import live_ends, live_routes
from ._superkernels import prefixed
from ._supernet_heads import PairHead, Stem, SuperMerge
from .decoding import SKIP, ArchitectureParameters, decode, genotype_of, merit
from .genotype import FasterSegGenotype, PlacedLayer
from .search_space import FINER, RATES, SAME, TEACHER, FasterSegSearchSpace

if TYPE_CHECKING:
    from ...genotype import Provenance
    from .supernet import FasterSegSupernet

#: What the paper leaves open and this space has chosen, for the provenance of its networks.
CHOICES = (
    "paths decided whole, by the greatest product; skips of stride 1 are identities; the last layer and the teacher "
    "never skip; branches, where left open, by mIoU x cost^-0.07 if validated"
)


def parameters_of(
    space: FasterSegSearchSpace, values: Mapping[str, np.ndarray], prefix: str = ""
) -> ArchitectureParameters:
    """Probabilities, or what lives, as the decoder takes them: logarithms, -inf for 0."""
    with np.errstate(divide="ignore"):
        logs = {name: np.log(np.asarray(rows, dtype=np.float64)) for name, rows in values.items()}
    operators = logs[f"{prefix}operator"]
    if prefix == TEACHER:
        operators = np.insert(operators, SKIP, -np.inf, axis=1)
    cells, connections = np.array(space.cells())[:, 0], np.array(space.connections())[:, 0]
    widths = np.zeros((len(connections), 1)) if prefix == TEACHER else logs["width"]
    return ArchitectureParameters(
        operators=[operators[cells == rate] for rate in range(len(RATES))],
        beta=[logs[f"{prefix}{space.path_table(rate)}"] for rate in (1, 2)],
        widths=[widths[connections == rate] for rate in range(len(RATES))],
    )


def derived(
    space: FasterSegSearchSpace, classes: int, alive: Alive, provenance: Provenance, prefix: str = ""
) -> FasterSegGenotype:
    """The student's network where every choice is decided, or with the prefix the teacher's."""
    (pair,) = np.flatnonzero(alive["branches"][0])
    teacher = prefix == TEACHER
    said = [provenance.description, "the teacher" if teacher else "", CHOICES]
    name = f"{provenance.name}-teacher" if teacher else provenance.name
    described = provenance.model_copy(update={"name": name, "description": "; ".join(filter(None, said))[:256]})
    return genotype_of(
        parameters_of(space, alive, prefix),
        space.ends(int(pair)),
        provenance=described,
        widths=space.widths[-1:] if teacher else space.widths,
        stem_width=space.widths[-1] if teacher else space.stem_width,
        head_width=space.widths[-1] if teacher else space.head_width,
        classes=classes,
        teacher=teacher,
    )


def weighed(
    space: FasterSegSearchSpace,
    alive: Alive,
    preferences: Mapping[str, np.ndarray],
    quality: Quality,
    cost: Callable[[Alive], float],
) -> dict[str, np.ndarray]:
    """`preferences` that favour the most probable whole paths, and the pair of branches of the greatest merit."""
    # What lives can be taken, however little it is preferred.
    found = {name: np.where(alive[name], np.maximum(rows, 1e-300), 0.0) for name, rows in preferences.items()}
    learnt = {name: rows.copy() for name, rows in found.items()}
    for prefix in ("", TEACHER) if space.teacher else ("",):
        # An end that both pairs have is decoded once; what two branches share they decide alike.
        for end in live_ends(space, alive):
            _favour(space, found, parameters_of(space, learnt, prefix), prefix, end)
    pairs = np.flatnonzero(alive["branches"][0])
    if len(pairs) > 1:
        merits = np.zeros(len(space.branches))
        for pair in pairs:
            chosen = {**found, "branches": np.eye(len(space.branches))[[pair]]}
            network = closed(space, one_hot(chosen, alive))
            merits[pair] = merit(quality(weights_of(network)) or 0.0, cost(network))
        if merits.max() > 0:
            found["branches"] = np.where(alive["branches"], merits[None] + 1e-12, 0.0)
    return found


def _favour(
    space: FasterSegSearchSpace,
    found: dict[str, np.ndarray],
    parameters: ArchitectureParameters,
    prefix: str,
    end: int,
) -> None:
    """On the most probable path to an end, give the predecessor that it takes the greater preference."""
    halving = [layer.layer for layer in decode(parameters, last=end, teacher=prefix == TEACHER) if layer.stride == 2]
    rate = 0
    for layer in range(1, space.layers):
        halved = layer - 1 in halving
        rate += halved
        row = space.path_row(rate, layer)
        if row is not None:
            pair = found[f"{prefix}{space.path_table(rate)}"][row]
            taken, left = (FINER, SAME) if halved else (SAME, FINER)
            pair[taken], pair[left] = pair.max(), pair.min()


def discrete_state(supernet: FasterSegSupernet, genotype: FasterSegGenotype) -> dict[str, Tensor] | None:
    """The state dict of the derived network, or None where two cells of the supernet are one layer there.

    Raises:
        ValueError: a choice is undecided.
    """
    if supernet.undecided():
        raise ValueError("some choice is undecided")
    space = supernet.space
    pair = int(np.flatnonzero(supernet.alive()["branches"][0])[0])
    ends = sorted(space.ends(pair), reverse=True)
    ways = [_kept_cells(supernet, end) for end in ends]
    shared = len(genotype.shared)
    if ways[0][:shared] != ways[1][:shared]:
        return None
    assert isinstance(supernet.stem, Stem)
    found = prefixed("stem.", supernet.stem.discrete(space.stem_width))
    for index, cell, placed in zip(range(shared), ways[0], genotype.placed_shared(), strict=False):
        found |= prefixed(f"shared.{index}.", _layer_state(supernet, cell, placed))
    for branch, (end, way) in enumerate(zip(ends, ways, strict=True)):
        placed_layers = genotype.placed_branch(branch)
        for index, (cell, placed) in enumerate(zip(way[shared:], placed_layers, strict=True)):
            found |= prefixed(f"branches.{branch}.layers.{index}.", _layer_state(supernet, cell, placed))
        found |= prefixed(f"branches.{branch}.merges.", _merge_states(supernet, end, genotype.branch_channels(branch)))
    head = supernet.pairs[space.branches[pair]]
    assert isinstance(head, PairHead)
    found |= head.discrete(space.head_width)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


#: Rate index, layer, stride.
Stop = tuple[int, int, int]


def _kept_cells(supernet: FasterSegSupernet, end: int) -> list[Stop]:
    """The cells that the branch to an end leads through, without the skips that are no layers."""
    space, alive = supernet.space, supernet.alive()
    way, found = live_routes(space, alive, [end]), []
    for layer in range(space.layers):
        (rate,) = np.flatnonzero(way.cells[:, layer])
        stride = 2 if way.leaves(int(rate), layer) else 1
        (operator,) = np.flatnonzero(alive["operator"][space.operator_row(int(rate), layer)])
        if operator != SKIP or stride == 2:
            found.append((int(rate), layer, stride))
    return found


def _layer_state(supernet: FasterSegSupernet, stop: Stop, placed: PlacedLayer) -> dict[str, Tensor]:
    rate, layer, stride = stop
    cell = supernet.cells[f"{RATES[rate]}_{layer}"]
    assert isinstance(cell, Cell)
    return cell.discrete(placed.layer.operator, stride, placed.layer.width, placed.in_channels)


def _merge_states(supernet: FasterSegSupernet, end: int, channels: Mapping[int, int]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    head, coarse = supernet.space.head_width, channels[RATES[end]]
    for rate in range(end, 0, -1):
        name = f"from{RATES[rate]}"
        merge = supernet.merges[str(RATES[end])][name]  # type: ignore[index]
        assert isinstance(merge, SuperMerge)
        found |= prefixed(f"{name}.", merge.discrete(head, coarse, channels[RATES[rate - 1]]))
        coarse = head * RATES[rate - 1]
    return found
