"""The confusion matrix by hand and by cityscapesScripts, the boundary IoU by its definition."""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from PIL import Image

from searchkit.data.cityscapes import TRAIN_IDS
from searchkit.errors import InputFileError, UsageError
from searchkit.label_sets import CITYSCAPES_19
from searchkit.training.metrics import BoundaryIoU, Confusion, interior, mean
from searchkit.training.submission import file_name, label_ids

TRUTH = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)


def confusion_of(*pairs: tuple[np.ndarray, np.ndarray], classes: int = 19, ignore: int = 255) -> Confusion:
    found = Confusion(classes, ignore=ignore)
    for truth, prediction in pairs:
        found.add(truth, prediction)
    return found


def blobs(seed: int, shape: tuple[int, int], classes: int, *, ignored: float = 0.0) -> np.ndarray:
    """A label map of blocks, so that some pixels lie far from an outline."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (-(-shape[0] // 9), -(-shape[1] // 9)))
    labels = np.kron(coarse, np.ones((9, 9), np.int64))[: shape[0], : shape[1]].astype(np.uint8)
    labels[rng.random(shape) < ignored] = 255
    return labels


def test_confusion_by_hand():
    found = confusion_of((TRUTH, PREDICTION), classes=4)
    assert found.matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found.matrix.dtype == np.int64
    assert found.pixels() == 5
    # Class 2 is true and never right; class 3 occurs nowhere.
    assert found.iou() == [1 / 3, 2 / 3, 0.0, None]
    assert found.mean_iou() == pytest.approx(1 / 3, abs=1e-15)
    assert found.pixel_accuracy() == 3 / 5
    assert found.accuracy() == [0.5, 1.0, 0.0, None]
    assert found.mean_accuracy() == 0.5
    assert found.share() == [0.4, 0.4, 0.2, 0.0]
    assert found.frequency_weighted_iou() == pytest.approx(0.4 / 3 + 0.8 / 3, abs=1e-15)


def test_a_class_that_is_only_predicted_counts_with_iou_zero():
    found = confusion_of((np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 2]], np.uint8)), classes=3)
    assert found.iou() == [0.75, None, 0.0]
    assert found.mean_iou() == 0.375
    assert found.accuracy() == [0.75, None, None]
    assert found.mean_accuracy() == 0.75


def test_nothing_counted_is_none_and_not_nan():
    found = confusion_of((np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8)), classes=2)
    assert found.pixels() == 0
    assert found.iou() == [None, None]
    assert (found.mean_iou(), found.pixel_accuracy(), found.mean_accuracy()) == (None, None, None)
    assert found.frequency_weighted_iou() is None
    assert mean([]) is None


def test_ignored_pixels_change_nothing_whatever_is_predicted_there():
    truth, prediction = blobs(1, (40, 50), 5, ignored=0.3), blobs(2, (40, 50), 5)
    other = np.where(truth == 255, 77, prediction).astype(np.uint8)
    assert (confusion_of((truth, prediction)).matrix == confusion_of((truth, other)).matrix).all()
    boundaries = [BoundaryIoU(5), BoundaryIoU(5)]
    for boundary, answer in zip(boundaries, (prediction, other), strict=True):
        boundary.add(truth, answer)
    assert boundaries[0].to_tree() == boundaries[1].to_tree()


def test_another_ignore_label():
    truth = np.array([[0, 1], [-1, -1]])
    assert confusion_of((truth, np.array([[0, 0], [1, 1]])), classes=2, ignore=-1).matrix.tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("kind", [Confusion, BoundaryIoU])
def test_streaming_merging_and_storing_equal_the_whole(kind: type):
    pairs = [(blobs(seed, (33, 47), 7, ignored=0.1), blobs(seed + 100, (33, 47), 7)) for seed in range(5)]
    whole = kind(7)
    parts = [kind(7), kind(7)]
    for number, (truth, prediction) in enumerate(pairs):
        whole.add(truth, prediction)
        parts[number % 2].add(truth, prediction)
    stored = kind.from_tree(json.loads(json.dumps(parts[1].to_tree())))
    parts[0].merge(stored)
    assert parts[0].to_tree() == whole.to_tree()
    assert parts[0].mean_iou() == whole.mean_iou()
    assert 0 < whole.mean_iou() < 0.5


def test_rows_side_by_side_are_one_map():
    truth, prediction = blobs(3, (64, 32), 6, ignored=0.1), blobs(4, (64, 32), 6)
    halves = [(truth[:30], prediction[:30]), (truth[30:], prediction[30:])]
    assert (confusion_of(*halves).matrix == confusion_of((truth, prediction)).matrix).all()


def test_merging_other_kinds_is_refused():
    with pytest.raises(UsageError, match="another kind"):
        Confusion(3).merge(Confusion(4))
    with pytest.raises(UsageError, match="another kind"):
        BoundaryIoU(3, ratio=0.02).merge(BoundaryIoU(3, ratio=0.005))


@pytest.mark.parametrize(
    ("truth", "prediction", "problem"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "differ in shape"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), "truth: labels have the wrong type"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), "prediction: labels have the wrong type"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), "truth: label out of range .got 3; allowed: 0 to 2"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), "prediction: label out of range .got 255"),
        (np.full((2, 2), -1), np.zeros((2, 2), np.uint8), "truth: label out of range .got -1"),
    ],
)
@pytest.mark.parametrize("kind", [Confusion, BoundaryIoU])
def test_wrong_maps_are_refused_and_count_nothing(kind: type, truth: np.ndarray, prediction: np.ndarray, problem: str):
    found = kind(3)
    with pytest.raises(UsageError, match=problem):
        found.add(truth, prediction)
    assert found.iou() == [None] * 3


@pytest.mark.parametrize("classes", [0, 256, True, 2.0])
def test_wrong_number_of_classes(classes: object):
    with pytest.raises(UsageError, match="not a number of classes"):
        Confusion(classes)


def test_ignore_must_be_no_class():
    with pytest.raises(UsageError, match="ignore is one of the classes"):
        Confusion(20, ignore=19)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, math.nan])
def test_wrong_boundary_distance(ratio: float):
    with pytest.raises(UsageError, match="boundary distance"):
        BoundaryIoU(3, ratio=ratio)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 3},
        {"classes": "2"},
        {"ignore": 1},
        {"matrix": [[1, 2], [3]]},
        {"matrix": [[1, 2], [3, -1]]},
        {"matrix": [[1, 2], [3, 1.5]]},
        {"matrix": [[1, 2], [3, True]]},
        {"matrix": [[1, 2], [3, 2**60]]},
        {"matrix": None},
        {"more": 1},
    ],
)
def test_damaged_trees_are_refused(change: dict[str, object]):
    tree = {"classes": 2, "ignore": 255, "matrix": [[1, 2], [3, 4]]}
    assert Confusion.from_tree(tree).iou() == [1 / 6, 4 / 9]
    with pytest.raises(InputFileError):
        Confusion.from_tree(tree | change)


@pytest.mark.parametrize("change", [{"ratio": 0}, {"ratio": "1"}, {"union": [1]}, {"intersection": 3}, {"x": 1}])
def test_damaged_boundary_trees_are_refused(change: dict[str, object]):
    tree = {"classes": 2, "ignore": 255, "ratio": 0.02, "intersection": [1, 0], "union": [2, 0]}
    assert BoundaryIoU.from_tree(tree).iou() == [0.5, None]
    with pytest.raises(InputFileError):
        BoundaryIoU.from_tree(tree | change)


# --- cityscapesScripts


def official_scores(folder: Path, count: int) -> dict:
    """What the official script says of the predictions under `folder`, found by its own naming rule."""
    args = copy.copy(evalPixelLevelSemanticLabeling.args)
    args.evalInstLevelScore = args.JSONOutput = args.colorized = False
    args.quiet = True
    args.predictionPath = str(folder)
    args.predictionWalk = None
    truths = sorted(str(path) for path in folder.parent.rglob("*_gtFine_labelIds.png"))
    assert len(truths) == count
    return evalPixelLevelSemanticLabeling.evaluateImgLists(
        [evalPixelLevelSemanticLabeling.getPrediction(args, truth) for truth in truths], truths, args
    )


def random_cityscapes(tmp_path: Path, *, true: range | list[int], predicted: list[int], pictures: int = 3) -> Confusion:
    """Writes truth (official ids) and predictions (ours, through `label_ids`); returns our counts."""
    rng = np.random.default_rng(5)
    ours = Confusion(19)
    to_train = np.array([TRAIN_IDS.get(number, 255) for number in range(256)], np.uint8)
    for folder in ("gt", "results"):
        (tmp_path / folder).mkdir()
    for index in range(pictures):
        stem = f"frankfurt_000000_{index:06}"
        truth = rng.choice(np.array(list(true), np.uint8), (40, 60))
        right = to_train[truth]
        random = rng.choice(np.array(predicted, np.uint8), truth.shape)
        usable = np.isin(right, predicted) & (rng.random(truth.shape) < 0.6)
        prediction = np.where(usable, right, random)
        Image.fromarray(truth).save(tmp_path / "gt" / f"{stem}_gtFine_labelIds.png")
        Image.fromarray(label_ids(prediction)).save(tmp_path / "results" / file_name(f"frankfurt/{stem}"))
        ours.add(right, prediction)
    return ours


@pytest.mark.parametrize(
    ("true", "predicted"),
    [
        (range(34), list(range(19))),
        # 16 (train) occurs nowhere; 15 (bus) is only predicted; 12 (rider) is only true.
        ([0, 3, 7, 8, 11, 21, 23, 25], [0, 1, 2, 8, 10, 15]),
    ],
    ids=["all classes", "absent classes"],
)
def test_agreement_with_cityscapesscripts(tmp_path: Path, true: range | list[int], predicted: list[int]):
    ours = random_cityscapes(tmp_path, true=true, predicted=predicted)
    theirs = official_scores(tmp_path / "results", 3)
    for name, iou in zip(CITYSCAPES_19.names, ours.iou(), strict=True):
        expected = theirs["classScores"][name]
        assert math.isnan(expected) if iou is None else abs(iou - expected) <= 1e-9, name
    assert abs(ours.mean_iou() - theirs["averageScoreClasses"]) <= 1e-9
    assert 0.05 < ours.mean_iou() < 0.95
    absent = [name for name, iou in zip(CITYSCAPES_19.names, ours.iou(), strict=True) if iou is None]
    assert bool(absent) == (len(predicted) < 19)


def test_label_ids_are_those_of_cityscapesscripts():
    from cityscapesscripts.helpers.labels import trainId2label

    assert label_ids(np.arange(19, dtype=np.uint8)).tolist() == [trainId2label[number].id for number in range(19)]
    assert CITYSCAPES_19.names == tuple(trainId2label[number].name for number in range(19))


# --- boundary IoU


def slow_boundary(labels: np.ndarray, truth: np.ndarray, label: int, distance: int) -> np.ndarray:
    """A mask minus itself eroded, pixel by pixel; what the truth ignores is on nobody's outline."""
    height, width = labels.shape
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if labels[y, x] != label or truth[y, x] == 255:
                continue
            inside = distance <= y < height - distance and distance <= x < width - distance
            around = (slice(max(0, y - distance), y + distance + 1), slice(max(0, x - distance), x + distance + 1))
            mask[y, x] = not (inside and bool(((labels[around] == label) | (truth[around] == 255)).all()))
    return mask


@pytest.mark.parametrize(
    ("shape", "ratio", "ignored"),
    [((36, 45), 0.02, 0.0), ((36, 45), 0.06, 0.05), ((27, 54), 0.05, 0.2), ((20, 20), 0.9, 0.0), ((1, 40), 0.02, 0.1)],
)
def test_boundary_iou_is_its_definition(shape: tuple[int, int], ratio: float, ignored: float):
    truth = blobs(7, shape, 4, ignored=ignored)
    truth[:5, :9] = 255
    prediction = np.roll(blobs(7, shape, 4), 2, axis=1)
    prediction[shape[0] // 2 :, -7:] = 1
    distance = max(1, round(ratio * math.hypot(*shape)))
    found = BoundaryIoU(5, ratio=ratio)
    found.add(truth, prediction)
    hits, unions = [], []
    for label in range(5):
        first, second = (slow_boundary(labels, truth, label, distance) for labels in (truth, prediction))
        hits.append(int((first & second).sum()))
        unions.append(int((first | second).sum()))
    assert found.to_tree()["intersection"] == hits
    assert found.to_tree()["union"] == unions
    assert found.iou()[4] is None
    assert found.mean_iou() == pytest.approx(mean(h / u for h, u in zip(hits, unions, strict=True) if u), abs=1e-15)


def test_boundary_iou_sees_an_outline_that_iou_does_not():
    truth = np.zeros((200, 200), np.uint8)
    truth[50:150, 50:150] = 1
    prediction = np.zeros_like(truth)
    prediction[53:147, 53:147] = 1
    boundary = BoundaryIoU(2, ratio=0.01)
    boundary.add(truth, prediction)
    # d is 3: the two rings, 100 to 94 and 94 to 88 wide, touch and share no pixel.
    assert boundary.iou()[1] == 0.0
    assert confusion_of((truth, prediction), classes=2).iou()[1] == 94**2 / 100**2


def test_a_single_class_has_its_outline_at_the_edge():
    labels = np.zeros((40, 60), np.uint8)
    boundary = BoundaryIoU(2, ratio=0.05)
    boundary.add(labels, labels)
    distance = round(0.05 * math.hypot(40, 60))
    assert boundary.to_tree()["union"] == [40 * 60 - (40 - 2 * distance) * (60 - 2 * distance), 0]
    assert boundary.iou() == [1.0, None]


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 7, 8])
def test_interior_at_every_distance(distance: int):
    labels = blobs(9, (50, 41), 3)
    labels[20:24, 20:24] = 254
    every = np.zeros_like(labels)
    expected = np.zeros(labels.shape, bool)
    for label in (0, 1, 2, 254):
        expected |= (labels == label) & ~slow_boundary(labels, every, label, distance)
    assert (interior(labels, distance) == expected).all()


def test_a_cityscapes_picture_takes_little_time():
    truth = blobs(1, (1024, 2048), 19)
    boundary = BoundaryIoU(19)
    started = time.process_time()
    boundary.add(truth, np.roll(truth, 5, axis=0))
    # Measured: 0.04 s; a mask and an erosion a class take seconds.
    assert time.process_time() - started < 1
