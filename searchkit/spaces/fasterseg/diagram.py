"""How a network of the FasterSeg space is drawn: a box a layer at its output's rate, the branches beside each other."""

from __future__ import annotations

from collections.abc import Iterator

from ...diagram import Arrow, Box, Diagram
from .genotype import STEM_RATE, FasterSegGenotype, PlacedLayer

_NAMES = {
    "skip": "skip",
    "conv": "3x3 conv",
    "conv_x2": "3x3 conv x2",
    "zoomed_conv": "zoomed conv",
    "zoomed_conv_x2": "zoomed conv x2",
}


def diagram_of(genotype: FasterSegGenotype) -> Diagram:
    """The picture of one network."""
    return _Drawing(genotype).diagram()


class _Drawing:
    def __init__(self, genotype: FasterSegGenotype) -> None:
        self.genotype = genotype
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []

    def diagram(self) -> Diagram:
        """Image, stem, shared layers, branches, merges, head."""
        genotype = self.genotype
        self._add(Box("image", 0, 1, ("image", "3 channels"), "image"))
        stem = f"{STEM_RATE * genotype.stem_width} channels"
        self._add(Box("stem", 1, STEM_RATE, ("stem", "5 convs", stem), "stem"), "image")
        last = {STEM_RATE: "stem"}
        column = self._layers("shared", genotype.placed_shared(), 2, last, "stem")
        before = self.boxes[-1].name
        maps = [dict(last) for _ in genotype.branches]
        ends = [
            self._layers(f"branch {index}", genotype.placed_branch(index), column, seen, before)
            for index, seen in enumerate(maps)
        ]
        column = max(ends)
        merged = [self._merges(index, seen, column) for index, seen in enumerate(maps)]
        self._head([name for name, _ in merged], max(column for _, column in merged))
        return Diagram(tuple(self.boxes), tuple(self.arrows), tuple(self._notes()))

    def _add(self, box: Box, *sources: str) -> None:
        self.boxes.append(box)
        self.arrows += [Arrow(source, box.name) for source in sources]

    def _layers(self, name: str, layers: list[PlacedLayer], column: int, last: dict[int, str], before: str) -> int:
        """Adds layers one behind the other; `last` gets the last box at each rate; returns the next free column."""
        for index, placed in enumerate(layers):
            layer = placed.layer
            stride = ("stride 2",) if layer.stride == 2 else ()
            lines = (_NAMES[layer.operator], f"{placed.out_channels} channels", *stride)
            box = Box(f"{name}.{index}", column + index, placed.rate_out, lines, layer.operator)
            self._add(box, before)
            before = last[placed.rate_out] = box.name
        return column + len(layers)

    def _merges(self, index: int, last: dict[int, str], column: int) -> tuple[str, int]:
        """A branch's way back up; returns the name of its map at 1/8 and the next free column."""
        rate = max(last)
        name = last[rate]
        while rate > STEM_RATE:
            rate //= 2
            box = Box(
                f"merge {index}.{rate}", column, rate, ("merge", f"{self.genotype.head_width * rate} channels"), "merge"
            )
            self._add(box, name, last[rate])
            name, column = box.name, column + 1
        return name, column

    def _head(self, branches: list[str], column: int) -> None:
        classes = f"{self.genotype.classes} classes"
        fused = self.genotype.head_width * STEM_RATE * len(branches)
        self._add(Box("fuse", column, STEM_RATE, ("concat, 1x1 conv", f"{fused} channels"), "head"), *branches)
        self._add(Box("classifier", column + 1, STEM_RATE, ("3x3 conv, 1x1 conv", classes), "head"), "fuse")
        self._add(Box("logits", column + 2, 1, ("resize", classes), "head"), "classifier")

    def _notes(self) -> Iterator[str]:
        kinds = {box.kind for box in self.boxes}
        if kinds & {"zoomed_conv", "zoomed_conv_x2"}:
            yield "Zoomed: resized to half, convolved, resized back (not at stride 2), ReLU."
        if "merge" in kinds:
            yield (
                "Merge: 1x1 conv of the coarse map, resized to the branch's last map at this rate, beside it, 3x3 conv."
            )
