"""The discrete FasterSeg network (Chen et al., ICLR 2020, Fig. 3 to 6): stem, shared layers, branches, head.

Every resize is bilinear with aligned corners, as in the released training code. Resizes go to the partner's size, not
by a factor, so that sizes that are no multiple of 32 (CamVid's 720 x 960) work; at multiples of 32 the two are the
same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct, resize, resize_like
from .genotype import STEM_RATE, FasterSegGenotype, PlacedLayer, classifier_mid, stem_channels


class Conv(nn.Sequential):
    """One or two 3x3 convolutions, each with BatchNorm and ReLU; stride and channel change in the first.

    The release calls this class a residual; nothing is added.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, repeats: int) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, 3, stride),
            *(ConvNormAct(out_channels, out_channels, 3) for _ in range(repeats - 1)),
        )


class ZoomedConv(nn.Module):
    """Convolutions at half the resolution (section 3.1.2): shrink, convolve, resize back, ReLU last.

    At stride 2 the last resize is left out: the shrunk map is the output.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, repeats: int) -> None:
        super().__init__()
        self.stride = stride
        self.convs = nn.Sequential(
            *(
                ConvNormAct(in_channels if i == 0 else out_channels, out_channels, 3, act=i < repeats - 1)
                for i in range(repeats)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        half = (max(1, x.shape[-2] // 2), max(1, x.shape[-1] // 2))
        out = self.convs(resize(x, half, align_corners=True))
        if self.stride == 1:
            out = resize_like(out, x, align_corners=True)
        return F.relu(out)


class StridedSkip(nn.Module):
    """A skip of stride 2: 1x1 convolutions on the even and on the odd pixels, concatenated, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # An odd side has one odd pixel too few: one row or column of zeros stands in for it. (`pad` would do the same,
        # but also where nothing is to be added, by an operator that no other network's model has.)
        height, width = x.shape[-2:]
        shifted = x[:, :, 1:, 1:]
        if height % 2:
            shifted = torch.cat([shifted, torch.zeros_like(x[:, :, :1, 1:])], dim=2)
        if width % 2:
            shifted = torch.cat([shifted, torch.zeros_like(x[:, :, 1 - height % 2 :, :1])], dim=3)
        return F.relu(self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1)))


def build_layer(placed: PlacedLayer) -> nn.Module:
    """The module of one cell."""
    layer = placed.layer
    if layer.operator == "skip":
        return StridedSkip(placed.in_channels, placed.out_channels)
    kind = ZoomedConv if layer.operator.startswith("zoomed") else Conv
    repeats = 2 if layer.operator.endswith("x2") else 1
    return kind(placed.in_channels, placed.out_channels, layer.stride, repeats)


class Merge(nn.Module):
    """One step up: reduce the coarse map by 1x1, resize, concatenate the branch's own finer map, refine by 3x3."""

    def __init__(self, coarse: int, fine: int, out: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(coarse, out, 1)
        self.refine = ConvNormAct(out + fine, out, 3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = resize_like(self.reduce(coarse), fine, align_corners=True)
        return self.refine(torch.cat([up, fine], dim=1))


class Branch(nn.Module):
    """One branch's own layers, and its way back up to 1/8."""

    def __init__(self, genotype: FasterSegGenotype, index: int) -> None:
        super().__init__()
        placed = genotype.placed_branch(index)
        self.layers = nn.ModuleList(build_layer(p) for p in placed)
        self.rates = tuple(p.rate_out for p in placed)
        shared = genotype.placed_shared()
        self.rate_in = shared[-1].rate_out if shared else STEM_RATE
        channels = genotype.branch_channels(index)
        self.merges = nn.ModuleDict()
        rate, coarse = max(channels), channels[max(channels)]
        while rate > STEM_RATE:
            out = genotype.head_width * rate // 2
            self.merges[f"from{rate}"] = Merge(coarse, channels[rate // 2], out)
            rate, coarse = rate // 2, out

    def maps(self, shared: dict[int, Tensor]) -> dict[int, Tensor]:
        """The last map at each rate, keyed by rate."""
        maps = dict(shared)
        x = maps[self.rate_in]
        for layer, rate in zip(self.layers, self.rates, strict=True):
            x = maps[rate] = layer(x)
        return maps

    def merge(self, maps: dict[int, Tensor]) -> Tensor:
        """All maps into one at 1/8."""
        rate = max(maps)
        x = maps[rate]
        while rate > STEM_RATE:
            x = self.merges[f"from{rate}"](x, maps[rate // 2])
            rate //= 2
        return x


class Classifier(nn.Sequential):
    """3x3 convolution with BatchNorm and ReLU, then 1x1 to the classes."""

    def __init__(self, in_channels: int, classes: int) -> None:
        mid = classifier_mid(in_channels)
        super().__init__(ConvNormAct(in_channels, mid, 3), nn.Conv2d(mid, classes, 1))


class Fusion(nn.Module):
    """1x1 convolution over both branches. With training heads it also holds the release's channel attention.

    The release counts and never runs that attention; it is here so that parameter counts and weights of training
    networks agree, and it is left out of inference networks.
    """

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        self.conv = ConvNormAct(channels, channels, 1)
        if attention:
            self.unused_attention = nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False), nn.Conv2d(channels, channels, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FasterSegNet(nn.Module):
    """The discrete network that a `FasterSegGenotype` describes.

    Takes N x 3 x H x W, returns logits N x classes x H x W; in training mode with training heads a tuple of three:
    the main logits and those of the auxiliary heads at 1/16 and 1/32 (loss weight 0.2 each), all resized to H x W.
    """

    def __init__(self, genotype: FasterSegGenotype, *, training_heads: bool = False) -> None:
        super().__init__()
        first, rest = stem_channels(genotype.stem_width)
        self.stem = nn.Sequential(
            ConvNormAct(3, first, 3, 2), Conv(first, rest, 2, repeats=2), Conv(rest, rest, 2, repeats=2)
        )
        placed = genotype.placed_shared()
        self.shared = nn.ModuleList(build_layer(p) for p in placed)
        self.shared_rates = tuple(p.rate_out for p in placed)
        self.branches = nn.ModuleList(Branch(genotype, i) for i in range(len(genotype.branches)))
        fused = genotype.head_width * STEM_RATE * len(genotype.branches)
        self.fusion = Fusion(fused, attention=training_heads)
        self.classifier = Classifier(fused, genotype.classes)
        self.auxiliary = nn.ModuleDict()
        if training_heads:
            for rate in (16, 32):
                channels = sum(genotype.branch_channels(i).get(rate, 0) for i in range(len(genotype.branches)))
                if channels:
                    self.auxiliary[f"rate{rate}"] = Classifier(channels, genotype.classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.stem(image)
        shared = {STEM_RATE: x}
        for layer, rate in zip(self.shared, self.shared_rates, strict=True):
            x = shared[rate] = layer(x)
        branches = [branch for branch in self.branches if isinstance(branch, Branch)]
        maps = [branch.maps(shared) for branch in branches]
        merged = [branch.merge(m) for branch, m in zip(branches, maps, strict=True)]
        logits = self._logits(self.classifier, self.fusion(torch.cat(merged, dim=1)), image)
        if not (self.training and self.auxiliary):
            return logits
        extra = [self._logits(head, self._at_rate(maps, key), image) for key, head in self.auxiliary.items()]
        return (logits, *extra)

    @staticmethod
    def _at_rate(maps: list[dict[int, Tensor]], key: str) -> Tensor:
        """The branches' maps at the rate of an auxiliary head, side by side.

        A zoomed layer of stride 2 rounds an odd side down and a strided convolution rounds it up.
        """
        rate = int(key.removeprefix("rate"))
        there = [m[rate] for m in maps if rate in m]
        return torch.cat([resize_like(x, there[0], align_corners=True) for x in there], dim=1)

    @staticmethod
    def _logits(head: nn.Module, x: Tensor, image: Tensor) -> Tensor:
        return resize_like(head(x), image, align_corners=True)
