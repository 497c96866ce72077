"""Fixed networks to compare with, one file each: paper, published figures, the `nn.Module`.

Adding one is adding one file that defines `BASELINE`; its file name is its name (`fast_scnn.py` is `fast-scnn`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..registry import Registry
from ..sizes import SizeRule

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Reference:
    """Figures that a baseline is held to by a test, and whose they are.

    Args:
        source: the paper, or the public implementation, that the figures are of.
        params: parameters of the inference network.
        conv_macs: multiply-accumulates of convolutions and matrix products at `size`; None where none are known.
        size: height and width of the input, in pixels.
        tolerance: relative; how far our network may be off.
    """

    source: str
    params: int
    conv_macs: int | None = None
    size: tuple[int, int] = (512, 1024)
    tolerance: float = 0.005


@dataclass(frozen=True)
class Baseline:
    """A network whose shape is fixed.

    Args:
        title: the name that papers print.
        paper: authors, year, venue.
        build: number of classes -> network in evaluation form (training-only heads left out), logits NCHW.
        size_rule: the input sizes it takes.
        references: figures it must agree with.
    """

    title: str
    paper: str
    build: Callable[[int], nn.Module]
    size_rule: SizeRule = field(default_factory=SizeRule)
    references: tuple[Reference, ...] = ()


BASELINES: Registry[Baseline] = Registry("searchkit.baselines", "BASELINE", "baseline")
