"""Drawn genotypes: nothing lies on anything else, words stay in their boxes, and what is drawn is what there is."""

from __future__ import annotations

import html
import json
import random
import re
import shutil
import subprocess
from itertools import combinations, pairwise
from random import Random
from xml.etree import ElementTree

import pytest

from searchkit import genotype
from searchkit.diagram import Arrow, Box, Diagram
from searchkit.diagram_layout import lay_out
from searchkit.diagram_svg import draw_genotype
from searchkit.networks import SHIPPED
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.ssr.genotype import SSRGenotype, SSRLayer, SSRStage

SVG = "{http://www.w3.org/2000/svg}"
SIZE = Size(512, 1024)
NETWORK = genotype.load(SHIPPED / "ssr.json")


def some_diagram(seed):
    """Boxes in some places of a grid, up to three stacked in one, and any arrows that lead forward."""
    rng = random.Random(seed)
    rates = rng.sample([1, 2, 4, 8, 16, 32], rng.randint(1, 4))
    boxes = [
        Box(f"{column}.{rate}.{at}", column, rate, (rng.choice("iW") * rng.randint(1, 12),) * rng.randint(1, 3), "k")
        for column in range(rng.randint(1, 9))
        for rate in rates
        for at in range(rng.choice([0, 1, 1, 1, 2, 3]))
    ] or [Box("only", 0, 1, ("words",), "k")]
    share = rng.choice([0.05, 0.3])
    arrows = [
        Arrow(one.name, other.name, rng.choice(["", "", "3x3"]))
        for one in boxes
        for other in boxes
        if one.column < other.column and rng.random() < share
    ]
    for column in {box.column for box in boxes}:
        ordered = Diagram(tuple(boxes), ()).in_column(column)
        arrows += [
            Arrow(*(pair if rng.random() < 0.5 else pair[::-1]), rng.choice(["", "3x3"]))
            for pair in pairwise(ordered)
            if rng.random() < share
        ]
    return Diagram(tuple(boxes), tuple(arrows))


def spaces_drawn():
    """(space, seed) of sampled genotypes of every space that can be drawn."""
    return [(name, seed) for name in SPACES.names() for seed in range(6)]


def drawn(name, seed, size=SIZE):
    space = SPACES.load(name)
    found = space.sample(Random(seed))
    size = found.size_rule.nearest(size)
    return found, space.diagram(found, size)


def deepest():
    """As many layers as a genotype may have, widths of four digits among them."""
    layers = tuple(
        SSRLayer(dilation=(1, 2, 4, 8, 16)[at % 5], spatial=1 + at % 2, mid=8192 if at == 9 else 1000, out=64)
        for at in range(64)
    )
    stages = tuple(SSRStage(channels=channels, layers=layers) for channels in (64, 128))
    tree = NETWORK.to_tree() | {"stages": [stage.model_dump(mode="json") for stage in stages]}
    return SSRGenotype.model_validate_json(json.dumps(tree | {"provenance": {"name": "w" * 64}}))


def rectangle_of(place):
    return place.left, place.top, place.right, place.bottom


def overlap(one, other, by=0.01):
    return all(one[at] < other[at + 2] - by and other[at] < one[at + 2] - by for at in (0, 1))


def segments(layout):
    return [(course, *pair) for course in layout.courses for pair in pairwise(course.points) if pair[0] != pair[1]]


def check_layout(diagram):
    layout = lay_out(diagram)
    places = [(place, rectangle_of(place)) for place in layout.places.values()]
    for (_, one), (_, other) in combinations(places, 2):
        assert not overlap(one, other)
    for place, (left, top, right, bottom) in places:
        low, high = layout.rows[place.box.rate]
        assert 0 <= left < right <= layout.width
        assert low <= top < bottom <= high
    lines = segments(layout)
    for course, one, other in lines:
        assert one[0] == other[0] or abs(one[1] - other[1]) < 0.11, "neither horizontal nor vertical"
        ends = (min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))
        assert ends[1] >= 0
        assert ends[3] <= layout.height
        for place, rectangle in places:
            inner = (rectangle[0] + 0.02, rectangle[1] + 0.02, rectangle[2] - 0.02, rectangle[3] - 0.02)
            assert not overlap(ends, inner, by=-0.01), (course, place)
    for (course, *one), (other_course, *other) in combinations(lines, 2):
        if course.net != other_course.net:
            assert not run_along(one, other), (course, other_course)
    return layout


def run_along(one, other):
    """Whether two lines lie on each other over some length."""
    for across in (0, 1):
        along = 1 - across
        flat = all(abs(a[across] - b[across]) < 0.11 for a, b in (one, other))
        if flat and abs(one[0][across] - other[0][across]) < 1.5:
            spans = [sorted((a[along], b[along])) for a, b in (one, other)]
            return min(spans[0][1], spans[1][1]) > max(spans[0][0], spans[1][0]) + 0.01
    return False


@pytest.mark.parametrize("part", range(8))
def test_nothing_lies_on_anything_else(part):
    for seed in range(part, 240, 8):
        check_layout(some_diagram(seed))


def test_arrows_lead_from_their_source_to_their_target():
    for seed in range(60):
        diagram = some_diagram(seed)
        layout = lay_out(diagram)
        assert [course.arrow for course in layout.courses] == list(diagram.arrows)
        for course in layout.courses:
            source, target = layout.places[course.arrow.source], layout.places[course.arrow.target]
            x, y = course.points[-1]
            if source.box.column == target.box.column:
                assert y in (target.top, target.bottom)
                assert {x, *(source.left + source.width / 2, target.left + target.width / 2)} == {x}
                continue
            assert course.points[0] == (source.right, source.middle)
            assert x == target.left
            assert target.top < y < target.bottom
        ports = [(course.arrow.target, course.points[-1]) for course in layout.courses]
        assert len(set(ports)) == len(ports), "two arrows end in one point"


def test_a_straight_arrow_is_one_line_and_a_blocked_one_goes_round():
    boxes = tuple(Box(name, column, 4, (name,), "k") for column, name in enumerate("abc"))
    layout = lay_out(Diagram(boxes, (Arrow("a", "b"), Arrow("b", "c"), Arrow("a", "c"))))
    straight, _, round_about = layout.courses
    assert len(straight.points) == 2
    b = layout.places["b"]
    assert min(y for _, y in round_about.points) < b.top


@pytest.mark.parametrize(("name", "seed"), spaces_drawn())
def test_sampled_genotypes_of_every_space(name, seed):
    found, diagram = drawn(name, seed)
    check_layout(diagram)
    text = draw_genotype(found, diagram, found.size_rule.nearest(SIZE))
    assert text == draw_genotype(found, diagram, found.size_rule.nearest(SIZE))
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter(f"{SVG}text")]
    for line in (line for box in diagram.boxes for line in box.lines):
        assert line in words
    for box in diagram.boxes:
        assert box.kind.replace("_", " ") in words
    assert any(found.digest[:12] in line and f"space {name}" in line for line in words)
    for stage in found.stage_costs(found.size_rule.nearest(SIZE)):
        assert stage.name in words
    reached = {arrow.target for arrow in diagram.arrows}
    assert len([box for box in diagram.boxes if box.name not in reached]) == 1, "all but the image read something"
    read = {arrow.source for arrow in diagram.arrows}
    assert len([box for box in diagram.boxes if box.name not in read]) == 1, "all but the logits are read"


def test_shares_are_those_of_the_stages():
    text = draw_genotype(NETWORK, SPACES.load("ssr").diagram(NETWORK, SIZE), SIZE)
    # As counted: 0.046, 2.86, 5.56 and 2.43 of 10.90 GMACs; docs of the network say 1.023 M parameters.
    assert [re.search(f">{share}%, ", text) is not None for share in ("0.4", "26.3", "51.0", "22.3")] == [True] * 4
    assert "10.9 GMACs at 512x1024, 1.023 M parameters" in text
    assert ">64x128 px<" in text


def test_half_pixels_are_rounded_up():
    diagram = Diagram((Box("a", 0, 8, ("a",), "k"),), ())
    assert ">3x5 px<" in draw_genotype(NETWORK, diagram, Size(24, 40))
    assert ">4x6 px<" in draw_genotype(NETWORK, diagram, Size(25, 41))


def test_hostile_words_stay_words():
    box = Box("a", 0, 1, ("<script>&\x00", "\u202e"), "a<b")
    root = ElementTree.fromstring(draw_genotype(NETWORK, Diagram((box,), (), ("]]>",)), SIZE))
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"<script>&\ufffd", "\ufffd", "a<b", "]]>"} <= set(words)
    assert not list(root.iter(f"{SVG}script"))


A, B = Box("a", 0, 1, ("a",), "k"), Box("b", 1, 1, ("b",), "k")
BELOW, LOWEST = Box("below", 0, 2, ("x",), "k"), Box("lowest", 0, 4, ("x",), "k")


@pytest.mark.parametrize(
    ("boxes", "arrows", "says"),
    [
        ((A, A), (), "two boxes have one name"),
        ((A, B), (Arrow("a", "c"),), "a to c: no such box"),
        ((A, B), (Arrow("b", "a"),), "b to a: it leads neither on nor to a neighbour"),
        ((A, B), (Arrow("a", "a"),), "a to a: it leads neither"),
        ((A, BELOW, LOWEST), (Arrow("a", "lowest"),), "a to lowest: it leads neither"),
        ((A, B), (Arrow("a", "b"), Arrow("a", "b", "again")), "two arrows"),
    ],
)
def test_wrong_diagrams_are_refused(boxes, arrows, says):
    with pytest.raises(ValueError, match=says):
        Diagram(boxes, arrows)


@pytest.mark.parametrize("lines", [(), ("a", "b", "c", "d")])
def test_wrong_boxes_are_refused(lines):
    with pytest.raises(ValueError, match="1 to 3 lines"):
        Box("a", 0, 1, lines, "k")
    with pytest.raises(ValueError, match="without a box"):
        draw_genotype(NETWORK, Diagram((), ()), SIZE)


# In the page every text says how large it is, and which texts and boxes there are.
_MEASURE = """
const found = [...document.querySelectorAll('svg')].map(svg => ({
  width: svg.viewBox.baseVal.width, height: svg.viewBox.baseVal.height,
  texts: [...svg.querySelectorAll('text')].map(t => {
    const b = t.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height, t.textContent, t.style.stroke] }),
  boxes: [...svg.querySelectorAll('rect')].slice(1).map(r => {
    const b = r.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height, r.getAttribute('stroke')] })}));
document.body.textContent = JSON.stringify(found);
"""
GREY = "#6e6e6e"


def measured(tmp_path, pictures):
    """Places of words and boxes in each picture, as a browser shows it."""
    page = f"<meta charset=utf-8><body>{''.join(pictures)}<script>{_MEASURE}</script>"
    (tmp_path / "page.html").write_text(page)
    program = next(path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name)))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run"]
    place = [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run([program, *flags, *place], capture_output=True, text=True, timeout=120, check=True)
    body = re.search("<body>(.*)</body>", done.stdout, re.DOTALL)
    assert body is not None, done.stdout
    return json.loads(html.unescape(body[1]))


def test_in_a_browser_words_stay_in_their_boxes_and_lie_on_no_others(tmp_path):
    pictures = [draw_genotype(*both, both[0].size_rule.nearest(SIZE)) for both in (drawn(*at) for at in spaces_drawn())]
    deep = deepest()
    pictures.append(draw_genotype(deep, SPACES.load("ssr").diagram(deep, SIZE), SIZE))
    pictures += [draw_genotype(NETWORK, some_diagram(seed), SIZE) for seed in range(6)]
    found = measured(tmp_path, pictures)
    assert len(found) == len(pictures)
    inside = 0
    for picture in found:
        texts = picture["texts"]
        for left, top, right, bottom, words, _ in texts:
            assert min(left, top) >= 0, words
            assert right <= picture["width"], words
            assert bottom <= picture["height"], words
        own = [text for text in texts if text[5] == "none"]
        boxes = [box for box in picture["boxes"] if box[4] == GREY]
        for left, top, right, bottom, words, _ in own:
            around = [b for b in boxes if b[0] < left and right < b[2] and b[1] < (top + bottom) / 2 < b[3]]
            assert len(around) == 1, words
            inside += 1
        # Lines of a box touch: letters have less height than their line.
        lines = [(left, top + 2, right, bottom - 2) for left, top, right, bottom, *_ in texts]
        assert not [pair for pair in combinations(lines, 2) if overlap(*pair)]
    assert inside > 300
