"""How pictures get a model's size, and labels get back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.letterbox import GREY, RULES, ResizeRule
from searchkit.errors import UsageError
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

SIZE = Size(32, 64)
SIDES = st.integers(1, 90)


def noise(height, width):
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", RULES)
def test_a_picture_of_the_right_size_is_not_copied(name):
    picture, labels = noise(*SIZE), np.zeros(SIZE, np.uint8)
    assert ResizeRule(name).fit(picture, SIZE) is picture
    assert ResizeRule(name).restore(labels, SIZE) is labels


def test_stretch_fills_the_input():
    picture = noise(50, 50)
    assert np.array_equal(ResizeRule().fit(picture, SIZE), resize_picture(picture, SIZE))


@pytest.mark.parametrize(
    ("picture", "inside"),
    [
        (Size(64, 64), Size(32, 32)),
        (Size(16, 16), Size(32, 32)),
        (Size(16, 64), Size(16, 64)),
        (Size(320, 10), Size(32, 1)),
        (Size(8000, 1), Size(32, 1)),
        (Size(1, 8000), Size(1, 64)),
        (Size(64, 128), Size(32, 64)),
    ],
)
def test_letterbox_keeps_the_proportions_and_fills_the_rest(picture, inside):
    rule, content = ResizeRule("letterbox", (1, 2, 3)), noise(*picture)
    fitted = rule.fit(content, SIZE)
    assert (fitted.shape, fitted.dtype) == ((*SIZE, 3), np.uint8)
    assert np.array_equal(fitted[: inside.height, : inside.width], resize_picture(content, inside))
    rest = np.ones(SIZE, bool)
    rest[: inside.height, : inside.width] = False
    assert (fitted[rest] == (1, 2, 3)).all()


@given(SIDES, SIDES, st.sampled_from(RULES))
def test_labels_come_back_at_the_pictures_size_from_the_picture_alone(height, width, name):
    rule = ResizeRule(name, (9, 9, 9))
    content = np.full((height, width, 3), 5, np.uint8)
    # Labels that say where the picture is: nothing of what was filled in may come back.
    labels = rule.fit(content, SIZE)[..., 0]
    restored = rule.restore(labels, Size(height, width))
    assert restored.shape == (height, width)
    assert (restored == 5).all()


@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule("letterbox"), ResizeRule("letterbox", (0, 255, 7))])
def test_what_is_written_is_read(rule):
    assert ResizeRule.from_tree(json.loads(json.dumps(rule.to_tree()))) == rule


def test_bundles_of_schema_1_stretch():
    assert ResizeRule.from_tree(None) == ResizeRule("stretch", GREY)


def test_what_is_no_rule():
    with pytest.raises(UsageError, match=r"--resize: unknown resize rule \(got 'crop'; allowed: letterbox, stretch"):
        ResizeRule("crop")
    for pad in ((1, 2), (1, 2, 256), (True, 1, 1), (-1, 0, 0), ("1", 2, 3)):
        with pytest.raises(ValueError, match="is not an RGB colour"):
            ResizeRule("letterbox", pad)
