"""Which points stand on one front: those of one file, one device, and one scale of mIoU (or one resolution)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchkit.errors import UsageError

from ..measurement import Measurement, percentile
from ..pareto import Front, Objective, Point, front_of
from .scores import Score, choose, refusal
from .sources import Place, Sources

_WHOLE_PRECISIONS = (None, "fp32")


@dataclass(frozen=True)
class PlacedFront:
    """A front, and what it is of.

    Attributes:
        title: machine, device, and data set or resolution, in words.
        scale: the data set and split of its mIoU; None where mIoU is not compared.
        measurements: of the points, by label.
        missing: why a point has no place on it, by label.
    """

    place: Place
    title: str
    scale: str | None
    front: Front
    measurements: dict[str, Measurement]
    missing: dict[str, str]

    def to_tree(self) -> dict[str, Any]:
        """As JSON values."""
        front = self.front
        return {
            "file": self.place.file,
            "title": self.title,
            "miou_scale": self.scale,
            "objectives": [str(objective) for objective in front.objectives],
            "front": [_tree(point) for point in front.best],
            "dominated": [
                _tree(beaten.point) | {"by": [p.label for p in beaten.by], "certain": beaten.certain}
                for beaten in front.beaten
            ],
            "ties": [[point.label for point in group] for group in front.ties],
            "missing": [{"label": point.label, "why": self.missing[point.label]} for point in front.missing],
        }


def labels_of(measurements: Sequence[Measurement]) -> list[str]:
    """A short name for each: the network, and of the rest only what is not the same for all."""
    parts = [
        (
            m.runtime,
            m.precision or "",
            m.session.device,
            str(m.resolution),
            "" if m.io == "logits" else m.io,
            f"batch {m.timed.batch}",
        )
        for m in measurements
    ]
    varying = [len({row[column] for row in parts}) > 1 for column in range(6)]
    labels = []
    seen: Counter[str] = Counter()
    for m, row in zip(measurements, parts, strict=True):
        words = [part for part, varies in zip(row, varying, strict=True) if varies and part]
        # A mode is often named like its precision: once is enough.
        words = [word for at, word in enumerate(words) if not any(w.endswith(f":{word}") for w in words[:at])]
        label = " ".join([m.network.name, *words])
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def fronts(sources: Sources, scores: Sequence[Score], objectives: Sequence[Objective]) -> list[PlacedFront]:
    """Every front that can be made; none for a scale of mIoU of which a file has no network."""
    found = []
    for place in sources.places:
        labelled = list(zip(labels_of(place.results.measurements), place.results.measurements, strict=True))
        for device in dict.fromkeys(m.session.device for _, m in labelled):
            own = [(label, m) for label, m in labelled if m.session.device == device]
            found += _of_device(place, device, own, scores, objectives)
    return found


def check_scores(found: Sequence[PlacedFront], objectives: Sequence[Objective]) -> None:
    """Raise `UsageError` where mIoU is asked for and nothing says one."""
    if not found and Objective.MIOU in objectives:
        raise UsageError(
            "no network of the files has a known mIoU at its resolution",
            where="--objectives",
            got=", ".join(objectives),
            fix="give `--miou NETWORK=PERCENT`, a file of `searchkit evaluate --json`, `--published val`, "
            "or other objectives, such as `--objectives latency,params`",
        )


def _of_device(
    place: Place,
    device: str,
    labelled: Sequence[tuple[str, Measurement]],
    scores: Sequence[Score],
    objectives: Sequence[Objective],
) -> list[PlacedFront]:
    where = f"{place.name}, {device}"
    groups: list[tuple[str, str | None, list[tuple[str, Measurement]]]]
    if Objective.MIOU not in objectives:
        sizes = dict.fromkeys(m.resolution for _, m in labelled)
        groups = [(f"{where}, {size}", None, [(s, m) for s, m in labelled if m.resolution == size]) for size in sizes]
    else:
        scales = dict.fromkeys(score.scale for score in scores)
        groups = [(f"{where}, mIoU {scale}", scale, list(labelled)) for scale in scales]
    made = [_placed(place, title, scale, group, scores, objectives) for title, scale, group in groups]
    return [one for one in made if one.front.best]


def _placed(
    place: Place,
    title: str,
    scale: str | None,
    labelled: Sequence[tuple[str, Measurement]],
    scores: Sequence[Score],
    objectives: Sequence[Objective],
) -> PlacedFront:
    points, missing = [], {}
    for label, measurement in labelled:
        score = choose(scores, measurement, place.file, scale) if scale else None
        point = point_of(label, measurement, score)
        points.append(point)
        if point.lacks(objectives):
            missing[label] = refusal([s for s in scores if s.scale == scale], measurement)
    return PlacedFront(place, title, scale, front_of(points, objectives), dict(labelled), missing)


def point_of(label: str, measurement: Measurement, score: Score | None) -> Point:
    """A measurement with its mIoU, if there is one."""
    facts = measurement.network
    medians = [percentile(turn, 50) for turn in measurement.rounds_ms]
    values = {
        Objective.LATENCY: percentile(measurement.samples_ms, 50),
        Objective.MACS: facts.conv_macs / 1e9,
        Objective.PARAMS: facts.params / 1e6,
    }
    remarks = []
    if score:
        values[Objective.MIOU] = score.percent
        remarks += [score.remark] if score.remark else []
        if measurement.precision not in _WHOLE_PRECISIONS:
            remarks.append(f"the mIoU is not known to hold in {measurement.precision}")
    return Point(
        label=label,
        network=facts.name,
        values=values,
        spread=(min(medians), max(medians)),
        miou_kind=score.kind if score else None,
        remarks=tuple(remarks),
    )


def _tree(point: Point) -> dict[str, Any]:
    return {
        "label": point.label,
        "network": point.network,
        **{str(objective): point.values.get(objective) for objective in Objective},
        "miou_kind": point.miou_kind,
        "round_medians_ms": list(point.spread),
        "remarks": list(point.remarks),
    }
