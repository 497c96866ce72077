import re
from pathlib import Path

import numpy as np
import pytest

from searchkit.data import open_dataset
from searchkit.data._sheet import label_shares, spread
from searchkit.data.streets import Streets, draw
from searchkit.errors import UsageError
from searchkit.label_sets import CITYSCAPES_19
from searchkit.sizes import Size

DOCUMENT = Path(__file__).parents[3] / "docs" / "streets.md"


def test_splits_and_names():
    streets = open_dataset("streets")
    assert streets.labels is CITYSCAPES_19
    assert {split: streets.count(split) for split in streets.splits()} == {"train": 2975, "val": 500, "test": 500}
    assert streets.name("val", 17) == "streets-1-17"
    assert list(streets.check()) == []


@pytest.mark.parametrize(("split", "seed"), [("train", 0), ("val", 1), ("test", 2)])
def test_a_split_is_the_series_of_its_seed(split, seed):
    sample = open_dataset("streets", size=Size(24, 48)).read(split, 3)
    expected = draw(seed, 3, Size(24, 48))
    assert np.array_equal(sample.image, expected.image)
    assert np.array_equal(sample.labels, expected.labels)


def test_default_size_is_128x256():
    assert open_dataset("streets").read("val", 0).image.shape == (128, 256, 3)


def test_difficulty_is_taken_from_the_name():
    found = open_dataset("streets:difficulty=0.9", size=Size(24, 48)).read("val", 1)
    assert np.array_equal(found.image, draw(1, 1, Size(24, 48), 0.9).image)
    assert not np.array_equal(found.image, draw(1, 1, Size(24, 48), 0.5).image)


@pytest.mark.parametrize(
    "text", ["/data", "difficulty=", "difficulty=-1", "difficulty=1e0", "difficulty=2", "Difficulty=1"]
)
def test_what_is_no_difficulty(text):
    with pytest.raises(UsageError):
        open_dataset(f"streets:{text}")


@pytest.mark.parametrize("size", [(0, 8), (8, 8193), (8.0, 8)])
def test_wrong_sizes(size):
    with pytest.raises(UsageError, match="size"):
        Streets(Size(*size))


@pytest.mark.parametrize("index", [-1, 500, 1.0, True])
def test_no_such_sample(index):
    with pytest.raises(UsageError, match="no such sample"):
        open_dataset("streets").read("val", index)
    with pytest.raises(UsageError, match="no such sample"):
        open_dataset("streets").name("val", index)


@pytest.mark.parametrize("method", ["count", "fingerprint"])
def test_no_such_split(method):
    with pytest.raises(UsageError, match="no such split"):
        getattr(open_dataset("streets"), method)("training")


def test_fingerprint_says_split_size_and_difficulty():
    size = Size(24, 48)
    prints = [
        open_dataset("streets", size=size).fingerprint("train"),
        open_dataset("streets", size=size).fingerprint("val"),
        open_dataset("streets", size=Size(24, 49)).fingerprint("train"),
        open_dataset("streets:difficulty=0.6", size=size).fingerprint("train"),
    ]
    assert len(set(prints)) == 4
    assert prints[0] == open_dataset("streets", size=size).fingerprint("train")


def test_fingerprint_changes_with_the_painter(monkeypatch):
    from searchkit.data import streets

    before = Streets().fingerprint("val")
    paint = streets.paint
    monkeypatch.setattr(streets, "paint", lambda *arguments: (paint(*arguments)[0] ^ 1, paint(*arguments)[1]))
    assert Streets().fingerprint("val") != before


def test_spread():
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(0, 5) == []


def test_the_table_in_the_document_is_what_is_measured():
    rows = re.findall(r"^\| ([a-z ]+) \| ([0-9.]+%) \| ([0-9]+%) \|$", DOCUMENT.read_text(), re.MULTILINE)
    streets = open_dataset("streets")
    indices = spread(streets.count("train"), 100)
    shares = label_shares((streets.read("train", index) for index in indices), streets.labels)
    assert rows == [
        (name, f"{row['share_of_pixels']:.2%}", f"{row['share_of_samples']:.0%}") for name, row in shares.items()
    ]
    assert len(rows) == 20
