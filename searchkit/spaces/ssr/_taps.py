"""One convolution of a supernet layer, 3x1 or 1x3 with dilation, as tensors alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_aten = torch.ops.aten


@dataclass(frozen=True)
class Taps:
    """A 3x1 (`axis` 0) or 1x3 (`axis` 1) convolution at one input size."""

    axis: int
    dilation: int
    narrow: bool

    @classmethod
    def at(cls, axis: int, dilation: int, x: Tensor) -> Taps:
        """`narrow`: the outer taps see nothing but padding."""
        return cls(axis, dilation, dilation >= x.shape[2 + axis])

    def weight(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The taps that are computed."""
        if self.narrow:
            weight = weight.narrow(2 + self.axis, 1, 1)
        return weight.to(dtype=dtype, memory_format=torch.channels_last)

    def _geometry(self) -> tuple[list[int], list[int]]:
        if self.narrow:
            return [0, 0], [1, 1]
        padding, dilation = [0, 0], [1, 1]
        padding[self.axis] = dilation[self.axis] = self.dilation
        return padding, dilation

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        padding, dilation = self._geometry()
        return torch.convolution(x, weight, None, [1, 1], padding, dilation, False, [0, 0], 1)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, need: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
        """Gradients of the input and of the weight, as needed."""
        padding, dilation = self._geometry()
        found = _aten.convolution_backward(
            grad, x, weight, None, [1, 1], padding, dilation, False, [0, 0], 1, [*need, False]
        )
        return found[0], found[1]

    def widened(self, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient of all taps, in the weight's type."""
        if not self.narrow:
            return grad.to(weight.dtype)
        full = torch.zeros_like(weight)
        full.narrow(2 + self.axis, 1, 1).copy_(grad)
        return full
