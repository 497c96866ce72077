"""What the files on the command line hold: measurements, evaluations, rooflines. Each kind is told by its content."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchkit.errors import InputFileError, SearchkitError
from searchkit.files import read_bytes
from searchkit.sizes import Size, parse_size
from searchkit.strict_json import Spelling

from ..measurement import Measurement
from ..result_file import MAX_BYTES, Results, read_results
from .roofline_file import Roofline, parse_roofline
from .scores import Score

_FIX = "give files of `bench fps --json`, `bench roofline --json` or `searchkit evaluate --json`"
_EVALUATION_SCHEMA = 1


@dataclass(frozen=True)
class Place:
    """One result file: what one machine measured in one run. Latencies of two places are never compared.

    Attributes:
        file: as given.
        results: its content.
    """

    file: str
    results: Results

    @property
    def title(self) -> str:
        """The file's name without its folder, which is nobody else's business and no part of what was measured."""
        return os.path.basename(self.file)

    @property
    def name(self) -> str:
        """The processor that did the work, for headings."""
        machine = self.results.machine
        devices = {measurement.session.device for measurement in self.results.measurements}
        cpu, gpu = str(machine.get("cpu") or "unknown CPU"), machine.get("gpu")
        if not gpu or devices <= {"cpu"}:
            cores = machine.get("cores")
            return f"{cpu}, {cores} cores" if cores else cpu
        return str(gpu) if "cpu" not in devices else f"{gpu} and {cpu}"


@dataclass(frozen=True)
class Sources:
    """All files, by kind, in the order given."""

    places: tuple[Place, ...]
    scores: tuple[Score, ...]
    rooflines: tuple[Roofline, ...]

    @property
    def measurements(self) -> list[Measurement]:
        return [measurement for place in self.places for measurement in place.results.measurements]


def read_sources(files: Sequence[str]) -> Sources:
    """Read every file.

    Raises:
        InputFileError: one is missing, damaged, of a newer schema, or of no kind that is known; or given twice.
    """
    places, scores, rooflines = [], [], []
    for number, file in enumerate(files):
        if any(os.path.realpath(file) == os.path.realpath(other) for other in files[:number]):
            raise InputFileError("the same file is given twice", where=file, fix="name it once")
        kind, tree = _kind(file)
        if kind == "evaluation":
            scores.append(_score(tree, file))
        elif kind == "roofline":
            rooflines.append(parse_roofline(tree, os.path.basename(file)))
        else:
            places.append(Place(file, read_results(file)))
    return Sources(tuple(places), tuple(scores), tuple(rooflines))


def _kind(file: str) -> tuple[str, dict[str, Any]]:
    """What a file is; whatever has to do with measurements is left to its own reader, which says what is wrong."""
    data = read_bytes(file, limit_bytes=MAX_BYTES, what="result file")
    try:
        tree = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return "measurements", {}
    if not isinstance(tree, dict) or "measurements" in tree:
        return "measurements", {}
    if "mean_iou" in tree and "dataset" in tree:
        return "evaluation", tree
    if tree.get("kind") == "roofline":
        return "roofline", tree
    raise InputFileError(
        "not a file that a report is made of", where=file, got=tree.get("kind", sorted(tree)), fix=_FIX
    )


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


def _score(tree: dict[str, Any], file: str) -> Score:
    """The mIoU of `searchkit evaluate --json`."""
    schema = tree.get("schema")
    if type(schema) is not int or schema != _EVALUATION_SCHEMA:
        raise InputFileError(
            "unknown schema of an evaluation", where=file, got=schema, allowed=str(_EVALUATION_SCHEMA), fix=_FIX
        )
    try:
        network, dataset, mean = tree["network"], tree["dataset"], tree["mean_iou"]
        name, digest, trained, weights = (network[key] for key in ("network", "digest", "trained", "weights"))
        data, split, count, available = (dataset[key] for key in ("name", "split", "count", "available"))
        size = parse_size(tree["resolution"], where=file)
    except (KeyError, TypeError, AttributeError, SearchkitError) as error:
        raise InputFileError("damaged evaluation", where=file, got=str(error), fix="evaluate again") from None
    words = (name, digest, weights, data, split)
    if not all(isinstance(word, str) for word in words) or type(trained) is not bool:
        raise InputFileError("damaged evaluation: wrong type of a field", where=file, fix="evaluate again")
    if type(mean) not in (int, float) or not (math.isfinite(mean) and 0 <= mean <= 1):
        raise InputFileError(
            "an evaluation without a mIoU", where=file, got=Spelling.of(mean), allowed="0 to 1", fix="evaluate again"
        )
    scale = f"{data} {split}" + ("" if count == available else f", {count} of {available} samples")
    scale = scale.replace("cityscapes", "Cityscapes", 1) if scale.startswith("cityscapes") else scale
    remark = f"mIoU measured with weights {weights}" if trained else "weights are untrained: this mIoU means nothing"
    return Score(name, 100 * mean, "measured", scale, Size(*size), digest=digest, remark=remark)
