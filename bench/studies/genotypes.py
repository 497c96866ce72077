"""Random genotypes of search spaces: does each build, cost what is counted, run on an odd size, and export truly?

An arm is a space, a seed one genotype of it: `Space.sample(Random(seed))`. Its network gets seeded weights and an image
whose sides are odd multiples of what the space asks for. It is exported as `searchkit export` does, goes through the
same gate (operators, shapes, size), and ONNX Runtime, its optimiser off and on, is held against PyTorch by the limits
of `searchkit export` (1e-4; the same label on each pixel whose two best logits are more than 1e-3 apart).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from searchkit.sizes import Size, SizeRule
from searchkit.spaces import SPACES

from . import Row, Study, StudyRecipe

if TYPE_CHECKING:
    from deploy.verify import Report
    from searchkit.genotype import Genotype

    from ._workbench import Workbench

_SHORTEST_PX, _LONGEST_PX = 24, 104


@dataclass(frozen=True)
class GenotypesRecipe(StudyRecipe):
    """Nothing is searched or trained here, so there are neither steps nor pictures.

    Attributes:
        spaces: whose genotypes are tried; those of all spaces if empty.
    """

    spaces: tuple[str, ...] = ()
    steps: int = 0
    training_pictures: int = 0
    validation_pictures: int = 0

    def quick(self) -> GenotypesRecipe:
        """The same: it is quick for a few seeds."""
        return self

    def to_tree(self) -> dict[str, Any]:
        """What of it counts."""
        return {"spaces": list(self.spaces), "sides_px": [_SHORTEST_PX, _LONGEST_PX]}


class GenotypesStudy(Study):
    """Whether random genotypes are networks that can be deployed."""

    recipe: ClassVar[StudyRecipe] = GenotypesRecipe()

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        assert isinstance(recipe, GenotypesRecipe)
        return recipe.spaces or tuple(SPACES.names())

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        return tried(arm, seed)

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        lines = [
            "| space | genotypes | different | passed | worst error | over 1e-4 | least agreement of clear labels |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        arms = dict.fromkeys(row.arm for row in rows)
        lines += [_line(arm, [row for row in rows if row.arm == arm]) for arm in arms]
        problems = [
            f"- {row.arm}, seed {row.seed} ({row.values['size']}): {problem}"
            for row in rows
            for problem in row.values["problems"]
        ]
        return "\n".join([*lines, *([""] if problems else []), *problems]) + "\n"


def _line(arm: str, rows: Sequence[Row]) -> str:
    compared = [row.values for row in rows if "max_abs_error" in row.values]
    errors = [values["max_abs_error"] for values in compared]
    cells = [
        *(arm, str(len(rows)), str(len({row.values["digest"] for row in rows}))),
        str(sum(not row.values["problems"] for row in rows)),
        *((f"{max(errors):.2g}", str(sum(error > 1e-4 for error in errors))) if errors else ("-", "-")),
        f"{min(values['clear_agreement'] for values in compared):.4%}" if compared else "-",
    ]
    return f"| {' | '.join(cells)} |"


def tried(name: str, seed: int) -> dict[str, Any]:
    """One genotype, tried: what was found, and under `problems` what is wrong with it."""
    genotype = SPACES.load(name).sample(Random(seed))
    size = odd_size(genotype.size_rule, seed)
    values: dict[str, Any] = {"digest": genotype.digest, "size": str(size)}
    problems: list[str] = []
    for step in (_counted, _exported):
        try:
            more, wrong = step(genotype, size)
        # Whatever goes wrong with a genotype is what this study is there to find; the rows say it.
        except Exception as error:
            more, wrong = {}, [f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"]
        values |= more
        problems += wrong
    return values | {"problems": problems}


def odd_size(rule: SizeRule, seed: int) -> Size:
    """A small size that the rule takes, its sides odd multiples of what it asks for."""
    rng = Random(seed)
    shortest = max(rule.minimum, _SHORTEST_PX)
    sides = [
        side
        for side in range(rule.multiple, max(_LONGEST_PX, shortest + 4 * rule.multiple) + 1, 2 * rule.multiple)
        if side >= shortest
    ]
    return Size(rng.choice(sides), rng.choice(sides))


def _counted(genotype: Genotype, size: Size) -> tuple[dict[str, Any], list[str]]:
    """What it costs, and whether that is what its network costs."""
    from searchkit.footprint import on_meta
    from searchkit.networks import from_genotype

    counted = genotype.cost(size)
    values = {"params": counted.params, "conv_macs": counted.conv_macs}
    built = on_meta(from_genotype(genotype).build_on_meta(), size)
    found = {"params": built.params, "conv_macs": built.conv_macs}
    return values, [
        f"{key}: {values[key]:,} counted, {found[key]:,} built" for key in values if values[key] != found[key]
    ]


def _exported(genotype: Genotype, size: Size) -> tuple[dict[str, Any], list[str]]:
    """How near the exported model is to PyTorch, and whether that is near enough."""
    from deploy.deployable import Deployable
    from deploy.onnx_gate import check_onnx
    from deploy.verify import verify
    from searchkit.networks import from_genotype

    model = Deployable(from_genotype(genotype), size, "raw")
    check_onnx(model.onnx, where=genotype.space, written_here=True)
    report = verify(model, model.onnx)
    return {"onnx_bytes": len(model.onnx), **_figures(report)}, report.problems


def _figures(report: Report) -> dict[str, Any]:
    """The worse of both states of ONNX Runtime's optimiser."""
    pairs = report.comparisons
    return {
        "max_abs_error": max(pair.max_abs_error for pair in pairs),
        "clear_agreement": min(pair.masked_agreement for pair in pairs),
        "label_agreement": min(pair.label_agreement for pair in pairs),
        "clear_share": min(pair.masked_share for pair in pairs),
        "classes_seen": min(pair.classes_in_reference for pair in pairs),
        # Where float32 is not exact enough to tell, float64 judges: see `deploy.verify`.
        "pytorch_float64_max_abs_error": report.rounding,
    }


STUDY = GenotypesStudy()
