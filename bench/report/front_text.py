"""A front in words and as rows: what the table of `bench pareto`, its CSV and the report have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ..pareto import Objective, Point
from .fronts import PlacedFront


def remarks_of(front: PlacedFront) -> list[str]:
    """What has to be known of a front, in sentences; what is the same of several points is said once."""
    result = front.front
    said: dict[str, list[str]] = {}
    for group in result.ties:
        said["equal in all that is compared"] = [*said.get("equal in all that is compared", []), _listed(group)]
    for point in result.missing:
        said.setdefault(f"left out, as {front.missing[point.label]}", []).append(point.label)
    for point in (*result.best, *(beaten.point for beaten in result.beaten)):
        for remark in point.remarks:
            said.setdefault(remark, []).append(point.label)
    unsure = [beaten.point.label for beaten in result.beaten if not beaten.certain]
    if unsure:
        said["behind, but not certainly: its rounds overlap with those of what is before it"] = unsure
    everyone = len(result.best) + len(result.beaten) + len(result.missing)
    return [
        f"{remark}: {'all' if len(labels) == everyone > 1 else '; '.join(labels)}" for remark, labels in said.items()
    ]


def _listed(points: Sequence[Point]) -> str:
    return " = ".join(point.label for point in points)


def rows_of(front: PlacedFront) -> list[tuple[Point, str]]:
    """Each point with what became of it: its number on the front, or the numbers of those that beat it."""
    result = front.front
    numbers = {id(point): number for number, point in enumerate(result.best, start=1)}
    rows = [(point, f"front {numbers[id(point)]}") for point in result.best]
    for beaten in sorted(result.beaten, key=lambda b: b.point.values[Objective.LATENCY]):
        rows.append((beaten.point, "behind " + ", ".join(str(numbers[id(point)]) for point in beaten.by)))
    return rows


def value(point: Point, objective: Objective) -> str:
    """A value as it stands in a table; an mIoU that was not measured carries its kind."""
    if objective not in point.values:
        return "-"
    digits = f"{point.values[objective]:.4g}" if objective is not Objective.MIOU else f"{point.values[objective]:.2f}"
    marked = objective is Objective.MIOU and point.miou_kind != "measured"
    return f"{digits} {point.miou_kind}" if marked else digits


def csv_text(found: Sequence[PlacedFront]) -> str:
    """Every point of every front as comma-separated values with full precision."""
    target = io.StringIO()
    columns = ["file", "title", "label", "network", "miou", "miou_kind", "latency", "macs", "params", "state", "by"]
    writer = csv.DictWriter(target, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for front in found:
        tree = front.to_tree()
        shared: dict[str, Any] = {"file": tree["file"], "title": tree["title"]}
        for state in ("front", "dominated", "missing"):
            for point in tree[state]:
                by = "; ".join(point.get("by", [])) or point.get("why", "")
                writer.writerow(shared | point | {"state": state, "by": by})
    return target.getvalue()
