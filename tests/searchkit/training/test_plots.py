"""`plots.svg` shows what the history holds, whatever that is."""

from __future__ import annotations

import math
import random
import re
from xml.etree import ElementTree

import pytest

from searchkit.label_sets import CITYSCAPES_19, LabelSet, generic_labels
from searchkit.svg import Axes, number, thinned, ticks
from searchkit.training.plots import draw_plots

SVG = "{http://www.w3.org/2000/svg}"


def loss(step, value=0.5, stage=0, lr=1e-3):
    return {"step": step, "stage": stage, "lr": lr, "loss": value, "gradient_norm": 1.0}


def validation(step, miou, iou=None, stage=0):
    return {"step": step, "stage": stage, "miou": miou, "iou": iou or [miou, None]}


def history(validations, stages=(6, 10)):
    """Losses 1 / step every second step, and validations of given mIoU at the steps 4, 8, 12 ..."""
    rows = []
    for step in range(2, sum(stages) + 1, 2):
        stage = int(step > stages[0])
        rows.append(loss(step, 1 / step, stage, 1e-3 / step))
        if step % 4 == 0 and step // 4 <= len(validations):
            rows.append(validation(step, validations[step // 4 - 1], stage=stage))
    return rows


ROWS = history([0.2, 0.5, 0.4])
TWO = generic_labels(2)


def parsed(rows, labels=TWO):
    return ElementTree.fromstring(draw_plots(rows, labels))


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def curves(root):
    """The points of each polyline, in px."""
    found = [element.get("points").split() for element in root.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in points] for points in found]


def bars(root):
    """Width in px of each bar, by its colour."""
    boxes = [element for element in root.iter(f"{SVG}rect") if element.get("height") == "14.0"]
    return {box.get("fill"): float(box.get("width")) for box in boxes}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [loss(20)],
        [loss(20, 0.0, lr=0.0)],
        [validation(3, 0.5)],
        [validation(3, None, [None, None])],
        [validation(3, 0.0, [0.0, 0.0])],
        [loss(1), validation(1, 1.0)],
        ROWS,
        history([0.1], stages=(2, 2, 2)),
        [loss(step, 1e6 / step, lr=3e-9) for step in range(1, 3000)],
    ],
    ids=["none", "one", "zeros", "validation", "no labels", "nothing right", "two", "usual", "short", "long"],
)
def test_every_history_gives_a_picture(rows):
    text = draw_plots(rows, TWO)
    root = ElementTree.fromstring(text)
    assert not re.search(r"nan|inf|None", text)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for name, end in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.get(name, 0)) <= end
    for points in curves(root):
        assert all(76 <= x <= 676 and 78 <= y <= 772 for x, y in points)
    assert {"step", "loss", "mIoU in %"} <= set(texts(root))
    assert draw_plots(list(rows), TWO) == text


def test_curves_go_through_their_data():
    losses, rates, mious = curves(parsed(ROWS))
    steps = list(range(2, 17, 2))
    # The frames are 600 x 170 px; 262 px lie between two of them; the highest loss leaves 5 % above it.
    assert losses == [pytest.approx((76 + 600 * s / 16, 248 - 170 / 1.05 * 2 / s), abs=0.06) for s in steps]
    assert rates == [pytest.approx((x, y + 262), abs=0.11) for x, y in losses]
    assert mious == [
        pytest.approx((76 + 600 * step / 16, 772 - 170 * miou), abs=0.06)
        for step, miou in ((4, 0.2), (8, 0.5), (12, 0.4))
    ]


def test_small_rates_are_written_with_their_power_of_ten():
    assert "learning rate in 1e-4" in texts(parsed(ROWS))
    assert "learning rate in 1e-9" in texts(parsed([loss(1, lr=3e-9)]))
    assert "learning rate" in texts(parsed([loss(1, lr=0.5)]))


def test_the_best_validation_is_ringed_and_named():
    root = parsed(ROWS)
    (ring,) = [dot for dot in root.iter(f"{SVG}circle") if dot.get("fill") == "none"]
    assert (float(ring.get("cx")), float(ring.get("cy"))) == (76 + 600 * 8 / 16, 772 - 170 * 0.5)
    assert "16 steps, best mIoU 50.0 % at step 8" in texts(root)
    # Of two that are as good the first is kept, as its weights are.
    assert "16 steps, best mIoU 40.0 % at step 4" in texts(parsed(history([0.4, 0.4, None])))


def test_bars_are_those_of_the_last_validation_and_marks_those_of_the_best():
    rows = [validation(2, 0.6, [0.2, 1.0, None, 0.6]), validation(4, 0.4, [0.4, 0.0, 0.8, None])]
    labels = LabelSet("four", ("a", "b", "c", "d"), ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)))
    root = parsed(rows, labels)
    assert bars(root) == {"#010203": 100.0, "#040506": 0.0, "#070809": 200.0}
    marks = [
        float(line.get("x1"))
        for line in root.iter(f"{SVG}line")
        if line.get("stroke-width") == "2" and float(line.get("y1")) > 78
    ]
    assert marks == [870 + 250 * share for share in (0.2, 1.0, 0.6)]
    shown = texts(root)
    assert [text for text in shown if text in ("40.0", "0.0", "80.0", "-")] == ["40.0", "0.0", "80.0", "-"]
    assert "IoU a class: validation at step 4" in shown
    assert "best validation, step 2" in shown


def test_stages_are_parted_where_the_one_before_ended():
    root = parsed(ROWS)
    dashed = {float(line.get("x1")) for line in root.iter(f"{SVG}line") if line.get("stroke-dasharray")}
    assert dashed == {76 + 600 * 6 / 16}
    assert texts(root).count("stage 2") == 3
    assert "stage 3" not in texts(root)
    assert not any(line.get("stroke-dasharray") for line in parsed([loss(2), loss(4)]).iter(f"{SVG}line"))


def test_rows_that_a_resumed_run_wrote_again_replace_the_first_ones():
    lost = [loss(6, 9.0), validation(8, 0.9), loss(8, 9.0)]
    assert draw_plots([*lost, *ROWS], TWO) == draw_plots(ROWS, TWO)


def test_every_class_has_a_bar_and_the_picture_grows_with_them():
    many = generic_labels(200)
    root = parsed([validation(1, 0.5, [0.5] * 200)], many)
    assert sum(element.get("height") == "14.0" for element in root.iter(f"{SVG}rect")) == 200
    assert float(root.get("height")) > 200 * 20
    assert set(CITYSCAPES_19.names) <= set(texts(parsed([validation(1, 0.5, [0.5] * 19)], None)))


def test_names_of_classes_may_hold_anything():
    names = ('<a href="x">&', "\x00\x1b[31m\u202e\ud800", "n" * 80)
    root = parsed([validation(1, 0.5, [0.5] * 3)], LabelSet("odd", names, ((0, 0, 0),) * 3))
    assert '<a href="x">&' in texts(root)
    assert "\ufffd\ufffd[31m\ufffd\ufffd" in texts(root)
    assert "n" * 19 + "…" in texts(root)


@pytest.mark.parametrize(
    ("end", "most", "expected"),
    [
        (1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (100, 5, [0, 20, 40, 60, 80, 100]),
        (2.1, 5, [0, 0.5, 1, 1.5, 2]),
        (3600, 6, [0, 1000, 2000, 3000]),
        (7e-4, 5, [0, 2e-4, 4e-4, 6e-4]),
    ],
)
def test_ticks_are_round(end, most, expected):
    assert ticks(end, most) == pytest.approx(expected)


def test_ticks_of_any_axis_are_few_and_within_it():
    generator = random.Random(0)
    for _ in range(500):
        end, most = 10 ** generator.uniform(-12, 12), generator.randint(3, 9)
        found = ticks(end, most)
        assert 2 <= len(found) <= most + 1
        assert found[0] == 0
        assert found[-1] <= end * (1 + 1e-6)
    assert ticks(2, 6, whole=True) == [0, 1, 2]


def test_numbers_are_short():
    values = (0, 0.1 + 0.2, 250, 12_000, 1e6)
    assert [number(value) for value in values] == ["0", "0.3", "250", "12\u2009000", "1\u2009000\u2009000"]


def test_thinning_keeps_every_peak():
    points = [(float(x), math.sin(x / 300)) for x in range(30_000)]
    points[12_345], points[777] = (12_345.0, 5.0), (777.0, -5.0)
    found = thinned(points, 1000)
    assert 900 <= len(found) <= 1010
    assert set(found) <= set(points)
    assert {(12_345.0, 5.0), (777.0, -5.0)} <= set(found)
    assert found == sorted(found)
    assert thinned(points[:1000], 1000) == points[:1000]


def test_axes_start_at_zero_and_end_at_their_ends():
    axes = Axes(10, 20, 100, 50, 4, 2)
    assert axes.at((0, 0)) == (10, 70)
    assert axes.at((4, 2)) == (110, 20)
