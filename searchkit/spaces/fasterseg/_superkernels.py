"""Convolutions that serve several widths, and how they are cut.

Source: Chen et al., ICLR 2020, section 3.1.3: a width takes the first channels of one kernel, out of which and into
which; each width has a BatchNorm of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...choices import Cuts


class Norms(nn.ModuleDict):
    """A BatchNorm a width.

    Args:
        channels: of each width.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__({str(width): nn.BatchNorm2d(count) for width, count in channels.items()})

    def of(self, width: int) -> nn.BatchNorm2d:
        """The one of a width."""
        norm = self[str(width)]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @property
    def most(self) -> int:
        """Channels of the widest."""
        return max(self.of(int(width)).num_features for width in self)

    def normalised(self, x: Tensor, width: int) -> Tensor:
        """BatchNorm of that width."""
        found: Tensor = self.of(width)(x)
        return found

    def keep(self, widths: Collection[int]) -> None:
        """Remove all but these widths."""
        for name in list(self):
            if int(name) not in widths:
                del self[name]


class Superkernel(nn.Module):
    """Convolution without bias, BatchNorm and ReLU, at one of several widths.

    Args:
        inputs: the most channels of each of the maps that it reads side by side; mostly one.
        channels: output channels of each width.
    """

    def __init__(self, inputs: Sequence[int], channels: Mapping[int, int], kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.conv = nn.Conv2d(sum(inputs), max(channels.values()), kernel, stride, padding=kernel // 2, bias=False)
        self.norms = Norms(channels)

    def forward(self, x: Tensor | Sequence[Tensor], width: int, *, act: bool = True) -> Tensor:
        """Of maps with the first channels of `inputs`, or fewer."""
        maps = (x,) if isinstance(x, Tensor) else tuple(x)
        weight = self.weight_of(width, [part.shape[1] for part in maps])
        joined = maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)
        y = self.norms.normalised(F.conv2d(joined, weight, None, self.conv.stride, self.conv.padding), width)
        return F.relu(y, inplace=True) if act else y

    def weight_of(self, width: int, inputs: Sequence[int]) -> Tensor:
        """The part of the kernel that a width uses, for maps of so many channels."""
        rows = self.conv.weight[: self.norms.of(width).num_features]
        if tuple(inputs) == self.inputs:
            return rows
        if len(inputs) == 1:
            return rows[:, : inputs[0]]
        parts = rows.split(self.inputs, dim=1)
        return torch.cat([part[:, :count] for part, count in zip(parts, inputs, strict=True)], dim=1)

    def cut(self, prefix: str, inputs: Sequence[int], widths: Collection[int], cuts: Cuts) -> None:
        """Keep these widths, and the first channels of each map that is read; `prefix` is that of the state dict."""
        self.norms.keep(widths)
        starts = [sum(self.inputs[:index]) for index in range(len(self.inputs))]
        kept = torch.cat([torch.arange(start, start + count) for start, count in zip(starts, inputs, strict=True)])
        cut_conv(self.conv, prefix, self.norms.most, kept, cuts)
        self.inputs = tuple(inputs)

    def discrete(self, width: int, inputs: Sequence[int]) -> dict[str, Tensor]:
        """The state dict of a `ConvNormAct` that does the same."""
        return {"0.weight": self.weight_of(width, inputs)} | prefixed("1.", self.norms.of(width).state_dict())


def cut_conv(conv: nn.Conv2d, prefix: str, rows: int, columns: Tensor, cuts: Cuts) -> None:
    """Keep the first output channels and some input channels of a convolution, and note it where any is removed."""
    wholes = rows == conv.out_channels, len(columns) == conv.in_channels
    if all(wholes):
        return
    columns = columns.to(conv.weight.device)
    kept = conv.weight.detach()[:rows, columns].clone(memory_format=torch.contiguous_format)
    conv.weight = nn.Parameter(kept, requires_grad=conv.weight.requires_grad)
    conv.out_channels, conv.in_channels = rows, len(columns)
    cuts[f"{prefix}conv.weight"] = (
        None if wholes[0] else torch.arange(rows, device=columns.device),
        None if wholes[1] else columns,
        None,
        None,
    )


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under longer names."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}
