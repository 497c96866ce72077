"""`searchkit verify`: what is proved of a bundle with nothing but the bundle, and that lies are found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from deploy.backends import BACKENDS
from deploy.bundle import read_bundle, write_bundle
from deploy.deployable import Deployable
from deploy.export import export
from deploy.precision.calibration import Calibration
from deploy.prove import Check, Proof, prove
from searchkit.data import open_dataset
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError
from searchkit.sizes import Size

SIZE = Size(64, 96)
SCHEMA_1 = Path(__file__).parents[1] / "golden" / "bundle-schema-1"
NAMES = ["files", "model", "engines", "network", "golden picture"]


@pytest.fixture(scope="module")
def folder(tiny_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "labels"
    export(Deployable(tiny_network(), SIZE, "labels"), path)
    return path


@pytest.fixture
def rewritten(folder, tmp_path):
    """`rewritten(name, change)`: the bundle after `change` of one file's bytes, sealed as if nothing had been."""

    def make(name, change):
        files = dict(read_bundle(folder).files)
        files[name] = change(files[name])
        write_bundle(tmp_path / "changed", files)
        return read_bundle(tmp_path / "changed")

    return make


def states(proof):
    return {check.name: check.state for check in proof.checks}


def test_an_honest_bundle_is_proved(folder):
    proof = prove(read_bundle(folder))
    assert states(proof) == dict.fromkeys(NAMES, "passed")
    assert (proof.problems, proof.unproved) == ([], [])
    assert (proof.network, proof.io, proof.precision, proof.resolution, proof.schema) == (
        "tiny",
        "labels",
        "fp32",
        "64x96",
        2,
    )
    assert proof.session.backend == "onnxruntime"
    tree = proof.to_tree()
    assert json.loads(json.dumps(tree, allow_nan=False)) == json.loads(json.dumps(tree))
    assert (tree["schema"], tree["bundle_schema"], tree["passed"]) == (1, 2, True)
    assert tree["verification"] == read_bundle(folder).json("verification.json")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_are_proved_by_their_own_limits(tiny_network, tmp_path, precision):
    learning = Calibration(open_dataset("streets", size=SIZE), method="minmax", pictures=2)
    calibration = learning if precision == "int8" else None
    export(Deployable(tiny_network(), SIZE, "raw", precision=precision, calibration=calibration), tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    proof = prove(bundle)
    assert states(proof) == dict.fromkeys(NAMES, "passed")
    assert proof.precision == precision
    assert proof.verification == bundle.json("verification.json")
    assert bundle.json("precision.json")["model_sha256"] == bundle.entries["model.onnx"].sha256


@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
def test_another_backend_runs_the_golden_picture(folder, backend):
    proof = prove(read_bundle(folder), backend=backend, threads=1)
    assert states(proof) == dict.fromkeys(NAMES, "passed")
    assert proof.session.backend == backend


def test_a_changed_weight_of_the_model_is_found(rewritten):
    def change(data):
        model = onnx.load_from_string(data)
        tensor = next(t for t in reversed(model.graph.initializer) if "head.conv.weight" in t.name)
        values = numpy_helper.to_array(tensor)[::-1].copy()
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model.SerializeToString()

    proof = prove(rewritten("model.onnx", change))
    assert states(proof)["network"] == "failed"
    assert states(proof)["golden picture"] == "failed"
    assert len(proof.problems) == 2
    assert proof.to_tree()["passed"] is False


def test_other_weights_are_found(rewritten):
    def change(data):
        tensors = load_tensors(data)
        return save_tensors(tensors | {"head.conv.weight": tensors["head.conv.weight"][::-1].copy()})

    proof = prove(rewritten("weights.safetensors", change))
    assert states(proof)["network"] == "failed"
    assert states(proof)["golden picture"] == "passed"


def test_other_golden_labels_are_found(rewritten):
    def change(data):
        tensors = load_tensors(data)
        return save_tensors(tensors | {"labels": (tensors["labels"] + 1) % 5})

    proof = prove(rewritten("golden.safetensors", change))
    assert states(proof)["network"] == "passed"
    (problem,) = proof.problems
    assert problem.startswith("golden picture: labels agree on 0.0000% of pixels, not on 99.9%")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("golden.safetensors", b"nonsense", "not a safetensors file"),
        ("weights.safetensors", b"nonsense", r"weights\.safetensors: not a safetensors file"),
        ("network.json", b"{}", r"network\.json"),
        ("model.onnx", b"nonsense", r"model\.onnx: not an ONNX model"),
        ("contract.json", b"{}", r"contract\.json: not a contract"),
    ],
)
def test_a_file_that_is_sealed_and_is_nothing(rewritten, name, data, says):
    with pytest.raises(DamagedArtifactError, match=says) as caught:
        prove(rewritten(name, lambda _: data))
    assert caught.value.exit_code == 5


def test_a_network_in_another_spelling_is_refused(rewritten):
    with pytest.raises(DamagedArtifactError, match=r"network\.json: not as searchkit writes it"):
        prove(rewritten("network.json", lambda data: data + b"\n"))


def test_a_model_of_another_size_is_refused(rewritten, tiny_network):
    other = Deployable(tiny_network(), Size(32, 96), "labels")
    with pytest.raises(DamagedArtifactError, match="takes another input than the contract says"):
        prove(rewritten("model.onnx", lambda _: other.onnx))


def test_a_model_of_another_contract_is_refused(rewritten, tiny_network):
    def change(data):
        model = onnx.load_from_string(data)
        model.graph.output[0].name = model.graph.node[-1].output[0] = "answer"
        return model.SerializeToString()

    with pytest.raises(DamagedArtifactError, match="gives another output than the contract says"):
        prove(rewritten("model.onnx", change))


def test_schema_1_is_proved_as_far_as_it_goes():
    proof = prove(read_bundle(SCHEMA_1))
    assert states(proof) == {
        "files": "passed",
        "model": "passed",
        "engines": "passed",
        "network": "not proved",
        "answer": "passed",
        "golden picture": "not proved",
    }
    assert (proof.problems, len(proof.unproved), proof.schema) == ([], 2, 1)
    assert proof.to_tree()["bundle_schema"] == 1
    with pytest.raises(UsageError, match="holds no weights, so its PyTorch network cannot be rebuilt"):
        prove(read_bundle(SCHEMA_1), backend="pytorch")


class BrokenSession:
    """As a runtime behaves that opens the model and fails on it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def run(self, batch):
        raise RuntimeError("the kernel failed\nat line 7\nat line 8")


def test_a_runtime_that_fails_is_a_failed_check(folder, monkeypatch):
    backend = BACKENDS.load("pytorch")
    monkeypatch.setattr(type(backend), "open", lambda *_args, **_options: BrokenSession())
    proof = prove(read_bundle(folder), backend="pytorch")
    (problem,) = proof.problems
    assert problem == "golden picture: pytorch cannot run the model: the kernel failed"
    assert proof.session is None


def test_a_backend_that_cannot_run_here_is_refused_before_any_work(folder, monkeypatch):
    monkeypatch.setattr("deploy.prove.verify", lambda *_: pytest.fail("worked"))
    with pytest.raises(BackendUnavailableError, match="tensorrt"):
        prove(read_bundle(folder), backend="tensorrt")
    with pytest.raises(BackendUnavailableError, match="no such device here"):
        prove(read_bundle(folder), device="npu")
    with pytest.raises(UsageError, match="unknown backend"):
        prove(read_bundle(folder), backend="nonsense")


def test_json_has_no_nan():
    checks = (Check("network", "failed", "max abs error is nan"),)
    proof = Proof("b", 2, "n", "raw", "fp32", "1x1", checks, None, {"error": [float("nan"), np.inf, 1.0]})
    tree = proof.to_tree()
    assert tree["verification"] == {"error": [None, None, 1.0]}
    assert dataclasses.replace(proof, checks=()).to_tree()["passed"] is True
