"""Plain forms of the SSR supernet, on the same weights: what the fast one is tested and timed against.

Written as one would write them from the paper, for autograd and in float32, without regard to time or memory: every
operator pools its input and resizes its output for itself, and every mask is a multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from searchkit.blocks import resize_like
from searchkit.spaces.ssr._mixed_layer import MixedLayer, MixedOperator
from searchkit.spaces.ssr.search_space import STAGES
from searchkit.spaces.ssr.supernet import SSRSupernet

Weights = Mapping[str, Tensor]


class MaskVectorSupernet(SSRSupernet):
    """Eq. 5 with the weighted sum of the prefix masks first: one multiplication a convolution."""

    def forward(self, image: Tensor, weights: Weights) -> Tensor:
        x = self._stage_of(0, self.down4(self.stem(image)), weights)
        x = self._stage_of(1, self._downsampled(x, weights), weights)
        return self.classifier(x)

    def masked(self, y: Tensor, weights: Tensor, widths: tuple[int, ...]) -> Tensor:
        """Channels of `y` as the weights of the widths keep them."""
        mask = torch.zeros(y.shape[1], dtype=y.dtype, device=y.device)
        for weight, width in zip(weights, widths, strict=True):
            mask = mask + weight * (torch.arange(y.shape[1], device=y.device) < width)
        return y * mask.view(1, -1, 1, 1)

    def _stage_of(self, stage: int, x: Tensor, weights: Weights) -> Tensor:
        name, depths = STAGES[stage], self.space.stage_depths(stage)
        layers = self.stage8 if stage else self.stage4
        first = len(self.space.layers(0)) if stage else 0
        total: Tensor | None = None
        for index, layer in enumerate(layers):
            assert isinstance(layer, MixedLayer)
            operators = len(self.space.operators())
            rows = slice(index * operators, (index + 1) * operators)
            mid, out = weights[f"mid{name}"][rows], weights[f"out{name}"][rows]
            x = self._layer_of(layer, x, weights["operator"][first + index], mid, out, self.space.widths(stage))
            alpha = weights[f"depth{name}"][0]
            if index + 1 in depths and self.tables[f"depth{name}"].alive[0, depths.index(index + 1)]:
                term = alpha[depths.index(index + 1)] * x
                total = term if total is None else _added(total, term)
        assert total is not None
        return total

    def _layer_of(
        self, layer: MixedLayer, x: Tensor, p: Tensor, mid: Tensor, out: Tensor, widths: tuple[int, ...]
    ) -> Tensor:
        drop = layer.draw_dropout(x)
        total = torch.zeros(x.shape[0], 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        for index, (column, operator) in enumerate(zip(layer.columns, layer.live(), strict=True)):
            y = self._branch_of(layer, operator, x, mid[column], widths)
            if drop is not None:
                y = y * drop[index, :, : operator.out, None, None] / (1 - layer.dropout)
            y = _added(y, x[:, : operator.out])
            total = _added(total, p[column] * self.masked(y, out[column], widths))
        return F.relu(total)

    def _branch_of(
        self, layer: MixedLayer, operator: MixedOperator, x: Tensor, mid: Tensor, widths: tuple[int, ...]
    ) -> Tensor:
        y = layer.pooled(x) if operator.spatial == 2 else x
        y = F.relu(self.masked(operator.norm3x1(operator.conv3x1(y)), mid, widths))
        return resize_like(operator.norm1x3(operator.conv1x3(y)), x, align_corners=True)

    def _downsampled(self, x: Tensor, weights: Weights) -> Tensor:
        """The mixture of ERFNet's downsampler over the widths that x may have."""
        depths, widths = self.space.stage_depths(0), self.space.widths(0)
        probable = dict.fromkeys(self.down8.widths, torch.zeros((), dtype=x.dtype))
        for depth, alpha in zip(depths, weights["depth4"][0], strict=True):
            for column, p in enumerate(weights["operator"][depth - 1]):
                row = (depth - 1) * len(self.space.operators()) + column
                for width, gamma in zip(widths, weights["out4"][row], strict=True):
                    if width in probable:
                        probable[width] = probable[width] + alpha * p * gamma
        y, pool = self.down8.conv(x), F.max_pool2d(x, 2)
        mixed: Tensor | None = None
        for width, p in probable.items():
            one = torch.cat([y[:, : self.down8.channels - width], pool[:, :width]], dim=1) * p
            mixed = one if mixed is None else mixed + one
        assert mixed is not None
        return F.relu(self.down8.norm(mixed / sum(probable.values())))


class LiteralSupernet(MaskVectorSupernet):
    """Eq. 5 read literally: a masked copy of the map for every width, weighted and summed."""

    def masked(self, y: Tensor, weights: Tensor, widths: tuple[int, ...]) -> Tensor:
        total: Tensor | None = None
        for weight, width in zip(weights, widths, strict=True):
            mask = (torch.arange(y.shape[1], device=y.device) < width).to(y.dtype)
            copy = weight * (y * mask.view(1, -1, 1, 1))
            total = copy if total is None else total + copy
        assert total is not None
        return total


def _added(a: Tensor, b: Tensor) -> Tensor:
    """Sum of maps, where what is missing of the shorter one is zero."""
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    return a + F.pad(b, (0, 0, 0, 0, 0, a.shape[1] - b.shape[1]))
