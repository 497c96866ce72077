"""What the DCNAS search chooses: which fusion modules there are, what each reads, and its operator.

Source: Zhang et al., CVPR 2021, section 3.1 and Fig. 1. A place is a layer and a rate: the rates are 1/4, 1/8, 1/16 and
1/32, at widths F, 2F, 4F and 8F. Layer 0 is the stem's pyramid, so that L layers have 8L(L + 1) possible connections.

The paper leaves open, and here it is: the stem, a chain of strided 3x3 convolutions, as deep as something reads it; the
shape alignment, a 1x1 convolution and BatchNorm on the coarser of the two maps, behind average pooling (3x3, stride 2)
on the way down, before a bilinear resize on the way up, and nothing between equal rates; the mean of what was aligned,
as the search has weights that sum to 1; MobileNetV3's block with hard-swish, without squeeze-and-excitation; a head
that adds the last layer's four maps at 1/4, each through a 1x1 convolution, and classifies there. A graph may be
written in several grids; that layers are numbered without gaps is all that is done about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ...cost import Stage, StageCounter, shrink
from ...genotype import EXACT, SCHEMA, Genotype, Part, Provenance
from ...sizes import Size, SizeRule

Rate = Annotated[Literal[4, 8, 16, 32], EXACT]
Kernel = Annotated[Literal[3, 5, 7], EXACT]
Expansion = Annotated[Literal[3, 6], EXACT]
Width = Annotated[int, Field(ge=1, le=1024)]

RATES: tuple[Rate, ...] = (4, 8, 16, 32)
KERNELS: tuple[Kernel, ...] = (3, 5, 7)
EXPANSIONS: tuple[Expansion, ...] = (3, 6)
MAX_LAYERS = 32

Source = tuple[Annotated[int, Field(ge=0, le=MAX_LAYERS)], Rate]


class Place(NamedTuple):
    """Where a map is made: by the stem (layer 0) or by the fusion module of a layer, and at which rate."""

    layer: int
    rate: Rate

    @property
    def key(self) -> str:
        """As names of choices and of submodules have it: `2_8` is layer 2 at 1/8."""
        return f"{self.layer}_{self.rate}"

    def __str__(self) -> str:
        return f"{self.layer}@1/{self.rate}"


class DCNASModule(Part):
    """One fusion module: a shape-alignment layer over its inputs, and the operator of its mixture layer."""

    layer: int = Field(ge=1, le=MAX_LAYERS)
    rate: Rate = Field(description="of its output: 8 is an eighth of the image's height and width")
    inputs: tuple[Source, ...] = Field(
        min_length=1, max_length=4 * MAX_LAYERS, description="(layer, rate) of what it reads; layer 0 is the stem"
    )
    kernel: Kernel = Field(description="of the depthwise convolution")
    expansion: Expansion = Field(description="inner channels as a multiple of the outer ones")

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.layer, self.rate)

    @property
    def sources(self) -> tuple[Place, ...]:
        """What it reads."""
        return tuple(Place(*source) for source in self.inputs)


class DCNASGenotype(Genotype):
    """A discrete network of the DCNAS space."""

    space: Literal["dcnas"]
    stem: Width = Field(description="output channels of the first convolution, at 1/2")
    channels: Width = Field(description="F: channels at 1/4; 2F at 1/8, 4F at 1/16, 8F at 1/32")
    head: Width = Field(description="channels at which the maps of the last layer are added")
    modules: tuple[DCNASModule, ...] = Field(min_length=len(RATES), max_length=len(RATES) * MAX_LAYERS)

    # Every rate is reached by halving and rounding up, so any size will do whose 1/32 map has a pixel of its own.
    size_rule: ClassVar[SizeRule] = SizeRule(multiple=1, minimum=32)

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        self._check_order()
        places = {module.place for module in self.modules}
        for index, module in enumerate(self.modules):
            _check_inputs(f"modules[{index}]", module, places)
        last = self.modules[-1].layer
        missing = [f"{Place(last, rate)}" for rate in RATES if Place(last, rate) not in places]
        if missing:
            raise ValueError(
                f"modules: the head reads all rates of the last layer, and there is no module {' or '.join(missing)}"
            )
        read = {source for module in self.modules for source in module.sources}
        for index, module in enumerate(self.modules):
            if module.layer < last and module.place not in read:
                raise ValueError(f"modules[{index}]: nothing reads module {module.place}: leave it out")
        return self

    def _check_order(self) -> None:
        layer, before = 0, None
        for index, module in enumerate(self.modules):
            if before is not None and module.place <= before:
                raise ValueError(
                    f"modules[{index}]: module {module.place} stands behind {before}; equal networks must have one "
                    "spelling, so modules are sorted by layer and rate, and there is one in a place"
                )
            if module.layer > layer + 1:
                allowed = f"{layer} or {layer + 1}" if layer else "1"
                raise ValueError(
                    f"modules[{index}].layer: there is no module in layer {layer + 1}; equal networks must have one "
                    f"spelling: got {module.layer}, allowed {allowed}"
                )
            layer, before = module.layer, module.place

    @property
    def layers(self) -> int:
        """L, as many as have a module."""
        return self.modules[-1].layer

    def width(self, rate: Rate) -> int:
        """Channels of the maps at a rate."""
        return width_at(self.channels, rate)

    def stem_rates(self) -> tuple[Rate, ...]:
        """The levels of the stem: down to the coarsest that a module reads."""
        deepest = max((s.rate for m in self.modules for s in m.sources if s.layer == 0), default=RATES[0])
        return tuple(rate for rate in RATES if rate <= deepest)

    def stage_costs(self, size: Size) -> Iterator[Stage]:
        return _stage_costs(self, size)


def _check_inputs(path: str, module: DCNASModule, places: set[Place]) -> None:
    before: Place | None = None
    for index, source in enumerate(module.sources):
        here = f"{path}.inputs[{index}]"
        if before is not None and source <= before:
            raise ValueError(f"{here}: inputs are sorted by layer and rate, each once: got {source} behind {before}")
        if source.layer >= module.layer:
            raise ValueError(
                f"{here}: module {module.place} reads {source}, which is in no earlier layer, so the graph could have "
                f"a cycle: got layer {source.layer}, allowed 0 to {module.layer - 1}"
            )
        if source.layer and source not in places:
            raise ValueError(f"{here}: module {module.place} reads {source}, and there is no such module")
        before = source


def width_at(channels: int, rate: int) -> int:
    """Channels at a rate: F at 1/4, doubled at each halving."""
    return channels * rate // RATES[0]


def map_size(image: Size, rate: int) -> Size:
    """Of the maps at a rate: halving and rounding up again and again, which is the same as at once."""
    return shrink(image, rate)


def count_stem(counter: StageCounter, image: Size, stem: int, channels: int, rate: Rate) -> None:
    """The convolutions that take the stem to one more rate: two to 1/4, one to each rate behind it."""
    if rate == RATES[0]:
        counter.conv(stem, channels, (3, 3), counter.conv(3, stem, (3, 3), image, stride=2), stride=2)
    else:
        wide = width_at(channels, rate)
        counter.conv(wide // 2, wide, (3, 3), map_size(image, rate // 2), stride=2)


def count_alignment(counter: StageCounter, image: Size, channels: int, source: int, target: int) -> None:
    """Shape alignment H from one rate to another; nothing where they are equal."""
    if source == target:
        return
    narrow, wide = width_at(channels, source), width_at(channels, target)
    low = map_size(image, max(source, target))
    counter.conv(narrow, wide, (1, 1), low)
    if source > target:
        counter.resize(wide, low, map_size(image, target))
    else:
        counter.resize(narrow, map_size(image, source), map_size(image, 2 * source))


def count_operator(counter: StageCounter, size: Size, channels: int, kernel: int, expansion: int) -> None:
    """A MobileNetV3 block: 1x1, depthwise, 1x1."""
    inner = channels * expansion
    counter.conv(channels, inner, (1, 1), size)
    # Each inner channel has a filter of its own; its maps are those of all channels.
    counter.conv(1, inner, (kernel, kernel), size)
    counter.resize(inner, size, size)
    counter.conv(inner, channels, (1, 1), size)


def count_head_input(counter: StageCounter, image: Size, channels: int, head: int, rate: int) -> None:
    """A map of the last layer, brought to the head's channels and to 1/4."""
    counter.conv(width_at(channels, rate), head, (1, 1), map_size(image, rate))
    if rate != RATES[0]:
        counter.resize(head, map_size(image, rate), map_size(image, RATES[0]))


def count_classifier(counter: StageCounter, image: Size, head: int, classes: int) -> None:
    """The 1x1 convolution to the classes at 1/4, and the resize to the image."""
    quarter = map_size(image, RATES[0])
    counter.conv(head, classes, (1, 1), quarter, bias=True, norm=False)
    counter.resize(classes, quarter, image)


def _stage_costs(genotype: DCNASGenotype, image: Size) -> Iterator[Stage]:
    channels = genotype.channels
    counter = StageCounter("stem")
    for rate in genotype.stem_rates():
        count_stem(counter, image, genotype.stem, channels, rate)
    yield counter.stage()
    for rate in RATES:
        counter = StageCounter(stage_name(rate))
        for module in genotype.modules:
            if module.rate == rate:
                for source in module.sources:
                    count_alignment(counter, image, channels, source.rate, rate)
                size, width = map_size(image, rate), width_at(channels, rate)
                count_operator(counter, size, width, module.kernel, module.expansion)
        yield counter.stage()
    counter = StageCounter("head")
    for rate in RATES:
        count_head_input(counter, image, channels, genotype.head, rate)
    count_classifier(counter, image, genotype.head, genotype.classes)
    yield counter.stage()


def stage_name(rate: int) -> str:
    """Of the modules at a rate, their shape alignment included."""
    return f"modules 1/{rate}"


def places_before(layer: int) -> tuple[Place, ...]:
    """All that a module of a layer may read: 4 x layer places."""
    return tuple(Place(earlier, rate) for earlier in range(layer) for rate in RATES)


def reaching(inputs: Mapping[Place, Iterable[Place]], layers: int) -> set[Place]:
    """The modules from which the head is reached, by breadth-first search backwards.

    Args:
        inputs: what each module reads.
        layers: number of the last layer, whose four modules the head reads.
    """
    front = {Place(layers, rate) for rate in RATES}
    found: set[Place] = set()
    while front:
        found |= front
        front = {source for place in front for source in inputs[place] if source.layer} - found
    return found


def arranged(modules: Mapping[Place, DCNASModule], layers: int) -> tuple[DCNASModule, ...]:
    """Those modules that reach the head, sorted, with layers numbered without gaps and inputs sorted.

    Args:
        modules: by place, all of layer `layers` among them; each reads what is there.
        layers: number of the last layer.
    """
    reach = reaching({place: module.sources for place, module in modules.items()}, layers)
    numbers = {layer: number for number, layer in enumerate(sorted({0, *(place.layer for place in reach)}))}

    def moved(module: DCNASModule) -> DCNASModule:
        inputs = tuple(sorted((numbers[source.layer], source.rate) for source in module.sources))
        return module.model_copy(update={"layer": numbers[module.layer], "inputs": inputs})

    return tuple(moved(modules[place]) for place in sorted(reach))


def sample(rng: Random) -> DCNASGenotype:
    """A random network of 1 to 5 layers and F = 8 to 32: smaller than the paper's 14 and 64, so that many are built.

    In layer after layer each module reads 1 to 3 of what stands before it; what does not reach the head is left out.
    """
    layers = rng.randint(1, 5)
    modules = {}
    for place in places_before(layers + 1)[len(RATES) :]:
        before = places_before(place.layer)
        inputs = tuple((source.layer, source.rate) for source in sorted(rng.sample(before, rng.randint(1, 3))))
        modules[place] = DCNASModule(
            layer=place.layer,
            rate=place.rate,
            inputs=inputs,
            kernel=rng.choice(KERNELS),
            expansion=rng.choice(EXPANSIONS),
        )
    channels = rng.choice((8, 12, 16, 24, 32))
    return DCNASGenotype(
        schema=SCHEMA,
        space="dcnas",
        classes=19,
        stem=rng.choice((8, 16)),
        channels=channels,
        head=rng.choice((16, 32, 64)),
        modules=arranged(modules, layers),
        provenance=Provenance(name="sampled", strategy="random"),
    )
