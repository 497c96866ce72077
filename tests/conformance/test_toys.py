"""Adding one thing is adding one file (a folder, for a space) and touching nothing else.

A copy of the three packages is given a baseline, a space, a tensor contract and a backend, and each goes the whole way:
listed, shown, exported, verified, measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("searchkit", "deploy", "bench")

BASELINE = '''"""Toy net: two convolutions, for a test."""

from torch import nn

from ..sizes import SizeRule
from . import Baseline


def build(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, classes, 1))


BASELINE = Baseline("Toy net", "nobody, nowhere", build, SizeRule(multiple=2, minimum=2))
'''

SPACE = '''"""Toy space: one width is chosen."""

from .. import Space


class ToySpace(Space):
    name = "toyspace"

    @property
    def genotype_type(self):
        from .genotype import ToyGenotype

        return ToyGenotype

    def build(self, genotype, *, training_heads=False):
        from .network import ToyNet

        return ToyNet(genotype.width, genotype.classes)

    def sample(self, rng):
        return self.genotype_type(schema=1, space="toyspace", classes=19, width=rng.randrange(1, 65))


SPACE = ToySpace()
'''

GENOTYPE = '''"""What is chosen in the toy space."""

from typing import ClassVar, Literal

from pydantic import Field

from ...cost import StageCounter
from ...genotype import Genotype
from ...sizes import SizeRule


class ToyGenotype(Genotype):
    """One width."""

    space: Literal["toyspace"]
    width: int = Field(ge=1, le=64)

    size_rule: ClassVar[SizeRule] = SizeRule(multiple=4, minimum=4)

    def stage_costs(self, size):
        counter = StageCounter("all")
        half = counter.conv(3, self.width, (3, 3), size, stride=2)
        counter.conv(self.width, self.classes, (1, 1), half, bias=True, norm=False)
        yield counter.stage()
'''

NETWORK = '''"""The discrete network of the toy space."""

from torch import nn

from ...blocks import ConvNormAct


class ToyNet(nn.Sequential):
    """One convolution and a classifier: logits at 1/2."""

    def __init__(self, width, classes):
        super().__init__(ConvNormAct(3, width, 3, 2), nn.Conv2d(width, classes, 1))
'''

CONTRACT = '''"""Probabilities in place of logits."""

from torch import nn

from ._float_input import FloatInput


class Shares(FloatInput):
    def wrap(self, network, size):
        return nn.Sequential(network, nn.Softmax(dim=1))

    def output_meaning(self):
        return "the share of each class"


CONTRACT = Shares()
'''

BACKEND = '''"""PyTorch under another name."""

from .pytorch import PyTorchBackend


class ToyBackend(PyTorchBackend):
    name = "toy-runtime"


BACKEND = ToyBackend()
'''

ADDED = {
    "searchkit/baselines/toy_net.py": BASELINE,
    "searchkit/spaces/toyspace/__init__.py": SPACE,
    "searchkit/spaces/toyspace/genotype.py": GENOTYPE,
    "searchkit/spaces/toyspace/network.py": NETWORK,
    "deploy/contracts/toy_shares.py": CONTRACT,
    "deploy/backends/toy_runtime.py": BACKEND,
}

TOY = {"schema": 1, "space": "toyspace", "classes": 19, "width": 12, "provenance": {"name": "toy"}}
AT = ["--resolution", "64x128"]
EXPORTS = {
    f"{name}-{io}": ["searchkit", "export", network, *AT, "--io", io, "-o", f"{name}-{io}", "--json", "-"]
    for name, network, io in (
        ("toy-net", "toy-net", "labels"),
        ("toy", "toy.json", "labels"),
        ("toy", "toy.json", "toy-shares"),
    )
}
COMMANDS = {
    "networks": ["searchkit", "networks", *AT, "--costs", "--json", "-"],
    "show toy-net": ["searchkit", "show", "toy-net", *AT, "--json", "-"],
    "show toy": ["searchkit", "show", "toy.json", *AT, "--json", "-"],
    "schema": ["searchkit", "schema", "toyspace"],
    "schemas": ["searchkit", "schema"],
    "doctor": ["searchkit", "doctor", "--json", "-"],
    **EXPORTS,
    "segment": ["searchkit", "segment", "toy-labels", "street.png", "-o", "labels.png", "--json", "-"],
    "fps": ["bench", "fps", "toy-net", "toy.json", "toy-labels", *AT, "--quick", "--rounds", "1", "--json", "-"],
    "fps toy-runtime": ["bench", "fps", "toy_net", *AT, "--quick", "--backend", "toy-runtime", "--json", "-"],
    "profile toy-net": ["bench", "profile", "toy-net", *AT, "--json", "-"],
    "profile toy": ["bench", "profile", "toy.json", *AT, "--json", "-"],
    "wrong width": ["searchkit", "show", "wrong.json", *AT],
    "wrong size": ["searchkit", "show", "toy.json", "--resolution", "65x128"],
}

# One process for all of them: importing torch takes longer than what is tested.
DRIVER = """
import contextlib, importlib, io, json, sys
import searchkit
from searchkit.console import run
done = {"searchkit": searchkit.__file__}
for name, (program, *argv) in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(importlib.import_module(f"{program}.cli").app, argv)
    done[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
json.dump(done, sys.stdout)
"""


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a copy of the packages and what was added."""
    root = tmp_path_factory.mktemp("toys")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(root)
    for name, text in ADDED.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    assert set(contents(root)) - set(before) == set(ADDED)
    assert all(contents(root)[name] == data for name, data in before.items())
    (root / "toy.json").write_text(json.dumps(TOY))
    (root / "wrong.json").write_text(json.dumps(TOY | {"width": 65}))
    return root


@pytest.fixture(scope="module")
def done(world):
    from searchkit.data import streets
    from searchkit.pictures import write_picture
    from searchkit.sizes import Size

    write_picture(world / "street.png", streets.draw(0, 0, Size(64, 128)).image)
    environment = os.environ | {"PYTHONPATH": str(world), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(COMMANDS),
        cwd=world,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    assert Path(results["searchkit"]).is_relative_to(world), "the copy ran, not the checkout"
    return results


def tree(done, name):
    assert done[name]["code"] == 0, done[name]["err"]
    return json.loads(done[name]["out"])


def test_a_baseline_is_listed_with_its_docstring(done):
    rows = {row["name"]: row for row in tree(done, "networks")["networks"]}
    assert rows["toy-net"]["kind"] == "baseline"
    assert rows["toy-net"]["about"] == "Toy net: two convolutions, for a test."
    assert rows["toy-net"]["params"] == 3 * 8 * 9 + 8 + 8 * 19 + 19


@pytest.mark.parametrize(("name", "params"), [("toy-net", 395), ("toy", 3 * 12 * 9 + 24 + 12 * 19 + 19)])
def test_each_is_shown(done, name, params):
    assert tree(done, f"show {name}")["tree"]["params"] == params


def test_a_space_has_a_schema(done):
    schema = tree(done, "schema")
    assert schema["properties"]["width"]["maximum"] == 64
    assert tree(done, "schemas")["$defs"]["toyspace"]["properties"]["width"] == schema["properties"]["width"]
    assert "wrong.json: width" in done["wrong width"]["err"]
    assert done["wrong width"]["code"] == 3
    assert "Use 64x128" in done["wrong size"]["err"]
    assert done["wrong size"]["code"] == 2


@pytest.mark.parametrize("name", EXPORTS)
def test_each_is_exported_and_verified(done, world, name):
    found = tree(done, name)
    assert found["verification"]["passed"]
    assert found["verification"]["comparisons"][0]["classes_in_reference"] > 1
    assert (world / name / "manifest.json").is_file()


def test_a_bundle_of_a_toy_segments(done, world):
    shares = tree(done, "segment")["share_of_pixels"]
    assert sum(shares.values()) == pytest.approx(1)
    assert (world / "labels.png").is_file()


def test_each_is_measured(done):
    measured = tree(done, "fps")["measurements"]
    assert [m["network"]["name"] for m in measured] == ["toy-net", "toy", "toy"]
    (on_toy,) = tree(done, "fps toy-runtime")["measurements"]
    assert on_toy["session"]["backend"] == "toy-runtime"


@pytest.mark.parametrize("name", ["toy-net", "toy"])
def test_each_is_profiled(done, name):
    assert tree(done, f"profile {name}")["params"] == tree(done, f"show {name}")["tree"]["params"]


def test_a_backend_is_asked_by_the_doctor(done):
    states = {backend["name"]: backend["available"] for backend in tree(done, "doctor")["backends"]}
    assert states["toy-runtime"] is True


def test_nothing_was_touched(done, world):
    assert {name: data.decode() for name, data in contents(world).items() if name in ADDED} == ADDED
    assert not any("toy" in name for name in contents(ROOT))
