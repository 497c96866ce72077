"""What a network argument means: names, paths, folders, and what is said where it means nothing."""

from __future__ import annotations

import json

import pytest

from searchkit.baselines import BASELINES
from searchkit.errors import InputFileError, SearchkitError, UsageError
from searchkit.footprint import on_meta
from searchkit.networks import SHIPPED, Network, from_genotype, known_names, resolve, shipped_genotypes
from searchkit.sizes import Size


def refusal(argument: str, kind: type[SearchkitError]) -> str:
    with pytest.raises(kind) as caught:
        resolve(argument)
    message = str(caught.value)
    assert len(message) < 600
    return message


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", known_names())
def test_every_known_name_resolves_and_builds_on_meta(name):
    network = resolve(name)
    assert network.name == name
    assert network.classes == 19
    size = network.size_rule.nearest(Size(64, 128))
    network.check(size)
    assert on_meta(network.build_on_meta(), size).params > 0


def test_known_names_are_the_shipped_genotypes_then_the_baselines():
    assert known_names() == [*shipped_genotypes(), *BASELINES.names()]
    assert len(set(known_names())) == len(known_names())


def test_a_shipped_name_is_a_genotype():
    network = resolve("ssr-baseline1")
    assert (network.kind, network.family) == ("genotype", "ssr")
    assert network == from_genotype(network.genotype)
    assert network.digest == network.genotype.digest
    assert network.to_json() == (SHIPPED / "ssr-baseline1.json").read_text()


@pytest.mark.parametrize("argument", ["fast-scnn", "fast_scnn"])
def test_a_baseline_takes_hyphens_and_underscores(argument):
    network = resolve(argument)
    assert (network.name, network.kind, network.family) == ("fast-scnn", "baseline", "fixed")
    assert json.loads(network.to_json()) == {"baseline": "fast-scnn", "classes": 19}


def test_a_path_to_a_genotype(folder):
    (folder / "mine.json").write_text((SHIPPED / "ssr.json").read_text())
    assert resolve("mine.json") == resolve(str(folder / "mine.json")) == resolve("./mine.json") == resolve("ssr")


def test_a_file_without_a_suffix_is_found(folder):
    (folder / "mine").write_text((SHIPPED / "ssr.json").read_text())
    assert resolve("mine") == resolve("ssr")


def test_a_name_is_stronger_than_a_file_of_that_name(folder):
    (folder / "ssr").write_text("not a genotype")
    assert resolve("ssr").family == "ssr"
    assert "not valid JSON" in refusal("./ssr", InputFileError)


@pytest.mark.parametrize("name", ["ssr", "erfnet"])
def test_a_folder_is_read_by_its_record(folder, name):
    (folder / "bundle").mkdir()
    network = resolve(name).with_classes(7)
    (folder / "bundle" / "network.json").write_text(network.to_json())
    assert resolve("bundle") == resolve("bundle/") == resolve(str(folder / "bundle")) == network


def test_an_unknown_name_lists_the_nearest():
    message = refusal("faster-seg", UsageError)
    assert message.startswith("unknown network (got 'faster-seg'; allowed: bisenet-r18, bisenetv2, ")
    assert "Did you mean fasterseg or fasterseg-teacher" in message
    for name in known_names():
        assert name in message


@pytest.mark.parametrize("argument", ["x" * 300, "a\0b", "-", "~", "SSR", "ssr "])
def test_odd_names_are_unknown(argument):
    assert "unknown network" in refusal(argument, UsageError)


@pytest.mark.parametrize("argument", ["missing.json", "a/b", "/nowhere/ssr.json", "d/" * 2000, "x" * 300 + ".json"])
def test_a_missing_file(argument):
    with pytest.raises(UsageError, match="no such file") as caught:
        resolve(argument)
    assert "one of fasterseg, " in str(caught.value)


def test_no_argument_is_no_file():
    assert refusal("", UsageError).startswith("network: no such file (allowed: a genotype file, the folder of a bundle")


@pytest.mark.parametrize("argument", [".", "..", "empty"])
def test_a_folder_without_a_record(folder, argument):
    (folder / "empty").mkdir()
    message = refusal(argument, InputFileError)
    assert message.startswith(f"{argument}: folder has no network.json, as a bundle has, and no genotype.json")


def test_the_folder_of_a_search_is_what_it_found(folder):
    """A bundle's record comes first."""
    found = resolve("ssr-baseline1").genotype
    (folder / "run").mkdir()
    (folder / "run" / "genotype.json").write_text(found.to_json())
    assert resolve("run").genotype == found
    (folder / "run" / "network.json").write_text(resolve("ssr").genotype.to_json())
    assert resolve("run").genotype == resolve("ssr").genotype


def test_a_damaged_genotype_is_named_by_path_and_field(folder):
    tree = json.loads((SHIPPED / "ssr.json").read_text())
    (folder / "mine.json").write_text(json.dumps(tree | {"stem": 0}))
    assert refusal("mine.json", InputFileError).startswith("mine.json: stem: wrong value (got 0; ")


RECORDS = {
    "name": ({"baseline": "erfnett", "classes": 19}, "baseline: unknown baseline", "mean erfnet or"),
    "underscore": ({"baseline": "fast_scnn", "classes": 19}, "baseline: unknown baseline", "fast-scnn"),
    "name is a number": ({"baseline": 5, "classes": 19}, "baseline: unknown baseline", "got 5"),
    "name is null": ({"baseline": None, "classes": 19}, "baseline: unknown baseline", "got null"),
    "name is a list": ({"baseline": ["erfnet"], "classes": 19}, "baseline: unknown baseline", '["erfnet"]'),
    "no classes": ({"baseline": "erfnet"}, "classes: missing field", "add it"),
    "one class": ({"baseline": "erfnet", "classes": 1}, "classes: wrong value", "2 to 4096"),
    "many classes": ({"baseline": "erfnet", "classes": 4097}, "classes: wrong value", "2 to 4096"),
    "true": ({"baseline": "erfnet", "classes": True}, "classes: wrong value", "got true"),
    "text": ({"baseline": "erfnet", "classes": "19"}, "classes: wrong value", 'got "19"'),
    "float": ({"baseline": "erfnet", "classes": 19.0}, "classes: wrong value", "got 19.0"),
    "surplus": ({"baseline": "erfnet", "classes": 19, "width": 2}, "width: unknown field", "baseline, classes"),
    "mixture": ({"baseline": "erfnet", "schema": 1, "space": "ssr"}, "baseline: unknown field", "classes, head"),
    "neither": ({"classes": 19}, "schema: missing field", '"schema": 1'),
    "list": ([], "not a genotype", "a JSON object"),
}


@pytest.mark.parametrize(("record", "problem", "says"), RECORDS.values(), ids=RECORDS.keys())
def test_a_wrong_record(folder, record, problem, says):
    (folder / "network.json").write_text(json.dumps(record))
    message = refusal("network.json", InputFileError)
    assert message.startswith(f"network.json: {problem}")
    assert says.casefold() in message.casefold()


def test_a_baseline_of_other_classes():
    network = resolve("erfnet").with_classes(2)
    assert network == Network("erfnet", "baseline", "fixed", 2)
    assert network.build_on_meta()(meta_image()).shape == (1, 2, 64, 128)
    assert network.digest != resolve("erfnet").digest
    assert network.digest == resolve("erfnet").with_classes(2).digest


def meta_image():
    import torch

    return torch.empty(1, 3, 64, 128, device="meta")


@pytest.mark.parametrize("name", ["ssr", "erfnet"])
@pytest.mark.parametrize("classes", [1, 4097, True])
def test_classes_out_of_range(name, classes):
    with pytest.raises(UsageError, match="number of classes out of range"):
        resolve(name).with_classes(classes)


@pytest.mark.parametrize("name", ["fasterseg", "bisenetv2"])
def test_training_heads_belong_to_genotypes(name):
    plain, training = resolve(name).build(), resolve(name).build(training_heads=True)
    grown = set(training.state_dict()) - set(plain.state_dict())
    assert bool(grown) == (name == "fasterseg")
    assert training.training


def test_check_names_the_nearest_size():
    with pytest.raises(UsageError, match="Use 512x1024") as caught:
        resolve("ssr").check(Size(511, 1025))
    assert str(caught.value).startswith("--resolution: ssr does not take this size (got '511x1025'; ")


@pytest.mark.parametrize("size", [Size(8200, 8192), Size(2**20, 64), Size(0, 0), Size(-8, 64), Size(64, 8200)])
@pytest.mark.parametrize("name", ["ssr", "fasterseg", "erfnet"])
def test_check_refuses_sizes_out_of_range(name, size):
    with pytest.raises(UsageError, match="does not take this size"):
        resolve(name).check(size)


def test_check_holds_baselines_to_the_same_limits():
    with pytest.raises(UsageError, match="erfnet: too large: activation memory"):
        resolve("erfnet").with_classes(300).check(Size(8192, 8192))
