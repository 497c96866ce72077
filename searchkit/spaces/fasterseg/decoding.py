"""From architecture parameters to discrete branches (Chen et al., ICLR 2020, section 3.4 and appendix B).

The model that the parameters describe, and that the rule "joint" decodes: a branch ends at one rate in the last layer
and is traced back from there. Each cell on the way has drawn its predecessor by `beta`, which by Eq. 1 are the
probabilities with which its two predecessors come into it, so that the probability of a path is the product over its
cells, of those that keep the rate as of those that follow a stride of 2. Probabilities of all paths to one end sum to
1, and the most probable path is taken. (Footnote 2 of the paper multiplies the factors of the two strides alone. That
is no probability of a path, and it has no factor where a branch halves the resolution as early as it can: the cell
behind has one predecessor. Taking the whole product is our choice.) On the path each cell takes its most probable
operator and each connection its most probable width. Skips of stride 1 are then removed, all of them; one of stride 2
stays, as the strided skip. A layer in front of a removed skip keeps its own width, and the last layer has the head's.

The rule "release" is the authors' decoder with its flaws; see `_release_decoding`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ...errors import UsageError
from ...genotype import SCHEMA, Provenance
from .genotype import WIDTHS, FasterSegGenotype, FasterSegLayer, Operator

Rule = Literal["joint", "release"]

#: Columns of `ArchitectureParameters.operators`, in the order of the release.
OPERATORS: tuple[Operator, ...] = ("skip", "conv", "zoomed_conv", "conv_x2", "zoomed_conv_x2")
SKIP = 0
#: Columns of `ArchitectureParameters.beta`.
FROM_FINER, FROM_SAME = 0, 1
RATES = 3
MAX_LAYERS = 64
#: Pairs of branches, by the rate index that each ends at, among which the release chooses.
BRANCH_PAIRS = ((0, 2), (1, 2))


@dataclass(frozen=True)
class ArchitectureParameters:
    """What a search has learnt of one network: logits, before softmax over each row; -inf is what cannot be.

    Rates have the indices 0, 1, 2 for 1/8, 1/16, 1/32. A cell at rate r stands in layers r to L - 1.

    Attributes:
        operators: for rate r, (L - r) x 5: row i is of the cell in layer r + i, columns as in `OPERATORS`.
        beta: for 1/16 and for 1/32, (L - 1 - r) x 2: row i is of the cell in layer r + 1 + i, columns the predecessor
            at the finer rate (by stride 2) and the one at the same rate. The first cell at a rate has but one.
        widths: for the three rates, (L - 1), (L - 1) and (L - 2) rows x number of widths: row i is of the connection
            into the cell of that rate in layer 1 + i, and 2 + i at 1/32. One column for a teacher.
    """

    operators: Sequence[np.ndarray]
    beta: Sequence[np.ndarray]
    widths: Sequence[np.ndarray]

    def __post_init__(self) -> None:
        layers = self.layers
        if not RATES <= layers <= MAX_LAYERS:
            problem = "too few layers to reach 1/32" if layers < RATES else "too many layers"
            raise UsageError(problem, where="operators", got=layers, allowed=f"{RATES} to {MAX_LAYERS}")
        expected = {
            "operators": [(layers - rate, len(OPERATORS)) for rate in range(RATES)],
            "beta": [(layers - 2, 2), (layers - 3, 2)],
            "widths": [(rows, self.widths[0].shape[-1]) for rows in (layers - 1, layers - 1, layers - 2)],
        }
        for name, shapes in expected.items():
            found = [rows.shape for rows in getattr(self, name)]
            if found != shapes:
                raise UsageError("architecture parameters of a wrong shape", where=name, got=found, allowed=str(shapes))
            if any(np.isnan(rows).any() for rows in getattr(self, name)):
                raise UsageError("architecture parameters that are no numbers", where=name)

    @property
    def layers(self) -> int:
        """How many layers the supernet has."""
        return len(self.operators[0])

    def operator_logits(self, layer: int, rate: int) -> np.ndarray:
        """Of the cell in a layer, at a rate index."""
        return self.operators[rate][layer - rate]

    def width_column(self, layer: int, rate: int) -> int:
        """The most probable width of the connection into a cell."""
        return int(self.widths[rate][layer - max(rate, 1)].argmax())

    @classmethod
    def from_release(cls, tree: Mapping[str, Any]) -> ArchitectureParameters:
        """Of one network as the release names it: `alpha_N_0` to `alpha_N_2`, `beta_N_1`, `beta_N_2`, `ratio_N_0` to
        `ratio_N_2`, N being any number; other keys are not read. Raises `UsageError` for what is missing."""

        def arrays(name: str, rates: Sequence[int]) -> list[np.ndarray]:
            return [np.asarray(_only(tree, name, rate), dtype=np.float64) for rate in rates]

        return cls(arrays("alpha", (0, 1, 2)), arrays("beta", (1, 2)), arrays("ratio", (0, 1, 2)))


@dataclass(frozen=True)
class DecodedLayer:
    """A layer of a branch.

    Attributes:
        layer: of the supernet, from 0.
        rate: index of its input's rate: 0, 1, 2 for 1/8, 1/16, 1/32.
        width: column of `ArchitectureParameters.widths`; None where it is the head's, in the last layer.
    """

    layer: int
    rate: int
    operator: Operator
    width: int | None
    stride: Literal[1, 2]


def decode(
    parameters: ArchitectureParameters, *, last: int, teacher: bool = False, rule: Rule = "joint"
) -> list[DecodedLayer]:
    """The branch that ends at a rate, without the skips that are no layers.

    Args:
        last: index of the rate: 0, 1, 2 for 1/8, 1/16, 1/32.
        teacher: no cell may be a skip.
        rule: "joint", or "release" for the authors' decoder.

    Raises:
        UsageError: nothing leads to this end, or a cell on the way has no operator left.
    """
    if last not in range(RATES):
        raise UsageError("no such rate", where="last", got=last, allowed="0, 1 or 2")
    if rule == "release":
        from ._release_decoding import decode_release

        return decode_release(parameters, last, teacher)
    halving = most_probable_halving(parameters, last)
    found = []
    for layer in range(parameters.layers):
        rate = rate_in(layer, halving)
        operator = _operator(parameters.operator_logits(layer, rate), layer, skips=not teacher)
        strided = layer in halving
        if operator != SKIP or strided:
            width = None if layer == parameters.layers - 1 else parameters.width_column(layer + 1, rate + strided)
            found.append(DecodedLayer(layer, rate, OPERATORS[operator], width, 2 if strided else 1))
    return with_head_width(found)


def _operator(logits: np.ndarray, layer: int, *, skips: bool) -> int:
    allowed = logits if skips else np.where(np.arange(len(OPERATORS)) == SKIP, -np.inf, logits)
    if np.isneginf(allowed).all():
        raise UsageError("a cell on the way has no operator left", where=f"operators, layer {layer}")
    return int(allowed.argmax())


def with_head_width(layers: list[DecodedLayer]) -> list[DecodedLayer]:
    """The same branch, its last layer as wide as the head."""
    return [*layers[:-1], *(replace(layer, width=None) for layer in layers[-1:])]


def rate_in(layer: int, halving: Sequence[int]) -> int:
    """Index of the rate that a layer is run at, where the layers of `halving` have stride 2."""
    return sum(down < layer for down in halving)


def halvings(layers: int, last: int) -> list[tuple[int, ...]]:
    """All paths to a rate: which layers have stride 2. Those that halve early come first."""
    return list(itertools.combinations(range(layers - 1), last))


def path_log_probability(parameters: ArchitectureParameters, halving: Sequence[int]) -> float:
    """Logarithm of the probability that tracing back from the branch's end takes just this path."""
    log_beta = [log_softmax(rows) for rows in parameters.beta]
    total = 0.0
    for layer in range(1, parameters.layers):
        rate = rate_in(layer, halving)
        # The first cell at a rate has one predecessor, as have all cells at 1/8.
        if 0 < rate < layer:
            total += log_beta[rate - 1][layer - rate - 1][FROM_FINER if layer - 1 in halving else FROM_SAME]
    return float(total)


def most_probable_halving(parameters: ArchitectureParameters, last: int) -> tuple[int, ...]:
    """Which layers of the most probable path to a rate have stride 2; the earlier ones where paths are equal.

    Raises:
        UsageError: no path has a probability over 0.
    """
    paths = halvings(parameters.layers, last)
    scores = [path_log_probability(parameters, path) for path in paths]
    best = max(scores)
    if best == -math.inf:
        raise UsageError("no path leads to the end of the branch", where=f"1/{8 << last}")
    return paths[scores.index(best)]


def log_softmax(rows: np.ndarray) -> np.ndarray:
    """Over the last axis; -inf wherever a row has nothing else."""
    top = rows.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = rows - np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted - np.where(np.isneginf(total), 0.0, total)


def genotype_of(
    parameters: ArchitectureParameters,
    branches: Sequence[int] = (1, 2),
    *,
    provenance: Provenance,
    widths: Sequence[int] = WIDTHS,
    stem_width: int = 8,
    head_width: int = 8,
    classes: int = 19,
    teacher: bool = False,
    rule: Rule = "joint",
) -> FasterSegGenotype:
    """The network of one or two decoded branches; what they begin with alike is shared, as in section 3.4.

    The branch to the lowest resolution stands first. (The release never shares the last layer of a branch, even where
    the other has an equal one there.)

    Args:
        branches: rate indices at which the branches end.
        widths: what the columns of `parameters.widths` mean; a teacher has one.

    Raises:
        UsageError: as `decode`; branches or widths do not fit.
    """
    if len(branches) not in (1, 2) or len(set(branches)) < len(branches):
        raise UsageError("one branch, or two with different ends", where="branches", got=tuple(branches))
    if len(widths) != parameters.widths[0].shape[-1]:
        columns = parameters.widths[0].shape[-1]
        raise UsageError("another number of widths", where="widths", got=len(widths), allowed=str(columns))
    found = []
    for last in sorted(branches, reverse=True):
        decoded = decode(parameters, last=last, teacher=teacher, rule=rule)
        found.append(tuple(_layer(layer, widths, head_width) for layer in decoded))
    shared = _alike(*found) if len(found) == 2 else 0
    return FasterSegGenotype(
        schema=SCHEMA,
        space="fasterseg",
        classes=classes,
        stem_width=stem_width,
        head_width=head_width,
        shared=found[0][:shared],
        branches=tuple(layers[shared:] for layers in found),
        provenance=provenance,
    )


def _layer(decoded: DecodedLayer, widths: Sequence[int], head_width: int) -> FasterSegLayer:
    width = head_width if decoded.width is None else widths[decoded.width]
    return FasterSegLayer(operator=decoded.operator, width=width, stride=decoded.stride)


def _alike(one: Sequence[FasterSegLayer], other: Sequence[FasterSegLayer]) -> int:
    """How many layers both begin with."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def merit(miou: float, latency_ms: float, *, target_ms: float = 8.3, exponent: float = -0.07) -> float:
    """What branches are chosen by: mIoU x (latency / target) ** exponent, on both sides of the target (Eq. 5).

    Eq. 6 as printed has exponents of 1 and 0; its text and the release take -0.07 throughout.
    """
    if not latency_ms > 0:
        raise UsageError("a latency must be over 0", where="latency_ms", got=latency_ms)
    return miou * (latency_ms / target_ms) ** exponent


def best_branches(
    measured: Mapping[tuple[int, ...], tuple[float, float]], *, target_ms: float = 8.3, exponent: float = -0.07
) -> tuple[int, ...]:
    """The branches of the greatest merit, by (mIoU, latency in ms) of each; the first of equal ones."""

    def value(branches: tuple[int, ...]) -> float:
        return merit(*measured[branches], target_ms=target_ms, exponent=exponent)

    return max(measured, key=value)


def _only(tree: Mapping[str, Any], name: str, rate: int) -> Any:
    """The value of the key that is `name`, some number, and the rate."""
    keys = [key for key in tree if key.startswith(f"{name}_") and key.endswith(f"_{rate}") and key.count("_") == 2]
    if len(keys) != 1:
        raise UsageError("not the parameters of one network", where=f"{name}_N_{rate}", got=keys, allowed="one key")
    return tree[keys[0]]
