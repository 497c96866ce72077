"""Genotypes of every space whose graph is none, and whatever else becomes of a good file when one place is changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from searchkit import genotype
from searchkit.cli import app
from searchkit.console import run
from searchkit.errors import InputFileError
from searchkit.sizes import Size
from searchkit.spaces import SPACES

FILE = "some/where/graph.json"
ODD = (None, True, -1, 0, 1.0, 2, 10**9, 2**63, "", "x", "\x00", [], {}, [[]], [None], {"layer": 1})
# Places changed in a genotype, evenly spread over it.
PLACES = 40


def places(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key and index, outer ones first."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[str | int, ...], change: Any) -> bytes:
    copied = container = copy.deepcopy(tree)
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return json.dumps(copied).encode()


def outcome(data: bytes) -> str | None:
    """The refusal, whose form is checked, or None where the file is valid."""
    try:
        found = genotype.parse(data, where=FILE)
    except InputFileError as error:
        message = str(error)
        assert message.startswith(f"{FILE}: ")
        assert len(message) < 600
        assert message.isprintable()
        assert not any(word in message for word in ("pydantic", "Input ", "Tuple", "Value error"))
        return message
    assert genotype.parse(found.to_json().encode(), where=FILE) == found
    found.cost(found.size_rule.nearest(Size(64, 128)))
    return None


@pytest.mark.parametrize("name", SPACES.names())
def test_one_place_changed_is_a_genotype_or_is_refused_in_words(name):
    tree = SPACES.load(name).sample(Random(0)).to_tree()
    everywhere = list(places(tree))
    refused = 0
    for path in everywhere[:: max(1, len(everywhere) // PLACES)]:
        files = [changed(tree, path, lambda at, key, value=value: at.__setitem__(key, value)) for value in ODD]
        files.append(changed(tree, path, lambda at, key: at.pop(key)))
        files.append(changed(tree, path, lambda at, key: at.update(x=1) if isinstance(at, dict) else at.append(1)))
        refused += sum(outcome(data) is not None for data in files)
    assert refused > 10 * PLACES


@pytest.mark.parametrize("name", SPACES.names())
def test_each_list_shuffled_doubled_or_cut_is_a_genotype_or_is_refused_in_words(name):
    rng = Random(1)
    tree = SPACES.load(name).sample(Random(2)).to_tree()
    lists = [path for path in places(tree) if isinstance(at(tree, path), list)]
    assert lists
    for path in lists:
        value = at(tree, path)
        for other in (value[::-1], value * 2, value[1:], value[:-1], rng.sample(value, len(value)), value * 50):
            outcome(changed(tree, path, lambda container, key, other=other: container.__setitem__(key, other)))


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def module(layer, rate, *inputs):
    return {"layer": layer, "rate": rate, "inputs": [list(source) for source in inputs], "kernel": 3, "expansion": 3}


def last(layer, *inputs):
    return [module(layer, rate, *inputs) for rate in (4, 8, 16, 32)]


def dcnas(*modules):
    return {"modules": list(modules)}


NONE = {"x1": ["none", "none"], "x2": ["none", "none", "none"]}


def lgcnet(cell, value):
    """The sampled cells with one changed."""
    cells = SPACES.load("lgcnet").sample(Random(0)).to_tree()["cells"]
    return {"cells": [*cells[:cell], value, *cells[cell + 1 :]]}


def halves(count):
    return [{"operator": "conv", "width": 8, "stride": 2}] * count


# Space, what is changed of a sampled genotype, where it is refused, and in which words.
GRAPHS = {
    "cycle of two": ("dcnas", lambda: dcnas(module(1, 4, (2, 8)), *last(2, (1, 4))), "modules[0].inputs[0]", "a cycle"),
    "reads itself": ("dcnas", lambda: dcnas(*last(1, (1, 4))), "modules[0].inputs[0]", "a cycle"),
    "reads its own layer": (
        "dcnas",
        lambda: dcnas(module(1, 4, (0, 4)), module(1, 8, (1, 4)), *last(2, (1, 4), (1, 8))),
        "modules[1].inputs[0]",
        "a cycle",
    ),
    "no such module": (
        "dcnas",
        lambda: dcnas(module(1, 4, (0, 4)), *last(2, (1, 4), (1, 8))),
        "modules[1].inputs[1]",
        "there is no such module",
    ),
    "no such layer": ("dcnas", lambda: dcnas(*last(1, (0, 4), (33, 8))), "modules[0].inputs[1][0]", "33"),
    "no such rate": ("dcnas", lambda: dcnas(*last(1, (0, 64))), "modules[0].inputs[0][1]", "64"),
    "reads nothing": ("dcnas", lambda: dcnas(*last(1)), "modules[0].inputs", "0 items"),
    "read by nothing": (
        "dcnas",
        lambda: dcnas(module(1, 4, (0, 4)), module(1, 8, (0, 8)), *last(2, (1, 4))),
        "modules[1]",
        "nothing reads module 1@1/8",
    ),
    "an end is missing": ("dcnas", lambda: dcnas(*last(1, (0, 4))[:3], module(2, 4, (1, 4))), "modules", "no module"),
    "a gap between layers": ("dcnas", lambda: dcnas(*last(2, (0, 4))), "modules[0].layer", "no module in layer 1"),
    "a node of a cell reads nothing": (
        "lgcnet",
        lambda: lgcnet(13, NONE | {"x2": ["conv", "none", "none"]}),
        "cells[13].x1",
        "reads nothing",
    ),
    "the fusion cell reads an empty cell": ("lgcnet", lambda: lgcnet(13, NONE), "cells[13].x1", "reads nothing"),
    "no such cell": ("lgcnet", lambda: {"reductions": [1, 14]}, "reductions", "at most 13"),
    "reductions the wrong way round": ("lgcnet", lambda: {"reductions": [8, 1]}, "reductions", "ascending"),
    "below 1/32": ("fasterseg", lambda: {"shared": halves(3)}, "shared[2].stride", "1/32 already"),
    "no branch": ("fasterseg", lambda: {"branches": []}, "branches", "0 items"),
    "no stage": ("ssr", lambda: {"stages": []}, "stages", "0 items"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_none_is_refused_where_it_goes_wrong(name, tmp_path, capsys):
    space, change, path, says = GRAPHS[name]
    data = json.dumps(SPACES.load(space).sample(Random(0)).to_tree() | change()).encode()
    message = outcome(data)
    assert message is not None, "accepted"
    assert message.startswith(f"{FILE}: {path}: ")
    assert says in message
    (tmp_path / "graph.json").write_bytes(data)
    assert run(app, ["show", str(tmp_path / "graph.json"), "--svg", str(tmp_path / "x.svg")]) == 3
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
