"""Stem, merges and heads of the FasterSeg supernet; the student's and the teacher's widths share their kernels.

Modules are those of `network.py`, each of whose `ConvNormAct` is a superkernel here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ...blocks import resize_like
from ...choices import Cuts
from ._superkernels import Superkernel, prefixed
from .genotype import STEM_RATE, classifier_mid, stem_channels
from .search_space import RATES


class Stem(nn.ModuleList):
    """Five 3x3 convolutions down to 1/8, at the width of the student or of the teacher."""

    def __init__(self, widths: Collection[int]) -> None:
        first = {width: stem_channels(width)[0] for width in widths}
        rest = {width: stem_channels(width)[1] for width in widths}
        a, b = max(first.values()), max(rest.values())
        super().__init__(
            [
                Superkernel((3,), first, 3, 2),
                Superkernel((a,), rest, 3, 2),
                Superkernel((b,), rest, 3),
                Superkernel((b,), rest, 3, 2),
                Superkernel((b,), rest, 3),
            ]
        )

    def forward(self, image: Tensor, width: int) -> Tensor:
        x = image
        for conv in self:
            x = conv(x, width)
        return x

    def discrete(self, width: int) -> dict[str, Tensor]:
        """The state dict of the discrete stem."""
        found: dict[str, Tensor] = {}
        inputs = 3
        for name, conv in zip(("0.", "1.0.", "1.1.", "2.0.", "2.1."), self, strict=True):
            assert isinstance(conv, Superkernel)
            found |= prefixed(name, conv.discrete(width, (inputs,)))
            inputs = conv.norms.of(width).num_features
        return found


class SuperMerge(nn.Module):
    """One step up: `Merge` of the discrete network.

    Args:
        rate: index (1 or 2) of the coarse map.
        coarse, fine: the most channels of both maps.
        widths: of the head.
    """

    def __init__(self, rate: int, coarse: int, fine: int, widths: Collection[int]) -> None:
        super().__init__()
        merged = {width: width * RATES[rate - 1] for width in widths}
        self.reduce = Superkernel((coarse,), merged, 1)
        self.refine = Superkernel((max(merged.values()), fine), merged, 3)

    def forward(self, coarse: Tensor, fine: Tensor, width: int) -> Tensor:
        up = resize_like(self.reduce(coarse, width), fine, align_corners=True)
        return self.refine((up, fine), width)

    def cut(self, prefix: str, coarse: int, fine: int, widths: Collection[int], cuts: Cuts) -> None:
        """Keep the first channels of both maps."""
        self.reduce.cut(f"{prefix}reduce.", (coarse,), widths, cuts)
        self.refine.cut(f"{prefix}refine.", (self.reduce.norms.most, fine), widths, cuts)

    def discrete(self, width: int, coarse: int, fine: int) -> dict[str, Tensor]:
        """The state dict of the discrete merge."""
        merged = self.reduce.norms.of(width).num_features
        refine = self.refine.discrete(width, (merged, fine))
        return prefixed("reduce.", self.reduce.discrete(width, (coarse,))) | prefixed("refine.", refine)


class SuperClassifier(nn.Module):
    """3x3 convolution, then 1x1 to the classes: `Classifier` of the discrete network.

    Args:
        branches: how many maps of the head's width it reads side by side.
    """

    def __init__(self, branches: int, widths: Collection[int], classes: int) -> None:
        super().__init__()
        inputs = {width: branches * width * STEM_RATE for width in widths}
        mid = {width: classifier_mid(count) for width, count in inputs.items()}
        self.mid = Superkernel((max(inputs.values()),), mid, 3)
        self.classes = nn.Conv2d(max(mid.values()), classes, 1)

    def forward(self, x: Tensor, width: int) -> Tensor:
        y = self.mid(x, width)
        return nn.functional.conv2d(y, self.classes.weight[:, : y.shape[1]], self.classes.bias)

    def discrete(self, width: int, inputs: int) -> dict[str, Tensor]:
        """The state dict of the discrete classifier."""
        mid = self.mid.norms.of(width).num_features
        assert self.classes.bias is not None
        last = {"1.weight": self.classes.weight[:, :mid], "1.bias": self.classes.bias}
        return prefixed("0.", self.mid.discrete(width, (inputs,))) | last


class PairHead(nn.Module):
    """Fusion of two branches, and their classifier."""

    def __init__(self, widths: Collection[int], classes: int) -> None:
        super().__init__()
        fused = {width: 2 * width * STEM_RATE for width in widths}
        branch = max(widths) * STEM_RATE
        self.fusion = Superkernel((branch, branch), fused, 1)
        self.classifier = SuperClassifier(2, widths, classes)

    def forward(self, coarse: Tensor, fine: Tensor, width: int) -> Tensor:
        """Of the branch that ends at the lower resolution, and of the other."""
        return self.classifier(self.fusion((coarse, fine), width), width)

    def discrete(self, width: int) -> dict[str, Tensor]:
        """Entries of the discrete network's state dict."""
        branch = width * STEM_RATE
        found = prefixed("fusion.conv.", self.fusion.discrete(width, (branch, branch)))
        return found | prefixed("classifier.", self.classifier.discrete(width, 2 * branch))


def weighted_logits(logits: Mapping[int, Tensor], weights: Mapping[int, float | Tensor]) -> Tensor:
    """Of the pairs that are there, by how much each is chosen."""
    if len(logits) == 1:
        (found,) = logits.values()
        return found
    return torch.stack([weights[pair] * x for pair, x in logits.items()]).sum(dim=0)
