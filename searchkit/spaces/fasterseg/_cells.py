"""A cell of the FasterSeg supernet: all its operators, at all their widths, with one output or two.

Source: Chen et al., ICLR 2020, section 3.1.2 and Eq. 2. A cell reads one map, which Eq. 1 has mixed already, and gives
one of the same rate and one of half the resolution; both mix the same operators by the same weights, each with kernels
of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import resize, resize_like
from ...choices import Cuts
from ...recomputing import recomputed
from ._superkernels import Norms, Superkernel, cut_conv, prefixed

#: A weight: a number where nothing is to be learnt of it, else a scalar tensor.
Scalar = float | Tensor


def plus(total: Tensor | None, x: Tensor, weight: Scalar) -> Tensor:
    """`total + weight * x`; channels that one of both lacks are zeros, and `x` is resized where sizes differ."""
    if not (isinstance(weight, float) and weight == 1.0):
        x = x * weight
    if total is None:
        return x
    x = resize_like(x, total, align_corners=True)
    missing = total.shape[1] - x.shape[1]
    if missing > 0:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    elif missing < 0:
        total = F.pad(total, (0, 0, 0, 0, 0, -missing))
    return total + x


def times(first: Scalar, second: Scalar) -> Scalar:
    """The product; a number where one is 0, or both are numbers."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, float) and one in (0.0, 1.0):
            return other if one else 0.0
    return first * second


class Convolutions(nn.Module):
    """One or two 3x3 convolutions, zoomed or not: `Conv` and `ZoomedConv` of the discrete network.

    Args:
        name: of the operator.
        inputs: the most channels of the input.
        channels: of the output, by width.
    """

    def __init__(self, name: str, inputs: int, channels: Mapping[int, int], stride: int) -> None:
        super().__init__()
        self.zoomed, self.stride = name.startswith("zoomed"), stride
        most = max(channels.values())
        repeats = 2 if name.endswith("x2") else 1
        strides = [1 if self.zoomed else stride, 1]
        self.convs = nn.ModuleList(
            Superkernel((most if index else inputs,), channels, 3, strides[index]) for index in range(repeats)
        )

    def forward(self, x: Tensor, half: Tensor | None, width: int) -> Tensor:
        """`half` is `x` at half the resolution."""
        y = x
        if self.zoomed:
            assert half is not None
            y = half
        for index, conv in enumerate(self.convs):
            y = conv(y, width, act=not self.zoomed or index + 1 < len(self.convs))
        if not self.zoomed:
            return y
        if self.stride == 1:
            y = resize_like(y, x, align_corners=True)
        return F.relu(y, inplace=True)

    @property
    def norms(self) -> Norms:
        """Of its output."""
        return self.convs[-1].norms  # type: ignore[return-value]

    def cut(self, prefix: str, inputs: int, widths: Collection[int], cuts: Cuts) -> None:
        """Keep these widths and the first channels of the input."""
        for index, conv in enumerate(self.convs):
            assert isinstance(conv, Superkernel)
            conv.cut(f"{prefix}convs.{index}.", (inputs,), widths, cuts)
            inputs = conv.norms.most

    def discrete(self, width: int, inputs: int) -> dict[str, Tensor]:
        """The state dict of the discrete operator."""
        found: dict[str, Tensor] = {}
        for index, conv in enumerate(self.convs):
            assert isinstance(conv, Superkernel)
            prefix = f"convs.{index}." if self.zoomed else f"{index}."
            found |= prefixed(prefix, conv.discrete(width, (inputs,)))
            inputs = conv.norms.of(width).num_features
        return found


class StridedSkips(nn.Module):
    """The skip of stride 2: `StridedSkip` of the discrete network."""

    def __init__(self, inputs: int, channels: Mapping[int, int]) -> None:
        super().__init__()
        half = max(channels.values()) // 2
        self.even = nn.Conv2d(inputs, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, half, 1, stride=2, bias=False)
        self.norms = Norms(channels)

    def forward(self, x: Tensor, half: Tensor | None, width: int) -> Tensor:
        """The even and the odd pixels beside each other; `half` is not looked at."""
        rows = self.norms.of(width).num_features // 2
        shifted = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))[:, :, 1:, 1:]
        weights = [conv.weight[:rows, : x.shape[1]] for conv in (self.even, self.odd)]
        y = torch.cat([F.conv2d(part, w, stride=2) for part, w in zip((x, shifted), weights, strict=True)], dim=1)
        return F.relu(self.norms.normalised(y, width), inplace=True)

    def cut(self, prefix: str, inputs: int, widths: Collection[int], cuts: Cuts) -> None:
        """Keep these widths and the first channels of the input."""
        self.norms.keep(widths)
        for name in ("even", "odd"):
            found: Cuts = {}
            cut_conv(getattr(self, name), "", self.norms.most // 2, torch.arange(inputs), found)
            cuts.update({f"{prefix}{name}.weight": dimensions for dimensions in found.values()})

    def discrete(self, width: int, inputs: int) -> dict[str, Tensor]:
        """The state dict of the discrete operator."""
        norm = self.norms.of(width)
        rows = norm.num_features // 2
        weights = {f"{name}.weight": getattr(self, name).weight[:rows, :inputs] for name in ("even", "odd")}
        return weights | prefixed("norm.", norm.state_dict())


@dataclass(frozen=True)
class Wanted:
    """One output of a cell in a pass.

    Attributes:
        operators: name and weight of those that run.
        widths: of the connection, with their weights.
    """

    operators: Sequence[tuple[str, Scalar]]
    widths: Sequence[tuple[int, Scalar]]


class Cell(nn.Module):
    """All operators of a cell.

    Args:
        rate: of its input.
        inputs: the most channels of its input.
        same, down: channels of its outputs of stride 1 and 2, by width; None where there is none.
        operators: names.

    Attributes:
        same, down: by name; a skip of stride 1 is the identity and has no module.
    """

    def __init__(
        self,
        inputs: int,
        same: Mapping[int, int] | None,
        down: Mapping[int, int] | None,
        operators: Sequence[str],
    ) -> None:
        super().__init__()
        self.same, self.down = nn.ModuleDict(), nn.ModuleDict()
        for stride, modules, channels in ((1, self.same, same), (2, self.down, down)):
            for name in operators if channels else ():
                if name != "skip":
                    modules[name] = Convolutions(name, inputs, channels or {}, stride)
                elif stride == 2:
                    modules[name] = StridedSkips(inputs, channels or {})

    def forward(
        self, x: Tensor, same: Wanted | None, down: Wanted | None, *, checkpointing: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Both outputs, None for what is not wanted."""
        if not checkpointing:
            return self._outputs(x, same, down)
        found: tuple[Tensor | None, Tensor | None] = recomputed(self, self._outputs, x, same, down)
        return found

    def _outputs(self, x: Tensor, same: Wanted | None, down: Wanted | None) -> tuple[Tensor | None, Tensor | None]:
        names = [name for which in (same, down) if which is not None for name, _ in which.operators]
        half = None
        if any(name.startswith("zoomed") for name in names):
            # Shared by all zoomed operators.
            half = resize(x, (max(1, x.shape[-2] // 2), max(1, x.shape[-1] // 2)), align_corners=True)
        return _mixture(self.same, same, x, half), _mixture(self.down, down, x, half)

    def shrink(
        self,
        prefix: str,
        same: Mapping[str, tuple[int, set[int]]],
        down: Mapping[str, tuple[int, set[int]]],
        cuts: Cuts,
    ) -> None:
        """Keep these operators alone, each with input channels and widths."""
        for which, modules, needs in (("same", self.same, same), ("down", self.down, down)):
            for name in list(modules):
                if name not in needs:
                    del modules[name]
                    continue
                operator = modules[name]
                assert isinstance(operator, Convolutions | StridedSkips)
                operator.cut(f"{prefix}{which}.{name}.", *needs[name], cuts)

    def discrete(self, operator: str, stride: int, width: int, inputs: int) -> dict[str, Tensor]:
        """The state dict of the cell's discrete operator."""
        found = (self.same if stride == 1 else self.down)[operator]
        assert isinstance(found, Convolutions | StridedSkips)
        return found.discrete(width, inputs)


def _mixture(modules: nn.ModuleDict, wanted: Wanted | None, x: Tensor, half: Tensor | None) -> Tensor | None:
    """Eq. 2: the sum over operators and widths of weight x output; a width's missing channels are zeros."""
    if wanted is None:
        return None
    total: Tensor | None = None
    for name, weight in wanted.operators:
        if name not in modules:
            total = plus(total, x, weight)
            continue
        for width, share in wanted.widths:
            total = plus(total, modules[name](x, half, width), times(weight, share))
    return total
