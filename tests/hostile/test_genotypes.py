"""Hostile genotype files: each is read, or refused by one short sentence that names the file and the field.

The files are made from the shipped genotypes by named mutations, one at a time.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from searchkit import genotype
from searchkit.errors import InputFileError
from searchkit.networks import SHIPPED

FILE = "some/where/hostile.json"
TREES = {path.stem: json.loads(path.read_text()) for path in SHIPPED.glob("*.json")}
NEWER = "written by a newer searchkit"


class Case(NamedTuple):
    """A file, the field it must be refused at ("" for the file as a whole), and what the message must say.

    `path` None means that the file is valid.
    """

    data: bytes
    path: str | None
    says: str = ""


def encoded(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def parts(path: str) -> list[str | int]:
    """`stages[1].channels` as keys and indexes."""
    words = path.replace("[", ".[").split(".")
    return [int(word[1:-1]) if word.startswith("[") else word for word in words if word]


def mutated(name: str, path: str, change: Callable[[Any, Any], None]) -> bytes:
    """A shipped genotype after `change(container, key)` at `path`."""
    container = tree = copy.deepcopy(TREES[name])
    *outer, last = parts(path)
    for part in outer:
        container = container[part]
    change(container, last)
    return encoded(tree)


def put(name: str, path: str, value: Any) -> bytes:
    return mutated(name, path, lambda container, key: container.__setitem__(key, value))


def drop(name: str, path: str) -> bytes:
    return mutated(name, path, lambda container, key: container.__delitem__(key))


# Every number: the shipped genotype it stands in, its place and its bounds.
NUMBERS = [
    ("ssr", "classes", 2, 4096),
    ("ssr", "stem", 1, 8192),
    ("ssr", "stages[0].channels", 1, 8192),
    ("ssr", "stages[1].channels", 1, 8192),
    ("ssr", "stages[0].layers[0].mid", 1, 8192),
    ("ssr", "stages[1].layers[3].out", 1, 8192),
    ("ssr", "head.low", 1, 8192),
    ("ssr", "head.bins[0]", 1, 64),
    ("ssr", "head.bin_channels", 1, 8192),
    ("ssr", "head.context", 1, 8192),
    ("ssr", "head.fuse", 1, 8192),
    ("ssr", "provenance.seed", 0, 2**31),
    ("fasterseg", "stem_width", 1, 256),
    ("fasterseg", "head_width", 1, 256),
    ("fasterseg", "shared[0].width", 1, 256),
    ("fasterseg", "branches[1][5].width", 1, 256),
]
# In bounds, and refused for another reason: an ERFNet downsampler must widen.
TOO_NARROW = {
    ("stem", 1): "stem",
    ("stem", 8192): "stages[0].channels",
    ("stages[0].channels", 1): "stages[0].channels",
    ("stages[1].channels", 1): "stages[1].channels",
}
ENUMS = [
    ("ssr", "stages[0].layers[0].dilation", "allowed: 1, 2, 4, 8 or 16", [0, -1, 3, 5, 32, 2**31, True]),
    ("ssr", "stages[1].layers[0].spatial", "allowed: 1 or 2", [0, -1, 3, 4, True, 2.0]),
    ("ssr", "pool", 'allowed: "average" or "max"', ["Max", "", "avg", "m\u0430x"]),
    ("ssr", "mid_norm", "allowed: true or false", [0, 1, "true"]),
    ("fasterseg", "shared[0].stride", "allowed: 1 or 2", [0, -1, 3, 4, True, 2.0]),
    ("fasterseg", "branches[0][0].operator", "zoomed_conv_x2", ["identity", "Conv", "", "conv "]),
]


def numbers() -> Iterator[tuple[str, Case]]:
    for name, path, low, high in NUMBERS:
        says = "allowed: integers from" if high == 2**31 else f"from {low} to {high}"
        for what, value in (("one under", low - 1), ("one over", high + 1), ("far under", -(2**31))):
            under = value < low and high == 2**31
            yield f"{path} {what}", Case(put(name, path, value), path, "at least 0" if under else says)
        for value in (2**63, -(2**63)):
            yield f"{path} {value}", Case(put(name, path, value), path, "integer out of range")
        for what, value in (("lowest", low), ("highest", high)):
            yield f"{path} {what}", Case(put(name, path, value), TOO_NARROW.get((path, value)))
        for what, value in (
            ("as boolean", True),
            ("as text", "1"),
            ("as float", 1.0),
            ("as list", [1]),
            ("as object", {}),
        ):
            yield f"{path} {what}", Case(put(name, path, value), path, f"got {json.dumps(value)}")


def enums() -> Iterator[tuple[str, Case]]:
    for name, path, says, values in ENUMS:
        for value in [*values, None, [], {}, 1.0, 1.5, "1"]:
            yield f"{path} {value!a}", Case(put(name, path, value), path, says)


def fields(value: Any, path: str = "") -> Iterator[str]:
    """The path of every field of every object, but of one item of each list only."""
    if isinstance(value, list) and value:
        yield from fields(value[0], f"{path}[0]")
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else key
            yield inner
            yield from fields(item, inner)


def missing() -> Iterator[tuple[str, Case]]:
    for name in ("ssr", "ssr-baseline1", "fasterseg"):
        for path in fields(TREES[name]):
            # Without its type nothing in the head can be read, so that alone is reported.
            optional = path.startswith("provenance")
            yield f"{name} without {path}", Case(drop(name, path), None if optional else path, "missing field")
            if not optional:
                yield f"{name} null {path}", Case(put(name, path, None), path, "got null")


def unknown() -> Iterator[tuple[str, Case]]:
    for name, path, near in (
        ("ssr", "clases", "Did you mean classes?"),
        ("ssr", "schema_version", "Did you mean schema?"),
        ("ssr", "stages[1].channel", "Did you mean channels?"),
        ("ssr", "stages[0].layers[1].dilatation", "Did you mean dilation?"),
        ("ssr", "head.bin_chanels", "Did you mean bin_channels?"),
        ("ssr-baseline1", "head.low", "allowed: type"),
        ("ssr-baseline1", "head.classifier", "allowed: type"),
        ("ssr", "provenance.autor", "Delete it"),
        ("ssr", "provenance.strategie", "Did you mean strategy?"),
        ("fasterseg", "branches[0][2].with", "Did you mean width?"),
        ("fasterseg", "shared[2].operators", "Did you mean operator?"),
        ("fasterseg", "stem", "Did you mean stem_width?"),
        ("fasterseg", "__class__", "Did you mean classes?"),
        ("ssr", "_target_", "Delete it"),
    ):
        yield f"{name} with {path}", Case(put(name, path, 1), path, near)
    renamed = copy.deepcopy(TREES["ssr"])
    renamed["pools"] = renamed.pop("pool")
    yield "renamed field", Case(encoded(renamed), "pools", "Did you mean pool?")
    for what, key in (("long", "k" * 256), ("dots", "../../etc/passwd"), ("empty", ""), ("emoji", "\N{AUTOMOBILE}")):
        shown = json.dumps(key) if len(key) < 80 else json.dumps(key)[:77] + "..."
        yield f"unknown {what}", Case(encoded(TREES["ssr"] | {key: 1}), f"[{shown}]", "Delete it")
    many = TREES["ssr"] | {f"k{i}": 0 for i in range(50_000)}
    yield "50,000 unknown fields", Case(encoded(many), "k0", "the first of 50000 problems")


def headers() -> Iterator[tuple[str, Case]]:
    for value in (0, -1, True, False, "1", 1.0, None, [], {}):
        yield f"schema {value!r}", Case(encoded(TREES["ssr"] | {"schema": value}), "schema", "unknown schema")
    for value in (2, 99, 2**31):
        yield f"schema {value}", Case(encoded(TREES["ssr"] | {"schema": value}), "schema", NEWER)
    for value in ("sr", "SSR", "", "../ssr", "ssr.genotype", "os", "__init__", 1, None, ["ssr"], {"ssr": 1}):
        yield f"space {value!r}", Case(encoded(TREES["ssr"] | {"space": value}), "space", "unknown search space")
    yield "space of others", Case(encoded(TREES["ssr"] | {"space": "fasterseg"}), "head", "unknown field")
    for what, tree in (("list", []), ("text", "ssr"), ("number", 1), ("null", None), ("genotypes", [TREES["ssr"]])):
        yield f"document is {what}", Case(encoded(tree), "", "not a genotype")
    yield "document is empty object", Case(b"{}", "schema", "missing field")


def texts() -> Iterator[tuple[str, Case]]:
    for value in (
        "../x",
        "/etc/passwd",
        "CON",
        "a b",
        "",
        ".hidden",
        "-rf",
        "a/b",
        "a\\b",
        "é",
        "x" * 65,
        "$(id)",
        1,
        None,
    ):
        yield f"name {value!r:.20}", Case(put("ssr", "provenance.name", value), "provenance.name", "wrong value")
    for field in ("name", "description", "source", "strategy", "data", "parent"):
        path = f"provenance.{field}"
        yield f"{field} NUL", Case(put("ssr", path, "a\0/../b"), path, "control character")
        yield f"{field} RTL", Case(put("ssr", path, "a\u202eb"), path, "control character")
        yield f"{field} surrogate", Case(put("ssr", path, "\ud800"), path, "lone surrogate")
        yield f"{field} 300", Case(put("ssr", path, "x" * 300), path, "string too long")
        yield f"{field} number", Case(put("ssr", path, 5), path, "got 5")
    for value in ("xyz", "A" * 64, "0" * 63, "0" * 65):
        yield (
            f"parent {len(value)} {value[0]}",
            Case(put("ssr", "provenance.parent", value), "provenance.parent", "64 hexadecimal"),
        )
    yield "provenance is text", Case(put("ssr", "provenance", "me"), "provenance", "an object with name, ")


def shapes() -> Iterator[tuple[str, Case]]:
    layer, conv = TREES["ssr"]["stages"][0]["layers"][0], {"operator": "conv", "width": 8, "stride": 1}
    stage = TREES["ssr"]["stages"][0]
    for count in (0, 1, 3):
        says = f"got {count} item{'' if count == 1 else 's'}; allowed: an array of exactly 2 items"
        yield f"{count} stages", Case(put("ssr", "stages", [stage] * count), "stages", says)
    for name, path, item, low, high in (
        ("ssr", "stages[0].layers", layer, 0, 64),
        ("ssr", "head.bins", 1, 1, 8),
        ("fasterseg", "shared", conv, 0, 64),
        ("fasterseg", "branches[0]", conv, 0, 64),
        ("fasterseg", "branches", [], 1, 2),
    ):
        says = f"allowed: an array of {f'{low} to' if low else 'at most'} {high} items"
        for count in {low - 1, high + 1} - {-1}:
            yield f"{count} {path}", Case(put(name, path, [item] * count), path, f"got {count} items; {says}")
        for value in ({}, "[]", 1, False):
            yield f"{path} {value!r}", Case(put(name, path, value), path, says)
    yield "64 layers", Case(put("ssr", "stages[0].layers", [layer] * 64), None)
    yield "huge list", Case(put("ssr", "head.bins", [0] * 90_000), "head.bins[0]", "from 1 to 64")
    yield "huge valid list", Case(put("ssr", "head.bins", [1] * 90_000), "head.bins", "got 90000 items")
    yield "list of 100,000", Case(put("ssr", "head.bins", [1] * 100_001), "", "too many values")
    for value in (5, "aggregation", [], None, True):
        yield f"head {value!r}", Case(put("ssr", "head", value), "head", "whose `type` is aggregation or classifier")
    for value in ("agg", "", 5, None, [], {}, "AggregationHead"):
        yield f"head type {value!r}", Case(put("ssr", "head.type", value), "head.type", 'allowed: "aggregation" or')


def meanings() -> Iterator[tuple[str, Case]]:
    down, skip = {"operator": "conv", "width": 8, "stride": 2}, {"operator": "skip", "width": 8, "stride": 1}
    conv, narrow = {"operator": "conv", "width": 8, "stride": 1}, {"operator": "conv", "width": 7, "stride": 1}
    for value in (1, 2, 3):
        yield f"stem {value}", Case(put("ssr", "stem", value), "stem", f"got {value} after 3 channels")
    yield "stage not wider", Case(put("ssr", "stages[0].channels", 16), "stages[0].channels", "allowed at least 17")
    yield "second not wider", Case(put("ssr", "stages[1].channels", 48), "stages[1].channels", "got 48 after 48")
    yield "nothing pooled", Case(put("ssr-baseline1", "pool", "max"), "pool", 'allowed "average"')
    bare = [{"channels": 64, "layers": []}, {"channels": 128, "layers": []}]
    yield "no layer", Case(put("ssr-baseline1", "stages", bare), None)
    yield (
        "nothing normalised",
        Case(encoded(TREES["ssr-baseline1"] | {"stages": bare, "mid_norm": True}), "mid_norm", "allowed false"),
    )
    yield "skip in shared", Case(put("fasterseg", "shared[1]", skip), "shared[1]", "leave it out")
    yield "skip in branch", Case(put("fasterseg", "branches[1][0]", skip), "branches[1][0]", "leave it out")
    third = "branches[0][5].stride"
    yield "three halvings", Case(put("fasterseg", third, 2), third, "1/32 already: got 2, allowed 1")
    yield "three shared", Case(put("fasterseg", "shared", [down] * 3), "shared[2].stride", "the third of stride 2")
    yield "same start", Case(put("fasterseg", "branches", [[conv, down], [conv]]), "branches", "move it to `shared`")
    yield "one and shared", Case(put("fasterseg", "branches", [[down]]), "shared", "leave `shared` empty")
    yield "one empty and shared", Case(put("fasterseg", "branches", [[]]), "shared", "leave `shared` empty")
    lonely = TREES["fasterseg"] | {"shared": [], "branches": [[]]}
    yield "only a stem", Case(encoded(lonely), None)
    yield "stem not merged", Case(encoded(lonely | {"head_width": 7}), "stem_width", "got 8, allowed 7")
    yield (
        "end not merged",
        Case(encoded(lonely | {"branches": [[conv, narrow], [down]]}), "branches[0][1].width", "got 7, allowed 8"),
    )
    yield (
        "shared end",
        Case(encoded(lonely | {"shared": [narrow], "branches": [[], [down]]}), "shared[0].width", "got 7, allowed 8"),
    )


def encodings() -> Iterator[tuple[str, Case]]:
    good = encoded(TREES["ssr"])
    yield "byte-order mark", Case(b"\xef\xbb\xbf" + good, "", "byte-order mark")
    yield "UTF-16", Case(good.decode().encode("utf-16"), "", "not UTF-8")
    yield "empty", Case(b"", "", "file is empty")
    yield "binary", Case(bytes(range(256)) * 4, "", "not UTF-8")
    yield "twice", Case(good + good, "", "Extra data")
    yield "1 MiB", Case(good + b" " * (2**20 - len(good)), None)
    yield "over 1 MiB", Case(good + b" " * (2**20 - len(good) + 1), "", "file too long")
    yield "brackets", Case(b"[" * 100_000, "", "nested too deeply")
    yield "no end of string", Case(b'{"' + b'\\"' * 500_000, "", "Unterminated string")
    yield "comment", Case(b"// ssr\n" + good, "", "not valid JSON")
    yield "trailing comma", Case(good[:-1] + b",}", "", "not valid JSON")
    for key in ("schema", "space", "classes", "head"):
        yield f"second {key}", Case(good[:-1] + f', "{key}": 1}}'.encode(), key, "duplicate key")
    yield (
        "inner duplicate",
        Case(good.replace(b'"mid": 64', b'"mid": 64, "mid": 4', 1), "stages[0].layers[0].mid", "duplicate key"),
    )
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 4301):
        case = good.replace(b'"classes": 19', f'"classes": {text}'.encode())
        yield f"classes {text:.9}", Case(case, "classes", "got " + text[:40])
    for end in range(1, len(good), len(good) // 40):
        yield f"cut at {end}", Case(good[:end], "", "not valid JSON")


SOURCES = (numbers, enums, missing, unknown, headers, texts, shapes, meanings, encodings)
CASES = {f"{source.__name__}: {name}": case for source in SOURCES for name, case in source()}


def test_the_corpus_is_large_and_its_names_are_distinct():
    assert len(CASES) == sum(1 for source in SOURCES for _ in source())
    assert len(CASES) >= 150


def outcome(data: bytes) -> str | None:
    """The refusal, or None where the file is valid; anything else propagates."""
    start = time.process_time()
    try:
        genotype.parse(data, where=FILE)
    except InputFileError as error:
        return str(error)
    finally:
        assert time.process_time() - start < 2
    return None


@pytest.mark.parametrize("name", CASES)
def test_hostile_genotype(name):
    case = CASES[name]
    message = outcome(case.data)
    if case.path is None:
        assert message is None
        return
    assert message is not None, "accepted"
    assert message.startswith(f"{FILE}: {case.path}: " if case.path else f"{FILE}: ")
    assert case.says in message
    assert len(message) < 600
    assert message.isprintable()
    assert not any(word in message for word in ("pydantic", "Input ", "discriminator", "Tuple", "Value error"))
    assert outcome(case.data) == message


@pytest.mark.parametrize("name", TREES)
def test_the_shipped_ones_are_valid(name):
    assert outcome(encoded(TREES[name])) is None


def test_a_file_is_named_by_its_path(tmp_path):
    path = tmp_path / "my.json"
    path.write_bytes(put("ssr", "stem", 0))
    with pytest.raises(InputFileError) as caught:
        genotype.load(path)
    assert str(caught.value).startswith(f"{path}: stem: wrong value (got 0; allowed: an integer from 1 to 8192)")
