import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from searchkit.data.streets import draw
from searchkit.errors import UsageError
from searchkit.label_sets import CITYSCAPES_19
from searchkit.sizes import Size

SIZE = Size(256, 512)
LABEL = {name: label for label, name in enumerate(CITYSCAPES_19.names)}


@pytest.fixture(scope="module")
def pictures():
    return [draw(0, index, SIZE) for index in range(40)]


@pytest.fixture(scope="module")
def frequencies(pictures):
    labels = np.stack([sample.labels for sample in pictures])
    return np.bincount(labels.ravel(), minlength=256) / labels.size


def digest(sample):
    return hashlib.sha256(sample.image.tobytes() + sample.labels.tobytes()).hexdigest()


def longest_run(mask):
    """The longest run of true pixels in any row."""
    best = run = np.zeros(mask.shape[0], int)
    for column in mask.T:
        run = np.where(column, run + 1, 0)
        best = np.maximum(best, run)
    return int(best.max())


def test_shapes_and_types(pictures):
    for sample in pictures:
        assert sample.image.shape == (256, 512, 3)
        assert sample.labels.shape == (256, 512)
        assert sample.image.dtype == sample.labels.dtype == np.uint8


def test_same_arguments_same_bytes_whatever_the_global_state():
    np.random.seed(1)
    first = digest(draw(5, 9, Size(96, 192), 0.7))
    np.random.seed(2)
    assert digest(draw(5, 9, Size(96, 192), 0.7)) == first


def test_drawing_leaves_the_global_state_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    draw(0, 1, Size(16, 32))
    assert np.random.random() == expected


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_same_bytes_in_another_process(hash_seed):
    code = (
        "import hashlib; from searchkit.data.streets import draw; from searchkit.sizes import Size;"
        "s = draw(2**63 - 1, 7, Size(96, 192));"
        "print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == digest(draw(2**63 - 1, 7, Size(96, 192)))


def test_every_argument_matters():
    size = Size(96, 192)
    samples = [draw(0, 0, size), draw(0, 1, size), draw(1, 0, size), draw(0, 0, size, 0.9)]
    assert len({digest(sample) for sample in samples}) == 4
    assert len({sample.labels.tobytes() for sample in samples}) == 4


@pytest.mark.parametrize("index", [0, 3, 17])
def test_the_scene_does_not_depend_on_the_size(index):
    small, large = draw(0, index, SIZE), draw(0, index, Size(512, 1024))
    reduced = large.labels[1::2, 1::2]
    assert (reduced == small.labels).mean() > 0.96
    means = large.image.reshape(256, 2, 512, 2, 3).mean((1, 3))
    assert np.abs(means - small.image).mean() < 12


def test_bands_leave_no_seam(monkeypatch):
    from searchkit.data import _streets_paint

    whole = draw(0, 2, Size(64, 128))
    monkeypatch.setattr(_streets_paint, "_BAND_PX", 128 * 16)
    banded = draw(0, 2, Size(64, 128))
    assert digest(whole) == digest(banded)


def test_every_class_occurs_often(pictures):
    for name, label in LABEL.items():
        seen = sum(bool((sample.labels == label).any()) for sample in pictures)
        assert seen >= 5, f"{name} is in {seen} of 40 pictures"


def test_every_label_is_a_class_or_ignored(frequencies):
    assert frequencies[19:255].sum() == 0
    assert frequencies[255] < 0.03


def test_frequencies_are_those_of_a_street(frequencies):
    order = np.argsort(frequencies)[::-1]
    assert LABEL["road"] in order[:2]
    assert 0.2 < frequencies[LABEL["road"]] < 0.5
    assert 0.002 < frequencies[LABEL["pole"]] < 0.05
    assert all(frequencies[label] > 0.0003 for label in range(19))
    small = [LABEL[name] for name in ("traffic light", "traffic sign", "person", "rider", "bicycle")]
    assert all(frequencies[label] < 0.03 for label in small)


def test_thin_things_are_thin(pictures):
    """Lone uprights: of the rows that hold a pole, most hold it a few pixels wide."""
    widths = []
    for sample in pictures[:12]:
        padded = np.pad(sample.labels == LABEL["pole"], ((0, 0), (1, 1))).astype(np.int8)
        edges = np.diff(padded, axis=1)
        widths.append(np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1])
    assert np.median(np.concatenate(widths)) <= 3
    assert all(longest_run(s.labels == LABEL["traffic light"]) <= 40 for s in pictures)


def test_road_is_below_and_sky_above(pictures):
    rows = np.arange(256)[:, None]
    for sample in pictures:
        labels = sample.labels
        assert (rows * (labels == LABEL["sky"])).max() < 140
        assert (labels[:90] != LABEL["road"]).all()
        assert np.bincount(labels[200]).argmax() in {LABEL["road"], LABEL["car"], LABEL["sidewalk"]}


def test_texture_overlap_grows_with_difficulty():
    """The mean colours of ground and walls draw together, so that colour alone tells less."""
    surfaces = [LABEL[name] for name in ("road", "sidewalk", "terrain", "wall", "building")]

    def spread(difficulty):
        found = []
        for index in range(12):
            sample = draw(1, index, Size(128, 256), difficulty)
            masks = [sample.labels == label for label in surfaces]
            means = [sample.image[mask].mean(0) for mask in masks if mask.sum() > 50]
            found.append(np.std(means, axis=0).mean() / sample.image.mean())
        return np.mean(found)

    assert spread(1.0) < 0.8 * spread(0.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (33, 7), (64, 1), (2, 3), (8192, 1), (1, 8192)])
def test_extreme_sizes(size):
    for index in range(3):
        sample = draw(0, index, Size(*size), 1.0)
        assert sample.image.shape == (*size, 3)
        assert sample.labels.shape == size


@pytest.mark.parametrize("difficulty", [0, 1, 0.0, 1.0])
def test_difficulty_bounds_are_allowed(difficulty):
    assert draw(0, 0, Size(8, 16), difficulty).labels.shape == (8, 16)


@pytest.mark.parametrize("difficulty", [-0.01, 1.01, float("nan"), float("inf"), "0.5", None, True])
def test_difficulty_out_of_range(difficulty):
    with pytest.raises(UsageError, match="difficulty"):
        draw(0, 0, Size(8, 16), difficulty)


@pytest.mark.parametrize("value", [-1, 2**63, 1.0, "1", None, True])
@pytest.mark.parametrize("name", ["seed", "index"])
def test_wrong_numbers(name, value):
    with pytest.raises(UsageError, match=name):
        draw(**{"seed": 0, "index": 0, name: value}, size=Size(8, 16))


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (8193, 8), (8, 8193), (8.0, 8)])
def test_wrong_sizes(size):
    with pytest.raises(UsageError, match=r"height|width"):
        draw(0, 0, Size(*size))
