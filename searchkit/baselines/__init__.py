"""Fixed networks to compare with, one file each: paper, published figures, the `nn.Module`.

Adding one is adding one file that defines `BASELINE`; its file name is its name (`fast_scnn.py` is `fast-scnn`). The
figures that it is held to, and what papers print of it, go into `bench/published.toml`, which the tests read.
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
class Baseline:
    """A network whose shape is fixed.

    Args:
        title: the name that papers print.
        paper: authors, year, venue.
        build: number of classes -> network in evaluation form (training-only heads left out), logits NCHW.
        size_rule: the input sizes it takes.
    """

    title: str
    paper: str
    build: Callable[[int], nn.Module]
    size_rule: SizeRule = field(default_factory=SizeRule)


BASELINES: Registry[Baseline] = Registry("searchkit.baselines", "BASELINE", "baseline")
