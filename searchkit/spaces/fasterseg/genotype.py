"""What the FasterSeg search chooses: per layer an operator, a width and where to halve the resolution, per branch.

Source: Chen et al., ICLR 2020, section 3 and appendix A; decoded networks of the public release. A width is the number
of channels at full resolution: a layer at rate 1/16 of width 4 has 64 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...cost import Stage, StageCounter
from ...genotype import EXACT, SCHEMA, Genotype, Part, Provenance
from ...sizes import Size, SizeRule

Operator = Literal["skip", "conv", "conv_x2", "zoomed_conv", "zoomed_conv_x2"]
Width = Annotated[int, Field(ge=1, le=256)]

STEM_RATE, MAX_RATE = 8, 32
WIDTHS = (4, 6, 8, 10, 12)


class FasterSegLayer(Part):
    """One cell of the discrete network."""

    operator: Operator
    width: Width = Field(description="output channels divided by the output rate (8, 16 or 32)")
    stride: Annotated[Literal[1, 2], EXACT]


Layers = tuple[FasterSegLayer, ...]


@dataclass(frozen=True)
class PlacedLayer:
    """A layer with the channels and rates that follow from its place."""

    layer: FasterSegLayer
    in_channels: int
    out_channels: int
    rate_in: int
    rate_out: int


class FasterSegGenotype(Genotype):
    """A discrete network of the FasterSeg space."""

    space: Literal["fasterseg"]
    stem_width: Width = Field(description="width of the three stem layers, which are not searched")
    head_width: Width = Field(description="width of the maps that the branches are merged at")
    shared: Annotated[Layers, Field(max_length=64)] = Field(description="layers that both branches begin with")
    branches: Annotated[tuple[Annotated[Layers, Field(max_length=64)], ...], Field(min_length=1, max_length=2)] = Field(
        description="each branch's own layers, behind the shared ones"
    )

    # Maps at 1/32 must not vanish; sizes in between are reached by resizing to the partner's size.
    size_rule: ClassVar[SizeRule] = SizeRule(multiple=8, minimum=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        starts = {branch[:1] for branch in self.branches}
        if len(self.branches) == 2 and len(starts) == 1 and starts != {()}:
            raise ValueError(
                "branches: both begin with the same layer; equal networks must have one spelling, "
                "so move it to `shared`"
            )
        if len(self.branches) == 1 and self.shared:
            raise ValueError("shared: there is one branch only, so all layers belong to it; leave `shared` empty")
        for index, branch in enumerate(self.branches):
            self._check_branch(index, (*self.shared, *branch))
        return self

    def _check_branch(self, branch: int, layers: Layers) -> None:
        for index, layer in enumerate(layers):
            if layer.operator == "skip" and layer.stride == 1:
                raise ValueError(
                    f"{self._path(branch, index)}: a skip of stride 1 is no layer of a discrete network: leave it out"
                )
            if layer.stride == 2 and final_rate(layers[:index]) == MAX_RATE:
                raise ValueError(
                    f"{self._path(branch, index)}.stride: the third of stride 2 in branch {branch}, which is at "
                    f"1/{MAX_RATE} already: got 2, allowed 1"
                )
        last = layers[-1].width if layers else self.stem_width
        if final_rate(layers) == STEM_RATE and last != self.head_width:
            path = f"{self._path(branch, len(layers) - 1)}.width" if layers else "stem_width"
            raise ValueError(
                f"{path}: branch {branch} ends at 1/8 and is merged as it is, so its last width must be head_width: "
                f"got {last}, allowed {self.head_width}"
            )

    def _path(self, branch: int, index: int) -> str:
        """Where the file has layer `index` of a branch, counted from the first shared one."""
        own = index - len(self.shared)
        return f"shared[{index}]" if own < 0 else f"branches[{branch}][{own}]"

    def placed_shared(self) -> list[PlacedLayer]:
        return place(self.shared, self.stem_width)

    def placed_branch(self, index: int) -> list[PlacedLayer]:
        """The layers of one branch behind the shared ones."""
        layers = (*self.shared, *self.branches[index])
        return place(layers, self.stem_width)[len(self.shared) :]

    def branch_channels(self, index: int) -> dict[int, int]:
        """Channels of the last map that a branch has at each rate, shared layers and stem included."""
        channels = {STEM_RATE: self.stem_width * STEM_RATE}
        for placed in (*self.placed_shared(), *self.placed_branch(index)):
            channels[placed.rate_out] = placed.out_channels
        return channels

    def stage_costs(self, size: Size) -> Iterator[Stage]:
        return _stage_costs(self, size)


def final_rate(layers: Layers) -> int:
    """Rate of the last layer: 8, 16 or 32 in a valid genotype."""
    return STEM_RATE * 2 ** sum(layer.stride == 2 for layer in layers)


def place(layers: Layers, stem_width: int) -> list[PlacedLayer]:
    """Give every layer its channels and rates, from the stem on."""
    placed = []
    rate, channels = STEM_RATE, stem_width * STEM_RATE
    for layer in layers:
        rate_out = rate * layer.stride
        out = layer.width * rate_out
        placed.append(PlacedLayer(layer, channels, out, rate, rate_out))
        rate, channels = rate_out, out
    return placed


def stem_channels(stem_width: int) -> tuple[int, int]:
    """Channels after the first and after the other stem layers. The last does not double, against appendix A."""
    return 4 * stem_width, 8 * stem_width


def classifier_mid(in_channels: int) -> int:
    """Channels between the 3x3 and the 1x1 convolution of a classifier: halved above 256, as in the release."""
    return in_channels if in_channels <= 256 else in_channels // 2


def count_layer(counter: StageCounter, placed: PlacedLayer, size: Size) -> Size:
    """Count one cell on a map of `size`; returns the output's size."""
    layer, wide = placed.layer, placed.out_channels
    if layer.operator == "skip":
        for _ in range(2):
            out = counter.conv(placed.in_channels, wide // 2, (1, 1), size, stride=2)
        return out
    zoomed = layer.operator.startswith("zoomed")
    inner = Size(max(1, size.height // 2), max(1, size.width // 2)) if zoomed else size
    out = counter.conv(placed.in_channels, wide, (3, 3), inner, stride=1 if zoomed else layer.stride)
    if layer.operator.endswith("x2"):
        counter.conv(wide, wide, (3, 3), out)
    return size if zoomed and layer.stride == 1 else out


def _stage_costs(genotype: FasterSegGenotype, size: Size) -> Iterator[Stage]:
    counter = StageCounter("stem")
    first, rest = stem_channels(genotype.stem_width)
    image, size = size, counter.conv(3, first, (3, 3), size, stride=2)
    for in_channels in (first, rest):
        size = counter.conv(in_channels, rest, (3, 3), size, stride=2)
        counter.conv(rest, rest, (3, 3), size)
    yield counter.stage()
    counter = StageCounter("shared")
    shared_sizes = {STEM_RATE: size}
    for placed in genotype.placed_shared():
        size = shared_sizes[placed.rate_out] = count_layer(counter, placed, size)
    yield counter.stage()
    shared_size = size
    sizes: list[dict[int, Size]] = []
    for index in range(len(genotype.branches)):
        counter, size = StageCounter(f"branch {index}"), shared_size
        seen = dict(shared_sizes)
        for placed in genotype.placed_branch(index):
            size = count_layer(counter, placed, size)
            seen[placed.rate_out] = size
        sizes.append(seen)
        yield counter.stage()
    yield _head_cost(genotype, image, sizes)


def _head_cost(genotype: FasterSegGenotype, image: Size, sizes: list[dict[int, Size]]) -> Stage:
    counter = StageCounter("head")
    for index, seen in enumerate(sizes):
        channels = genotype.branch_channels(index)
        rate = max(channels)
        out = channels[rate]
        while rate > STEM_RATE:
            merged = genotype.head_width * rate // 2
            counter.conv(out, merged, (1, 1), seen[rate])
            rate //= 2
            counter.conv(merged + channels[rate], merged, (3, 3), seen[rate])
            out = merged
    fused = genotype.head_width * STEM_RATE * len(genotype.branches)
    mid, size = classifier_mid(fused), sizes[0][STEM_RATE]
    counter.conv(fused, fused, (1, 1), size)
    counter.conv(fused, mid, (3, 3), size)
    counter.conv(mid, genotype.classes, (1, 1), size, bias=True, norm=False)
    counter.resize(genotype.classes, size, image)
    return counter.stage()


def halvings(rng: Random, count: int, length: int) -> set[int]:
    """`count` places for the layers of stride 2, none at the very start."""
    return set(rng.sample(range(1, length), count))


def sample(rng: Random) -> FasterSegGenotype:
    """A random network: a shared start, one branch to 1/32 and one to 1/16 or 1/8, operators and widths at random."""

    def layer(stride: int, width: int | None = None) -> FasterSegLayer:
        operators: tuple[Operator, ...] = ("conv", "conv_x2", "zoomed_conv", "zoomed_conv_x2")
        if stride == 2:
            operators = ("skip", *operators)
        return FasterSegLayer(
            operator=rng.choice(operators), width=width or rng.choice(WIDTHS), stride=2 if stride == 2 else 1
        )

    branches = []
    for count in (2, rng.choice((1, 0))):
        length = rng.randint(5, 12)
        downs = halvings(rng, count, length)
        branches.append([layer(2 if i in downs else 1, 8 if i == length - 1 else None) for i in range(length)])
    # The branches must not begin with one and the same layer.
    branches[1][0] = FasterSegLayer(operator="conv", width=4, stride=1)
    branches[0][0] = FasterSegLayer(operator="zoomed_conv", width=4, stride=1)
    return FasterSegGenotype(
        schema=SCHEMA,
        space="fasterseg",
        classes=19,
        stem_width=8,
        head_width=8,
        shared=tuple(layer(1) for _ in range(rng.randint(0, 4))),
        branches=(tuple(branches[0]), tuple(branches[1])),
        provenance=Provenance(name="sampled", strategy="random"),
    )
