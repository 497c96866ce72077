"""What a network costs, counted without torch and before anything is allocated.

A MAC is one multiply-accumulate; fvcore and the papers print MACs under the name FLOPs. Only convolutions (and matrix
products) are counted here, as the exact figures of the papers' networks are; `bench profile` counts the rest too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .errors import UsageError
from .sizes import Size

MAX_PARAMS = 500_000_000
MAX_MACS = 10**13
MAX_ACTIVATION_BYTES = 16 * 2**30
BYTES_PER_ELEMENT = 4


@dataclass(frozen=True)
class Stage:
    """One named part of a network: parameters, convolution MACs, and the most elements one of its layers holds."""

    name: str
    params: int
    conv_macs: int
    layer_elements: int


@dataclass(frozen=True)
class Cost:
    """Parameters, convolution MACs and a lower bound of the activation memory at one input size, batch 1.

    `activation_bytes` is the input and output of the largest single layer, in fp32; the network needs at least this.
    """

    params: int
    conv_macs: int
    activation_bytes: int

    @classmethod
    def of(cls, stages: Iterable[Stage]) -> Cost:
        parts = list(stages)
        return cls(
            params=sum(s.params for s in parts),
            conv_macs=sum(s.conv_macs for s in parts),
            activation_bytes=BYTES_PER_ELEMENT * max((s.layer_elements for s in parts), default=0),
        )

    def check(self, *, network: str) -> None:
        """Raise `UsageError` where the network would be too large to build or to run."""
        limits = (
            ("parameters", self.params, MAX_PARAMS, "", "narrow the network"),
            (
                "multiply-accumulates",
                self.conv_macs,
                MAX_MACS,
                "",
                "narrow the network or use a smaller input",
            ),
            (
                "activation memory",
                self.activation_bytes,
                MAX_ACTIVATION_BYTES,
                " bytes",
                "narrow the network or use a smaller input",
            ),
        )
        for what, value, limit, unit, fix in limits:
            if value > limit:
                raise UsageError(
                    f"too large: {what}",
                    where=network,
                    got=f"{value:,}{unit}",
                    allowed=f"at most {limit:,}{unit}",
                    fix=fix,
                )


class StageCounter:
    """Adds up a stage, layer by layer; follows the map's size as strides shrink it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._params = 0
        self._macs = 0
        self._elements = 0

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        size: Size,
        *,
        stride: int = 1,
        bias: bool = False,
        norm: bool = True,
    ) -> Size:
        """Count one "same"-padded convolution (and its BatchNorm) on a map of `size`; returns the output's size."""
        out = shrink(size, stride)
        weights = in_channels * out_channels * kernel[0] * kernel[1]
        self._params += weights + out_channels * (int(bias) + 2 * int(norm))
        self._macs += weights * out.height * out.width
        elements = in_channels * size.height * size.width + out_channels * out.height * out.width
        self._elements = max(self._elements, elements)
        return out

    def resize(self, channels: int, size: Size, out: Size) -> None:
        """Count the maps of a resize, which works on them both and has no weights."""
        elements = channels * (size.height * size.width + out.height * out.width)
        self._elements = max(self._elements, elements)

    def norm(self, channels: int) -> None:
        """Count a BatchNorm that stands by itself."""
        self._params += 2 * channels

    def stage(self) -> Stage:
        return Stage(self.name, self._params, self._macs, self._elements)


def shrink(size: Size, stride: int) -> Size:
    """Size after a strided layer with "same" padding: rounded up."""
    return Size(-(-size.height // stride), -(-size.width // stride))
