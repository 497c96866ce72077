"""Predicted latency of a FasterSeg network from a table of its operators.

The table's keys are those of the authors' release: `<operator>_H<h>_W<w>_Cin<i>_Cout<o>_stride<s>_dilation<d>`, where
H, W and Cin are of the operator's input. The release looks a zoomed convolution x2 up under the key of the plain
convolution x2, which is dearer; `authors_keys` does the same, to reproduce the figure that the release stores with
its networks.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...costs.latency import LatencyTable
from .genotype import STEM_RATE, FasterSegGenotype, PlacedLayer, stem_channels

#: How the tables name the operators.
OPERATOR_KEYS = {
    "skip": "FactorizedReduce",
    "conv": "BasicResidual1x",
    "conv_x2": "BasicResidual2x",
    "zoomed_conv": "BasicResidual_downup_1x",
    "zoomed_conv_x2": "BasicResidual_downup_2x",
}


def predict_latency_ms(genotype: FasterSegGenotype, table: LatencyTable, *, authors_keys: bool = False) -> float:
    """Sum of the table's entries over all operators of the network, in milliseconds: a prediction.

    Raises:
        UsageError: an operator of the network was not measured.
    """
    return table.predict_ms(table_keys(genotype, *table.network_input, authors_keys=authors_keys))


def table_keys(genotype: FasterSegGenotype, height: int, width: int, *, authors_keys: bool = False) -> Iterator[str]:
    """The operators of the network as table keys, for an input of `height` x `width` pixels."""
    yield from _stem_keys(genotype.stem_width, height, width)
    for placed in genotype.placed_shared():
        yield _layer_key(placed, height, width, authors_keys)
    for index in range(len(genotype.branches)):
        for placed in genotype.placed_branch(index):
            yield _layer_key(placed, height, width, authors_keys)
    for index in range(len(genotype.branches)):
        yield from _merge_keys(genotype, index, height, width)
    yield from _head_keys(genotype, height, width)


def _stem_keys(stem_width: int, height: int, width: int) -> Iterator[str]:
    first, rest = stem_channels(stem_width)
    yield _conv_key(height, width, 3, first, 3, 2)
    yield f"BasicResidual2x_H{height // 2}_W{width // 2}_Cin{first}_Cout{rest}_stride2_dilation1"
    yield f"BasicResidual2x_H{height // 4}_W{width // 4}_Cin{rest}_Cout{rest}_stride2_dilation1"


def _layer_key(placed: PlacedLayer, height: int, width: int, authors_keys: bool) -> str:
    layer, rate = placed.layer, placed.rate_in
    channels = f"Cin{placed.in_channels}_Cout{placed.out_channels}"
    place = f"_H{height // rate}_W{width // rate}_{channels}_stride{layer.stride}"
    if layer.operator == "skip":
        return f"FactorizedReduce{place}"
    operator = "conv_x2" if authors_keys and layer.operator == "zoomed_conv_x2" else layer.operator
    return f"{OPERATOR_KEYS[operator]}{place}_dilation1"


def _merge_keys(genotype: FasterSegGenotype, index: int, height: int, width: int) -> Iterator[str]:
    channels = genotype.branch_channels(index)
    rate = max(channels)
    coarse = channels[rate]
    while rate > STEM_RATE:
        merged = genotype.head_width * rate // 2
        yield _conv_key(height // rate, width // rate, coarse, merged, 1, 1)
        rate //= 2
        yield _conv_key(height // rate, width // rate, merged + channels[rate], merged, 3, 1)
        coarse = merged


def _head_keys(genotype: FasterSegGenotype, height: int, width: int) -> Iterator[str]:
    fused = genotype.head_width * STEM_RATE * len(genotype.branches)
    place = f"H{height // STEM_RATE}_W{width // STEM_RATE}"
    yield f"ff_{place}_C{fused}"
    yield f"head_{place}_Cin{fused}_Cout{genotype.classes}"


def _conv_key(height: int, width: int, in_channels: int, out_channels: int, kernel: int, stride: int) -> str:
    return f"ConvNorm_H{height}_W{width}_Cin{in_channels}_Cout{out_channels}_kernel{kernel}_stride{stride}"
