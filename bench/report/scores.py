"""Where the mIoU of a measured network comes from: an evaluation, the command line, or a paper.

An mIoU belongs to a data set, a split and a resolution. Scores of different data sets stand on fronts of their own, and
a score of another resolution than the latency's is refused: no network has both at a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from searchkit.errors import UsageError, nearest
from searchkit.sizes import Size

from ..measurement import Measurement
from .published import figures_of

PUBLISHED_SCALES = {"val": "Cityscapes val", "test": "Cityscapes test"}
GIVEN_SCALE = "as given"


@dataclass(frozen=True)
class Score:
    """An mIoU.

    Attributes:
        network: whose.
        percent: 0 to 100.
        kind: "measured", "published" or "given".
        scale: data set and split; only scores of one scale can be compared.
        size: of the network's input; None where it is not said.
        file: the result file that it is for, as given; None for all.
        digest: of the network; None where it is not said.
        remark: what a reader has to know of it.
    """

    network: str
    percent: float
    kind: str
    scale: str
    size: Size | None = None
    file: str | None = None
    digest: str | None = None
    remark: str = ""

    def suits(self, measurement: Measurement, file: str) -> bool:
        """Whether it is of this network, this file and, as far as is known, this resolution."""
        facts = measurement.network
        return (
            self.network == facts.name
            and self.digest in (None, facts.digest)
            and self.file in (None, file, os.path.basename(file))
            and self.size in (None, measurement.resolution)
        )


def given(arguments: Sequence[str], files: Sequence[str], networks: Sequence[str], scale: str) -> list[Score]:
    """`[FILE/]NETWORK=PERCENT` of the command line.

    Raises:
        UsageError: not of this form, no per cent, or a file or a network that is not among those given.
    """
    return [_given(text, files, networks, scale) for text in arguments]


def _given(text: str, files: Sequence[str], networks: Sequence[str], scale: str) -> Score:
    place, equals, value = text.rpartition("=")
    file, slash, network = place.rpartition("/")
    allowed = "[FILE/]NETWORK=PERCENT, such as ssr=72.6"
    try:
        percent = float(value)
    except ValueError:
        percent = math.nan
    if not equals or not network:
        raise UsageError("not an mIoU of a network", where="--miou", got=text, allowed=allowed)
    if not 0 <= percent <= 100:
        raise UsageError("not a mIoU", where=f"--miou {text}", got=value, allowed="per cent, 0 to 100")
    if network not in networks:
        raise UsageError(
            "no such network in the files",
            where=f"--miou {text}",
            got=network,
            allowed=", ".join(nearest(network, networks)) or ", ".join(dict.fromkeys(networks)),
        )
    if slash and file not in (*files, *map(os.path.basename, files)):
        raise UsageError("no such file was given", where=f"--miou {text}", got=file, allowed=", ".join(files))
    return Score(network, percent, "given", scale, file=file if slash else None)


def from_papers(networks: Sequence[str], split: str) -> list[Score]:
    """What a network's own authors print for a split of Cityscapes, "val" or "test"."""
    return [
        Score(
            name,
            percent,
            "published",
            PUBLISHED_SCALES[split],
            _size(figure.size),
            remark="mIoU as its own paper prints it" + ("" if figure.size else ", for a resolution that is not stated"),
        )
        for name in dict.fromkeys(networks)
        for figure in figures_of(name)
        if figure.by_the_paper and (percent := figure.miou_val if split == "val" else figure.miou_test) is not None
    ]


def _size(text: str | None) -> Size | None:
    from searchkit.sizes import parse_size

    return parse_size(text) if text else None


def choose(scores: Sequence[Score], measurement: Measurement, file: str, scale: str) -> Score | None:
    """The score of this scale for a measurement: given before measured before published; None where none suits."""
    order = ("given", "measured", "published")
    suiting = [score for score in scores if score.scale == scale and score.suits(measurement, file)]
    return min(suiting, key=lambda score: (order.index(score.kind), score.size is None), default=None)


def refusal(scores: Sequence[Score], measurement: Measurement) -> str:
    """Why a measurement has no mIoU, in words."""
    facts = measurement.network
    own = [score for score in scores if score.network == facts.name]
    other = [score for score in own if score.size not in (None, measurement.resolution)]
    if other:
        found = ", ".join(sorted({f"{score.percent:.1f} % at {score.size} ({score.kind})" for score in other}))
        return f"its mIoU is of another resolution than {measurement.resolution}: {found}"
    if any(score.digest not in (None, facts.digest) for score in own):
        return "its mIoU is of another network of the same name"
    return "no mIoU is known"
