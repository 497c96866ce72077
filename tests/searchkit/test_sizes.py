"""Sizes: how they are written, and which ones a network takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchkit.errors import UsageError
from searchkit.sizes import MAX_SIDE_PX, Size, SizeRule, parse_size

RULES = st.builds(SizeRule, multiple=st.integers(1, 64), minimum=st.integers(1, 256))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512x1024", (512, 1024)),
        ("512X1024", (512, 1024)),
        (" 1x1\n", (1, 1)),
        ("8192x8192", (8192, 8192)),
        ("0512x1", (512, 1)),
    ],
)
def test_parse(text, size):
    assert parse_size(text) == Size(*size) == size


@given(st.builds(Size, st.integers(1, MAX_SIDE_PX), st.integers(1, MAX_SIDE_PX)))
def test_what_is_printed_is_parsed(size):
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    "text",
    ["", "512", "512x", "x512", "512x1024x3", "512,1024", "-1x5", "1.5x2", "512 x 1024", "axb", "1e3x1"],
)
def test_words_are_no_resolution(text):
    refuse(text)


def test_long_numbers_and_other_digits_are_no_resolution():
    for text in ("9" * 10 + "x1", "9" * 5000 + "x1", "\N{ARABIC-INDIC DIGIT FIVE}x5"):
        refuse(text)


def refuse(text):
    with pytest.raises(UsageError, match="not a resolution") as caught:
        parse_size(text, where="--size")
    message = str(caught.value)
    assert message.startswith("--size: not a resolution (got '")
    assert message.endswith("allowed: HEIGHTxWIDTH in pixels, such as 512x1024).")
    assert len(message) < 250


@pytest.mark.parametrize(
    ("text", "side", "got"),
    [("0x10", "height", 0), ("10x0", "width", 0), ("8193x1", "height", 8193), ("1x999999999", "width", 999999999)],
)
def test_out_of_range(text, side, got):
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert str(caught.value) == f"--resolution: {side} out of range (got {got}; allowed: 1 to 8192 px)."


def test_check_says_what_works():
    rule = SizeRule(multiple=32, minimum=64)
    rule.check(Size(64, 8192), network="net")
    with pytest.raises(UsageError) as caught:
        rule.check(Size(720, 960), network="net")
    assert str(caught.value) == (
        "--resolution: net does not take this size (got '720x960'; "
        "allowed: sides that are multiples of 32, from 64 to 8192 px). Use 736x960."
    )


@pytest.mark.parametrize("size", [Size(32, 64), Size(64, 32), Size(65, 64), Size(64, 8224), Size(0, 64), Size(-64, 64)])
def test_check_refuses(size):
    with pytest.raises(UsageError, match="does not take this size"):
        SizeRule(multiple=32, minimum=64).check(size, network="net")


@pytest.mark.parametrize(
    ("side", "nearest"),
    [(1, 40), (40, 40), (43, 40), (44, 48), (47, 48), (8191, 8192), (8192, 8192), (10**6, 8192), (-5, 40)],
)
def test_nearest(side, nearest):
    assert SizeRule(multiple=8, minimum=36).nearest(Size(side, 64)) == Size(nearest, 64)
    assert SizeRule(multiple=8, minimum=36).nearest(Size(64, side)) == Size(64, nearest)


@given(RULES, st.integers(1, MAX_SIDE_PX), st.integers(1, MAX_SIDE_PX))
def test_the_nearest_size_is_taken_and_none_is_nearer(rule, height, width):
    nearest = rule.nearest(Size(height, width))
    rule.check(nearest, network="net")
    assert rule.nearest(nearest) == nearest
    first = -(-rule.minimum // rule.multiple) * rule.multiple
    distances = [abs(height - side) for side in range(first, MAX_SIDE_PX + 1, rule.multiple)]
    assert abs(height - nearest.height) == min(distances)
