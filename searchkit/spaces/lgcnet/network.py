"""The discrete LGCNet network (Cheng et al., Fig. 3 to 5): a stem, cells, the dense-connected fusion cell, a head.

Shapes: N batch, C channels, H and W of the input. The network takes N x 3 x H x W and returns logits at H x W.

Where BatchNorm and ReLU stand is not published: here every convolution (of a separable one, the second of the two) is
followed by BatchNorm and ReLU, poolings and skips by neither, so that runtimes fuse all of them and sums need none.
A skip with stride 2 is a strided 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import AdaptiveAvgPools, ConvNormAct, resize, resize_like
from .genotype import LGCNetCell, LGCNetGenotype
from .operators import CellOperator, FusionOperator, UpOperator, bins_of, dilation_of
from .wiring import (
    CELL_EDGES,
    FUSION_EDGES,
    FUSION_INPUTS,
    FUSION_NODES,
    FUSION_OUTPUTS,
    SEARCHED,
    UPS,
    Place,
    fused_cells,
    fusion_inputs_of,
    stem_channels,
)

#: What an edge of the fusion cell makes of a map.
Computed = Callable[[str, str, Tensor, Sequence[int]], Tensor]


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 convolution with dilation, 1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, dilation, dilation=dilation, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class GlobalPooling(nn.Module):
    """Average pooling to `bins` x `bins`, 1x1 convolution, BatchNorm, ReLU, bilinear resize to the input's size."""

    def __init__(self, in_channels: int, out_channels: int, bins: int) -> None:
        super().__init__()
        self.pool = AdaptiveAvgPools((bins,))
        self.reduce = ConvNormAct(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        (pooled,) = self.pool(x)
        return resize_like(self.reduce(pooled), x)


class Deconvolution(nn.Module):
    """ "Up x2" by a 2x2 transposed convolution of stride 2, BatchNorm, ReLU.

    Where a side of the finer map is odd, the last row or column is cut.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """N x C x size of N x C x half of it."""
        height, width = int(size[0]), int(size[1])
        out = F.relu(self.norm(self.conv(x)))
        return out if tuple(out.shape[-2:]) == (height, width) else out[..., :height, :width]


class Resize(nn.Module):
    """ "Up x2" by a bilinear resize; a 1x1 convolution with BatchNorm and ReLU before it where channels differ."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Identity() if in_channels == out_channels else ConvNormAct(in_channels, out_channels, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return resize(self.reduce(x), size)


def cell_operator(operator: CellOperator, channels: int, stride: int) -> nn.Module:
    """An operator of Table II other than `none`."""
    if operator == "max_pool":
        return nn.MaxPool2d(3, stride, padding=1)
    if operator == "skip":
        return nn.Identity() if stride == 1 else ConvNormAct(channels, channels, 1, stride)
    if operator == "conv":
        return ConvNormAct(channels, channels, 3, stride)
    return SeparableConv(channels, channels, stride=stride, dilation=dilation_of(operator))


def fusion_operator(operator: FusionOperator, in_channels: int, out_channels: int) -> nn.Module:
    """An operator of Table III."""
    if operator.startswith("pool"):
        return GlobalPooling(in_channels, out_channels, bins_of(operator))
    if operator.startswith("sep_conv"):
        return SeparableConv(in_channels, out_channels, dilation=dilation_of(operator))
    return ConvNormAct(in_channels, out_channels, 3 if operator == "conv3x3" else 1)


def up_operator(operator: UpOperator, in_channels: int, out_channels: int) -> nn.Module:
    """What may stand on an "Up x2" edge."""
    kind = Deconvolution if operator == "deconvolution" else Resize
    return kind(in_channels, out_channels)


def input_unit(place: Place, which: int) -> ConvNormAct:
    """What takes i1 (`which` 0) or i2 (1) to a cell's channels."""
    source = place.inputs[which]
    return ConvNormAct(source.channels, place.channels, 1, source.stride)


def edge_key(source: str, target: str) -> str:
    """What the module of an edge is called."""
    return f"{source}_{target}"


class Stem(nn.ModuleList):
    """Three 3x3 convolutions with strides 2, 2 and 1; gives the outputs of the third and the second."""

    def __init__(self, stem: int) -> None:
        first, second, third = stem_channels(stem)
        super().__init__([ConvNormAct(3, first, 3, 2), ConvNormAct(first, second, 3, 2), ConvNormAct(second, third, 3)])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        second = self[1](self[0](image))
        return self[2](second), second


class Cell(nn.Module):
    """A cell that is read: N x 2C x H' x W' of the maps that it reads (Eq. 2)."""

    def __init__(self, cell: LGCNetCell, place: Place) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict({f"i{i + 1}": input_unit(place, i) for i, read in enumerate(cell.reads) if read})
        self.edges = nn.ModuleDict(
            {
                edge_key(*CELL_EDGES[index]): cell_operator(operator, place.channels, place.edge_stride(index))
                for index, operator in enumerate(cell.edges)
                if operator != "none"
            }
        )

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Of the maps of i1 and i2, as far as they are read."""
        nodes = {name: unit(maps[name]) for name, unit in self.inputs.items()}
        for target in ("x1", "x2"):
            found = [
                self.edges[edge_key(source, to)](nodes[source])
                for source, to in CELL_EDGES
                if to == target and edge_key(source, to) in self.edges
            ]
            nodes[target] = sum(found[1:], start=found[0])
        return torch.cat([nodes["x1"], nodes["x2"]], dim=1)


class FusionCell(nn.Module):
    """The dense-connected fusion cell (Fig. 5): N x 3C x H/4 x W/4 of the maps of three cells, at 1/4, 1/8 and 1/16."""

    def __init__(self, genotype: LGCNetGenotype) -> None:
        super().__init__()
        wide, cells = genotype.fusion_channels, genotype.places()
        fused = fused_cells(len(cells), genotype.reductions)
        self.inputs = nn.ModuleDict(
            {
                name: ConvNormAct(2 * cells[index].channels, wide, 1)
                for name, index in zip(FUSION_INPUTS, fused, strict=True)
            }
        )
        made: dict[str, nn.Module] = {}
        for edge, operator in zip(SEARCHED, genotype.fusion, strict=True):
            made[edge_key(*edge)] = fusion_operator(operator, wide * fusion_inputs_of(edge.source), wide)
        for edge, up in zip(UPS, genotype.fusion_up, strict=True):
            made[edge_key(*edge)] = up_operator(up, wide * fusion_inputs_of(edge.source), wide)
        self.edges = nn.ModuleDict(made)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        def computed(source: str, target: str, x: Tensor, size: Sequence[int]) -> Tensor:
            module = self.edges[edge_key(source, target)]
            out: Tensor = module(x, size) if (source, target) in UPS else module(x)
            return out

        inputs = {name: unit(x) for (name, unit), x in zip(self.inputs.items(), maps, strict=True)}
        return fused(inputs, computed)


def fused(inputs: dict[str, Tensor], computed: Computed) -> Tensor:
    """The graph of the fusion cell: the sum of its final maps.

    Args:
        inputs: maps of the nodes `FUSION_INPUTS`, of equal channels.
        computed: what an edge makes of a map: asked with source and target, the map, and the size of the target.
    """
    sizes = {FUSION_NODES[name]: x.shape[-2:] for name, x in inputs.items()}
    nodes = dict(inputs)
    for node, rate in FUSION_NODES.items():
        if node not in nodes:
            edges = [edge for edge in FUSION_EDGES if edge.target == node]
            nodes[node] = torch.cat([computed(*edge, nodes[edge.source], sizes[rate]) for edge in edges], dim=1)
    first, second, third = (nodes[name] for name in FUSION_OUTPUTS)
    return first + second + third


class LGCNet(nn.Module):
    """The discrete network that an `LGCNetGenotype` describes."""

    def __init__(self, genotype: LGCNetGenotype) -> None:
        super().__init__()
        self.stem = Stem(genotype.stem)
        cells = zip(genotype.places(), genotype.cells, genotype.live_cells(), strict=True)
        self.cells = nn.ModuleDict({str(place.index): Cell(cell, place) for place, cell, alive in cells if alive})
        self.fused = fused_cells(len(genotype.cells), genotype.reductions)
        self.fusion = FusionCell(genotype)
        channels = genotype.fusion_channels * fusion_inputs_of(FUSION_OUTPUTS[0])
        self.classifier = nn.Conv2d(channels, genotype.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        third, second = self.stem(image)
        maps = {-1: third, -2: second}
        for name, cell in self.cells.items():
            index = int(name)
            before = {"i1": index - 1, "i2": index - 2}
            maps[index] = cell({node: maps[source] for node, source in before.items() if source in maps})
        return resize_like(self.classifier(self.fusion([maps[index] for index in self.fused])), image)
