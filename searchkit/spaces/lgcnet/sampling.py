"""Random networks of the LGCNet space, and how a draw becomes a valid one."""

from __future__ import annotations

from random import Random

from ...genotype import SCHEMA, Provenance
from .genotype import ABSENT, LGCNetGenotype, cell_of
from .operators import CELL_OPERATORS, FUSION_OPERATORS, PRESENT, UP_OPERATORS, CellOperator
from .wiring import CELL_EDGES, INTO, SEARCHED, UPS, fused_cells, living

#: As published.
CELLS, REDUCTIONS, STEM, FUSION_CHANNELS = 14, (1, 8), 8, 48


def sample(rng: Random) -> LGCNetGenotype:
    """A random network of the paper's space: each edge's operator by lot, by lot again at nodes that read nothing.

    Cells that nothing reads are left out.
    """
    drawn = [cell_of(_edges(rng)) for _ in range(CELLS)]
    alive = living([cell.reads for cell in drawn], fused_cells(CELLS, REDUCTIONS))
    return LGCNetGenotype(
        schema=SCHEMA,
        space="lgcnet",
        classes=19,
        stem=STEM,
        reductions=REDUCTIONS,
        cells=tuple(cell if lives else ABSENT for cell, lives in zip(drawn, alive, strict=True)),
        fusion_channels=FUSION_CHANNELS,
        fusion=tuple(rng.choice(FUSION_OPERATORS) for _ in SEARCHED),
        fusion_up=tuple(rng.choice(UP_OPERATORS) for _ in UPS),
        provenance=Provenance(name="sampled", strategy="random"),
    )


def _edges(rng: Random) -> tuple[CellOperator, ...]:
    edges: list[CellOperator] = [rng.choice(CELL_OPERATORS) for _ in CELL_EDGES]
    for into in INTO:
        if all(edges[edge] == "none" for edge in into):
            edges[rng.choice(into)] = rng.choice(PRESENT)
    return tuple(edges)
