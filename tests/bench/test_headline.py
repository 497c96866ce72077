"""The paper's comparison from measurements made up by hand."""

from dataclasses import replace

import pytest

from bench.headline import compare, lines, sizes_of
from searchkit.errors import UsageError
from searchkit.sizes import Size

HALF, WHOLE = Size(512, 1024), Size(1024, 2048)


@pytest.fixture
def runs(measured):
    def at(name, size, milliseconds):
        rounds = ((milliseconds,) * 5, (1.1 * milliseconds,) * 5)
        return replace(measured(name, rounds), resolution=size)

    return [at("ssr", HALF, 10.0), at("ssr", WHOLE, 40.0), at("fasterseg", HALF, 5.0), at("fasterseg", WHOLE, 20.0)]


def test_each_pair_stands_beside_the_papers(runs):
    headline, whole, half = compare(runs, WHOLE)
    assert (headline.speed, whole.speed, half.speed) == pytest.approx((2.0, 0.5, 0.5))
    assert headline.interval == pytest.approx((2.0, 2.0))
    assert (headline.paper_fps, whole.paper_fps, half.paper_fps) == ((175, 105), (53, 105), None)
    assert headline.paper_speed == pytest.approx(175 / 105)
    assert headline.paper_on.startswith("RTX 2080 Ti, PyTorch")


def test_equal_resolution_is_never_left_out(runs):
    text = "\n".join(lines(compare(runs, WHOLE)))
    assert "SSR 2.00 times as fast (2.00 to 2.00), measured here" in text
    assert text.count("SSR 0.50 times as fast, so the slower one") == 3, "two measured, one published"
    assert "the paper prints no such pair" in text


def test_other_runtimes_are_not_compared_with_each_other(runs, measured):
    elsewhere = replace(measured("fasterseg", backend="openvino"), resolution=WHOLE)
    assert compare([runs[0], elsewhere], WHOLE) == []


def test_a_size_that_one_does_not_take_is_refused():
    assert sizes_of(WHOLE) == (HALF, WHOLE)
    with pytest.raises(UsageError, match="does not take this size"):
        sizes_of(Size(100, 200))
