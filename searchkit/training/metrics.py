"""How good label maps are: streaming confusion matrix and boundary IoU, in plain numpy.

Absent classes are treated as cityscapesScripts treats them (`getIouScoreForLabel`, `getScoreAverage`): a class that
occurs neither in the truth nor in the prediction has no IoU and is left out of the mean; a class that is predicted
and nowhere true has IoU 0 and counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from ..errors import InputFileError, UsageError
from ..label_sets import MAX_CLASSES

IGNORE = 255

# Cheng et al. 2021, the default of their code; their Cityscapes tool takes 0.005.
BOUNDARY_RATIO = 0.02


class Confusion:
    """A C x C count of pixels, rows truth, columns prediction; pixels whose truth is `ignore` count nowhere.

    Args:
        classes: C, from 1 to 255.
        ignore: the label of the truth that does not count.

    Raises:
        UsageError: `classes` is out of range, or `ignore` is one of the classes.
    """

    def __init__(self, classes: int, *, ignore: int = IGNORE) -> None:
        _check_classes(classes, ignore)
        self.classes = classes
        self.ignore = ignore
        self._matrix = np.zeros((classes, classes), np.int64)

    @property
    def matrix(self) -> np.ndarray:
        """A copy of the counts, C x C, int64."""
        return self._matrix.copy()

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one pair of label maps of equal shape, of any integer type.

        Raises:
            UsageError: shapes differ, a type is not integer, or a label is out of range.
        """
        counted = _counted(truth, prediction, self.classes, self.ignore)
        index = truth[counted].astype(np.int64) * self.classes + prediction[counted]
        self._matrix += np.bincount(index, minlength=self.classes**2).reshape(self.classes, self.classes)

    def merge(self, other: Confusion) -> None:
        """Add the counts of `other`; raises `UsageError` unless it has the same classes and ignore label."""
        _check_same((self.classes, self.ignore), (other.classes, other.ignore))
        self._matrix += other._matrix

    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self._matrix.sum())

    def iou(self) -> list[float | None]:
        """Intersection over union of each class; None where it is neither true nor predicted anywhere."""
        hit = self._matrix.diagonal()
        return _ratios(hit, self._matrix.sum(1) + self._matrix.sum(0) - hit)

    def mean_iou(self) -> float | None:
        """mIoU: the mean over the classes that have an IoU; None where none has."""
        return mean(self.iou())

    def accuracy(self) -> list[float | None]:
        """Share of each class's true pixels that were found (recall); None where the class is nowhere true."""
        return _ratios(self._matrix.diagonal(), self._matrix.sum(1))

    def mean_accuracy(self) -> float | None:
        """The mean of `accuracy` over the classes that occur in the truth."""
        return mean(self.accuracy())

    def pixel_accuracy(self) -> float | None:
        """Share of counted pixels whose label is right; None where no pixel was counted."""
        return _ratios([int(self._matrix.trace())], [self.pixels()])[0]

    def share(self) -> list[float | None]:
        """Share of each class in the truth's counted pixels."""
        return _ratios(self._matrix.sum(1), [self.pixels()] * self.classes)

    def frequency_weighted_iou(self) -> float | None:
        """IoU of each class, weighted with its share in the truth (Long et al. 2015)."""
        parts = [s * i for s, i in zip(self.share(), self.iou(), strict=True) if s is not None and i is not None]
        return math.fsum(parts) if parts else None

    def to_tree(self) -> dict[str, object]:
        """The counts as JSON: rows truth, columns prediction."""
        return {"classes": self.classes, "ignore": self.ignore, "matrix": self._matrix.tolist()}

    @classmethod
    def from_tree(cls, tree: Any, *, where: str = "confusion") -> Self:
        """The inverse of `to_tree`; raises `InputFileError` for anything that `to_tree` would not have made."""
        classes, ignore = _header(tree, {"classes", "ignore", "matrix"}, where)
        found = cls(classes, ignore=ignore)
        rows = tree["matrix"]
        if not isinstance(rows, list) or len(rows) != classes:
            raise InputFileError("not a confusion matrix", where=f"{where}: matrix", allowed=f"{classes} rows")
        for label, row in enumerate(rows):
            found._matrix[label] = _counts(row, classes, f"{where}: matrix[{label}]")
        return found


class BoundaryIoU:
    """IoU of the pixels near each class's outline (Cheng et al. 2021, "Boundary IoU"), streaming.

    A mask's boundary is the mask minus the mask eroded by a square of side 2 d + 1, with d = `ratio` times the
    picture's diagonal, rounded, at least 1. As in the authors' code, the edge of the picture is an outline. Pixels
    whose truth is `ignore` count nowhere and make no outline, neither in the truth nor in the prediction.

    Args:
        classes: 1 to 255.
        ratio: d over the diagonal; the paper takes 0.02, the authors' Cityscapes tool 0.005.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, classes: int, *, ratio: float = BOUNDARY_RATIO, ignore: int = IGNORE) -> None:
        _check_classes(classes, ignore)
        if not 0 < ratio <= 1:
            raise UsageError("not a boundary distance", where="ratio", got=ratio, allowed="over 0, at most 1")
        self.classes = classes
        self.ratio = ratio
        self.ignore = ignore
        self._hit = np.zeros(classes, np.int64)
        self._union = np.zeros(classes, np.int64)

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one pair of label maps, H x W, of any integer type; raises as `Confusion.add`."""
        counted = _counted(truth, prediction, self.classes, self.ignore)
        if truth.ndim != 2:
            raise UsageError("not a label map", where="truth", got=truth.shape, allowed="H x W")
        if truth.size == 0:
            return
        distance = max(1, round(self.ratio * math.hypot(*truth.shape)))
        # Any label that is no class will do for what does not count: 255 is none, as there are at most 255 classes.
        maps = [np.where(counted, labels, IGNORE).astype(np.uint8) for labels in (truth, prediction)]
        first, second = (np.where(interior(labels, distance), IGNORE, labels) for labels in maps)
        hit = self._count(first[first == second])
        self._hit += hit
        self._union += self._count(first) + self._count(second) - hit

    def _count(self, labels: np.ndarray) -> np.ndarray:
        return np.bincount(labels.ravel(), minlength=256)[: self.classes]

    def merge(self, other: BoundaryIoU) -> None:
        """Add the counts of `other`; raises `UsageError` unless it was made with the same arguments."""
        _check_same((self.classes, self.ratio, self.ignore), (other.classes, other.ratio, other.ignore))
        self._hit += other._hit
        self._union += other._union

    def iou(self) -> list[float | None]:
        """Boundary IoU of each class; None where the class has no outline in truth or prediction."""
        return _ratios(self._hit, self._union)

    def mean_iou(self) -> float | None:
        """The mean over the classes that have a boundary IoU; None where none has."""
        return mean(self.iou())

    def to_tree(self) -> dict[str, object]:
        """The counts as JSON."""
        return {
            "classes": self.classes,
            "ignore": self.ignore,
            "ratio": self.ratio,
            "intersection": self._hit.tolist(),
            "union": self._union.tolist(),
        }

    @classmethod
    def from_tree(cls, tree: Any, *, where: str = "boundary") -> Self:
        """The inverse of `to_tree`; raises `InputFileError` for anything that `to_tree` would not have made."""
        classes, ignore = _header(tree, {"classes", "ignore", "ratio", "intersection", "union"}, where)
        ratio = tree["ratio"]
        if type(ratio) not in (int, float) or not 0 < ratio <= 1:
            raise InputFileError("not a boundary distance", where=f"{where}: ratio", got=ratio, allowed="(0, 1]")
        found = cls(classes, ratio=ratio, ignore=ignore)
        found._hit[:] = _counts(tree["intersection"], classes, f"{where}: intersection")
        found._union[:] = _counts(tree["union"], classes, f"{where}: union")
        return found


def interior(labels: np.ndarray, distance: int) -> np.ndarray:
    """Which pixels of a uint8 map (H x W) lie over `distance` from the edge and from every other label; 255 is none.

    One pass serves all classes: a pixel survives the erosion of its own class's mask just where the least and the
    greatest label around it are its own. Both are square minimum filters, which separate.
    """
    height, width = labels.shape
    inside = np.zeros((height, width), bool)
    if min(height, width) <= 2 * distance:
        return inside
    # One up, 255 becomes 0 and 0 to 254 become 1 to 255, so that 255 is least for the greatest.
    least = _window(labels, distance, np.minimum)
    greatest = _window(labels + np.uint8(1), distance, np.maximum) - np.uint8(1)
    middle = (slice(distance, height - distance), slice(distance, width - distance))
    own = labels[middle]
    inside[middle] = (least == own) & (greatest == own)
    return inside


def _window(x: np.ndarray, distance: int, pick: np.ufunc) -> np.ndarray:
    """`pick` over every square of side 2 d + 1 that fits: (H - 2 d) x (W - 2 d), in about 2 log2(2 d + 1) passes."""
    side = 2 * distance + 1
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        # x[i] covers `covered` rows from i on; doubling, then one step that overlaps.
        covered = 1
        while covered < side:
            step = min(covered, side - covered)
            x = pick(x[:-step], x[step:])
            covered += step
        x = np.moveaxis(x, 0, axis)
    return x


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None where there is none."""
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


def _ratios(parts: Iterable[int], wholes: Iterable[int]) -> list[float | None]:
    return [int(part) / int(whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]


def _counted(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    """Where the truth is a class, after checking that nothing is there that is neither class nor ignored."""
    if truth.shape != prediction.shape:
        raise UsageError(
            "truth and prediction differ in shape",
            where="prediction",
            got=prediction.shape,
            allowed=str(truth.shape),
            fix="resize the prediction to the truth",
        )
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.dtype.kind not in "iu":
            raise UsageError("labels have the wrong type", where=name, got=str(labels.dtype), allowed="integers")
    counted = truth != ignore
    for name, labels in (("truth", truth[counted]), ("prediction", prediction[counted])):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            wrong = labels[(labels < 0) | (labels >= classes)][0]
            allowed = f"0 to {classes - 1}" + (f", or {ignore} (ignore)" if name == "truth" else "")
            raise UsageError("label out of range", where=name, got=int(wrong), allowed=allowed)
    return counted


def _check_classes(classes: int, ignore: int) -> None:
    if type(classes) is not int or not 1 <= classes <= MAX_CLASSES:
        raise UsageError("not a number of classes", where="classes", got=classes, allowed=f"1 to {MAX_CLASSES}")
    if type(ignore) is not int or 0 <= ignore < classes:
        raise UsageError("ignore is one of the classes", where="ignore", got=ignore, allowed="no class")


def _check_same(mine: tuple[float, ...], other: tuple[float, ...]) -> None:
    if mine != other:
        raise UsageError("counts of another kind cannot be merged", where="merge", got=other, allowed=str(mine))


def _header(tree: Any, fields: set[str], where: str) -> tuple[int, int]:
    if not isinstance(tree, dict) or set(tree) != fields:
        raise InputFileError("wrong fields", where=where, allowed=", ".join(sorted(fields)))
    try:
        _check_classes(tree["classes"], tree["ignore"])
    except UsageError as error:
        raise InputFileError(error.problem, where=f"{where}: {error.where}", got=error.got) from None
    return tree["classes"], tree["ignore"]


def _counts(values: Any, length: int, where: str) -> list[int]:
    # 2**53 pixels are four billion Cityscapes pictures, and the last count that every JSON reader keeps.
    valid = isinstance(values, list) and all(type(value) is int and 0 <= value <= 2**53 for value in values)
    if not valid or len(values) != length:
        raise InputFileError("not counts", where=where, allowed=f"{length} integers from 0 to 2**53")
    return values
