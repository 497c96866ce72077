"""The genotype as a format: one spelling, one digest, and a JSON Schema that says the same as the reader."""

from __future__ import annotations

import copy
import hashlib
import json
from random import Random

import jsonschema
import pytest
from pydantic import ValidationError

from searchkit import genotype
from searchkit.errors import InputFileError, UsageError
from searchkit.networks import SHIPPED
from searchkit.spaces import SPACES

# Frozen: bundles and measurements name networks by these.
DIGESTS = {
    "fasterseg": "bb2d195ce044bb3084b89197bcf3fabb843a33d507512c1fe09ef3559651d19e",
    "fasterseg-teacher": "effcbcfeb561ff77fcb1042e1996a22d42b349e2f1bb9f603bf9d57ce04d6e15",
    "ssr": "363ff766326d43981dbb01e89068070002508c19fb5f86e53c64b27fe1ff3138",
    "ssr-baseline1": "b4d437f7c53a2139df79f777eaef0033b152dd9cd4791e4a047842f063c39732",
    "ssr-baseline2": "3f51a5c215d17d1eb86ad476ecb0acfaabb685bb4ad20a4d7c92420ffa635566",
}

# Each a valid network one step away from the shipped one: the place and the new value.
STEPS = {
    "ssr": [
        (("classes",), 20),
        (("pool",), "average"),
        (("mid_norm",), False),
        (("stem",), 17),
        (("stages", 0, "channels"), 65),
        (("stages", 1, "channels"), 129),
        (("stages", 0, "layers", 0, "dilation"), 2),
        (("stages", 0, "layers", 1, "spatial"), 2),
        (("stages", 1, "layers", 2, "mid"), 109),
        (("stages", 1, "layers", 8, "out"), 123),
        (("stages", 0, "layers"), []),
        (("head", "low"), 63),
        (("head", "bins"), [1, 2, 3, 6]),
        (("head", "bins"), [2, 1, 3, 6, 9]),
        (("head", "bin_channels"), 41),
        (("head", "context"), 127),
        (("head", "fuse"), 129),
        (("head",), {"type": "classifier"}),
    ],
    "fasterseg": [
        (("classes",), 11),
        (("stem_width",), 7),
        (("head_width",), 7),
        (("shared", 0, "operator"), "conv"),
        (("shared", 1, "width"), 5),
        (("shared",), []),
        (("branches", 0, 0, "operator"), "skip"),
        (("branches", 0, 6, "width"), 9),
        (("branches", 1, 2, "stride"), 1),
        (("branches", 1, 0, "stride"), 2),
        (("branches", 1), [{"operator": "conv", "width": 8, "stride": 2}]),
    ],
}  # fmt: skip


def tree_of(name: str) -> dict:
    return json.loads((SHIPPED / f"{name}.json").read_text())


def parse(tree: dict) -> genotype.Genotype:
    return genotype.parse(json.dumps(tree).encode(), where="test.json")


def replaced(tree: dict, place: tuple, value: object) -> dict:
    tree = copy.deepcopy(tree)
    container = tree
    for part in place[:-1]:
        container = container[part]
    container[place[-1]] = value
    return tree


def shuffled(value: object, rng: Random) -> object:
    """The same JSON value, keys in another order."""
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


@pytest.fixture(params=DIGESTS)
def name(request) -> str:
    return request.param


def test_every_shipped_genotype_has_a_frozen_digest():
    assert sorted(path.stem for path in SHIPPED.glob("*.json")) == sorted(DIGESTS)


def test_digest_is_frozen(name):
    assert genotype.load(SHIPPED / f"{name}.json").digest == DIGESTS[name]


def test_digest_is_that_of_the_sorted_compact_json_without_provenance(name):
    tree = tree_of(name)
    del tree["provenance"]
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[name]


def test_shipped_files_are_as_to_json_writes_them(name):
    text = (SHIPPED / f"{name}.json").read_text()
    assert genotype.load(SHIPPED / f"{name}.json").to_json() == text


def test_round_trip(name):
    first = genotype.load(SHIPPED / f"{name}.json")
    again = genotype.parse(first.to_json().encode(), where="again.json")
    assert again == first
    assert hash(again) == hash(first)
    assert first.to_tree() == tree_of(name)
    assert list(first.to_tree())[-1] == "provenance"


def test_order_of_keys_and_white_space_mean_nothing(name):
    rng = Random(0)
    texts = {json.dumps(shuffled(tree_of(name), rng), indent=rng.choice((None, 1, 7))) for _ in range(10)}
    assert len(texts) == 10
    found = [genotype.parse(text.encode(), where="test.json") for text in texts]
    assert {g.digest for g in found} == {DIGESTS[name]}
    assert {g.to_json() for g in found} == {(SHIPPED / f"{name}.json").read_text()}


def test_provenance_changes_no_digest_but_is_kept(name):
    new = {"name": "other", "seed": 7, "strategy": "random", "parent": "0" * 64}
    other = parse(tree_of(name) | {"provenance": new})
    assert other.digest == DIGESTS[name]
    assert other.name == "other"
    assert other != parse(tree_of(name))
    assert other.to_tree()["provenance"] == {"description": "", "source": "", "data": "", **new}


def test_provenance_may_be_left_out(name):
    tree = tree_of(name)
    del tree["provenance"]
    assert parse(tree).digest == DIGESTS[name]
    assert parse(tree).name == "unnamed"


@pytest.mark.parametrize(("name", "place", "value"), [(name, *step) for name, steps in STEPS.items() for step in steps])
def test_every_field_changes_the_digest(name, place, value):
    assert parse(replaced(tree_of(name), place, value)).digest != DIGESTS[name]


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_lead_to_different_networks(name):
    digests = {parse(replaced(tree_of(name), *step)).digest for step in STEPS[name]}
    assert len(digests) == len(STEPS[name])


def test_a_genotype_is_frozen():
    ssr = genotype.load(SHIPPED / "ssr.json")
    for owner, field in ((ssr, "classes"), (ssr.provenance, "name"), (ssr.stages[0], "channels"), (ssr.head, "low")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(owner, field, 20)
    with pytest.raises(TypeError):
        ssr.stages[0] = ssr.stages[1]


def test_with_classes(name):
    found = genotype.load(SHIPPED / f"{name}.json")
    other = found.with_classes(150)
    assert type(other) is type(found)
    assert other.classes == 150
    assert other.digest != found.digest
    assert other.provenance == found.provenance
    assert other.with_classes(19) == found


@pytest.mark.parametrize("classes", [1, 4097, 0, -1, 2**63, True, 19.0, "19", None])
def test_with_classes_out_of_range(classes):
    with pytest.raises(UsageError, match="number of classes out of range"):
        genotype.load(SHIPPED / "ssr.json").with_classes(classes)


@pytest.mark.parametrize("classes", [2, 4096])
def test_with_classes_at_the_limits(classes):
    assert genotype.load(SHIPPED / "ssr.json").with_classes(classes).classes == classes


def test_a_space_counts_its_own_cost():
    with pytest.raises(TypeError, match="abstract"):
        genotype.Genotype(schema=1, space="ssr", classes=19)


def test_json_schema_is_of_its_draft_and_accepts_what_is_shipped(name):
    tree = tree_of(name)
    for schema in (genotype.json_schema(), genotype.json_schema(tree["space"])):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(tree, schema)


def test_json_schema_covers_every_space_and_refuses_the_other_spaces():
    assert len(genotype.json_schema()["oneOf"]) == len(SPACES.names())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree_of("ssr"), genotype.json_schema("fasterseg"))
    with pytest.raises(UsageError, match="unknown search space"):
        genotype.json_schema("darts")


WRONG = [
    ("ssr", ("schema",), 2),
    ("ssr", ("schema",), True),
    ("ssr", ("space",), "darts"),
    ("ssr", ("classes",), 1),
    ("ssr", ("classes",), 4097),
    ("ssr", ("classes",), "19"),
    ("ssr", ("mid_norm",), 1),
    ("ssr", ("pool",), "avg"),
    ("ssr", ("extra",), 0),
    ("ssr", ("stages",), []),
    ("ssr", ("stages", 0, "layers", 0, "dilation"), 3),
    ("ssr", ("stages", 0, "layers", 0, "spatial"), 4),
    ("ssr", ("stages", 0, "layers", 0, "out"), 8193),
    ("ssr", ("stages", 0, "layers", 0, "width"), 8),
    ("ssr", ("head",), {}),
    ("ssr", ("head",), {"type": "classifier", "low": 3}),
    ("ssr", ("head", "bins"), []),
    ("ssr", ("head", "bins", 0), 65),
    ("ssr", ("provenance", "name"), "../x"),
    ("ssr", ("provenance", "seed"), -1),
    ("fasterseg", ("stem_width",), 257),
    ("fasterseg", ("branches",), []),
    ("fasterseg", ("branches",), [[], [], []]),
    ("fasterseg", ("branches", 0, 0, "stride"), 3),
    ("fasterseg", ("shared", 0, "operator"), "identity"),
]


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_json_schema_and_reader_refuse_the_same(name, place, value):
    tree = replaced(tree_of(name), place, value)
    for schema in (genotype.json_schema(), genotype.json_schema(name)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tree, schema)
    with pytest.raises(InputFileError):
        parse(tree)


def test_json_schema_requires_what_the_reader_requires(name):
    schema = genotype.json_schema()
    for field in tree_of(name):
        tree = tree_of(name)
        del tree[field]
        if field == "provenance":
            jsonschema.validate(tree, schema)
        else:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(tree, schema)


def test_json_schema_is_plain_json_and_explains_its_fields():
    schema = genotype.json_schema("ssr")
    assert json.loads(json.dumps(schema)) == schema
    assert schema["properties"]["stem"]["description"] == "output channels of the first downsampler, at 1/2"
    assert "64 hexadecimal digits" in schema["$defs"]["Provenance"]["properties"]["parent"]["$comment"]
