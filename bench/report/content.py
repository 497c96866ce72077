"""What a report says, before it is written as HTML or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchkit.errors import UsageError

from ..pareto import Objective
from . import headline
from .fronts import PlacedFront, fronts
from .headline import Compared
from .scores import GIVEN_SCALE, Score, from_papers, given
from .sources import Place, Sources, read_sources

OBJECTIVES = (Objective.MIOU, Objective.LATENCY)
MAX_TITLE = 200


@dataclass(frozen=True)
class Content:
    """Everything that a report is made of.

    Attributes:
        fronts: over mIoU and latency; those of published mIoU last.
        scores: every known mIoU.
    """

    title: str
    sources: Sources
    scores: tuple[Score, ...]
    fronts: tuple[PlacedFront, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        return self.sources.places

    @property
    def networks(self) -> list[str]:
        """Names of all that was measured, each once."""
        return list(dict.fromkeys(measurement.network.name for measurement in self.sources.measurements))

    def fronts_of(self, place: Place) -> list[PlacedFront]:
        """Those of one file."""
        return [front for front in self.fronts if front.place is place]

    def compared(self, place: Place) -> list[Compared]:
        """SSR against FasterSeg, as measured in one file."""
        return headline.measured(place.results.measurements)


def gather(files: Sequence[str], miou: Sequence[str], title: str) -> Content:
    """Read all files and find the fronts.

    Raises:
        InputFileError: a file cannot be read.
        UsageError: a mIoU of a network that is not there; a title that is empty or far too long.
    """
    if not 0 < len(title.strip()) <= MAX_TITLE:
        raise UsageError("not a title", where="--title", got=len(title), allowed=f"1 to {MAX_TITLE} characters")
    sources = read_sources(files)
    names = [measurement.network.name for measurement in sources.measurements]
    own = [*given(miou, [place.file for place in sources.places], names, GIVEN_SCALE), *sources.scores]
    scores = [*own, *from_papers(names, "val")]
    return Content(title.strip(), sources, tuple(scores), tuple(fronts(sources, scores, OBJECTIVES)))
