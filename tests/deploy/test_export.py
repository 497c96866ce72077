"""`export`: what a bundle says of its network, and that nothing but a verified bundle is ever left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deploy import export as exporting
from deploy.backends import Available, Compiler, Engine, Unavailable
from deploy.backends.onnxruntime import ONNXRuntimeBackend
from deploy.bundle import MANIFEST, ROLES, read_bundle
from deploy.deployable import Deployable
from deploy.engine_order import EngineOrder
from deploy.engine_record import read_records
from deploy.export import contract_tree, export
from deploy.letterbox import ResizeRule
from deploy.onnx_gate import check_onnx
from deploy.verify import Comparison, Report
from searchkit.errors import (
    BackendUnavailableError,
    DamagedArtifactError,
    InputFileError,
    StorageError,
    UsageError,
    VerificationError,
)
from searchkit.networks import resolve
from searchkit.sizes import Size
from searchkit.weights import seed_weights

SIZE = Size(64, 96)
FAILED = Report((Comparison(True, 1.0, 1.0, 0.5, 0.5, 1.0, 5),), 1)


@pytest.fixture(scope="module")
def model(tiny_network):
    made = Deployable(tiny_network(), SIZE, "labels")
    assert len(made.onnx) > 1000
    return made


@pytest.fixture
def trained(tiny_network, tmp_path):
    """A weights file whose path is easy to find where it should not be."""
    module = tiny_network().build()
    seed_weights(module, seed=3)
    path = tmp_path / "a-private-folder" / "my-weights.safetensors"
    path.parent.mkdir()
    save_file(module.state_dict(), path)
    return path


TRITON = ["stacks/triton/tiny/config.pbtxt", "stacks/triton/tiny/labels.txt"]


def contract_of(model, resize=None):
    interface = check_onnx(model.onnx, where="x", written_here=True)
    return contract_tree(model, interface, resize or ResizeRule())


def test_a_bundle_holds_all_its_files_and_the_manifest(model, tmp_path):
    exported = export(model, tmp_path / "not" / "there" / "yet")
    assert exported.report.passed
    assert (exported.engines, exported.refusals) == ((), {})
    bundle = read_bundle(tmp_path / "not" / "there" / "yet")
    # An fp32 model has no record of a precision, no rewrite was asked for, and there was no engine to build.
    assert set(bundle.files) == {*ROLES, *TRITON} - {"precision.json", "lowering.json", "engines.json"}
    assert bundle.files["model.onnx"] == model.onnx
    assert bundle.json("verification.json") == exported.report.to_tree()
    assert bundle.json("contract.json") == contract_of(model)
    assert resolve(str(bundle.path)) == model.network
    assert bundle.files["labels.txt"].decode().splitlines() == bundle.json("contract.json")["classes"]
    rows = bundle.files["palette.csv"].decode().splitlines()
    assert rows[0] == "id,name,r,g,b"
    colours = [[int(value) for value in row.split(",")[2:]] for row in rows[1:]]
    assert colours == bundle.json("contract.json")["palette"]


def test_the_weights_in_a_bundle_are_weights_of_the_network(model, tiny_network, tmp_path):
    export(model, tmp_path / "bundle")
    again = Deployable(tiny_network(), SIZE, "labels", weights=tmp_path / "bundle" / "weights.safetensors")
    expected = model.built.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.built.state_dict().items())


def test_the_readme_of_a_bundle_says_what_it_is(model, tmp_path):
    export(model, tmp_path / "stretch")
    text = (tmp_path / "stretch" / "README.md").read_text()
    for words in (
        "# tiny",
        "`image`: uint8 1x64x96x3 NHWC",
        "`labels`: uint8 1x64x96 NHW",
        "inside the model",
        "The weights are not trained",
        "searchkit verify .",
        "stretched to it",
        "`stacks/triton`",
    ):
        assert words in text
    assert "## Engines" not in text
    export(model, tmp_path / "letterbox", resize=ResizeRule("letterbox"))
    assert "scaled to fit, at the top left" in (tmp_path / "letterbox" / "README.md").read_text()
    tree = read_bundle(tmp_path / "letterbox").json("contract.json")
    assert ResizeRule.from_tree(tree["resize"]) == ResizeRule("letterbox")


class FakeCompiler(Compiler):
    """Builds what it is told and runs nothing."""

    name = "fake"

    def probe(self):
        return Unavailable("it runs nothing", "")

    def probe_build(self):
        return Available("9.9", ("sm75", "sm86"))

    def open(self, model, *, device=None, threads=None, mode=None):
        raise AssertionError

    def build(self, model, targets):
        data = f"{len(model.onnx)} {' '.join(targets)}".encode()
        return Engine("fake", "9.9", tuple(targets), data, ".engine", 1.5, {"b": "2", "a": "1"})


def test_an_engine_is_built_and_recorded(model, tmp_path, snapshot):
    order = EngineOrder(FakeCompiler(), ("sm75", "sm86"))
    told = []
    for name in ("one", "two"):
        exported = export(model, tmp_path / name, engines=[order], targets=["sm75"], tell=told.append)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two"), "how long the build took is not in the bundle"
    assert [engine.seconds for engine in exported.engines] == [1.5]
    assert set(exported.refusals) == {"sm75"}
    assert "building an engine with fake for sm75, sm86" in told
    bundle = read_bundle(tmp_path / "one")
    (record,) = read_records(bundle)
    assert bundle.files[record.file] == f"{len(model.onnx)} sm75 sm86".encode()
    assert (record.backend, record.version, record.targets) == ("fake", "9.9", ("sm75", "sm86"))
    assert record.onnx_sha256 == model.onnx_sha256
    text = bundle.files["README.md"].decode()
    assert "- `engines/fake.engine`: fake 9.9, for sm75, sm86" in text
    assert "--trust-engine" in text


def test_a_compiler_that_fails_leaves_the_old_bundle(model, tmp_path, snapshot, monkeypatch):
    export(model, tmp_path / "bundle")
    before = snapshot(tmp_path)

    def refuse(*_args):
        raise VerificationError("the compiler refuses the model")

    monkeypatch.setattr(FakeCompiler, "build", refuse)
    order = EngineOrder(FakeCompiler(), ("sm75",))
    for path in (tmp_path / "bundle", tmp_path / "new" / "bundle"):
        with pytest.raises(VerificationError, match="the compiler refuses"):
            export(model, path, engines=[order])
    assert snapshot(tmp_path) == before


def test_what_a_target_refuses_is_told(model, tmp_path, monkeypatch):
    asked = []

    def check(target, io, precision, data, *, runtime):
        asked.append((target, io, precision, len(data), runtime))
        return ["it has no such operator"]

    monkeypatch.setattr(exporting, "check_export", check)
    told = []
    exported = export(model, tmp_path / "bundle", targets=["v100", "rtx2080ti"], tell=told.append)
    assert asked == [(target, "labels", "fp32", len(model.onnx), None) for target in ("v100", "rtx2080ti")]
    assert exported.refusals == {key: ["it has no such operator"] for key in ("v100", "rtx2080ti")}
    assert told.count("warning: it has no such operator") == 2


def test_a_model_that_could_not_be_opened_again_is_never_written(model, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise DamagedArtifactError("operator that is not allowed", where="model.onnx: node 7 (Loop)")

    monkeypatch.setattr(exporting, "check_onnx", refuse)
    with pytest.raises(VerificationError, match="could not be opened again: operator that is not allowed") as caught:
        export(model, tmp_path / "bundle")
    assert "tiny: model.onnx: node 7" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_exporting_twice_gives_the_same_bytes(tiny_network, tmp_path, snapshot):
    for name in ("one", "two"):
        export(Deployable(tiny_network(), SIZE, "raw"), tmp_path / name)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert MANIFEST in snapshot(tmp_path / "one")


def test_another_seed_gives_other_bytes(tiny_network, model):
    assert Deployable(tiny_network(), SIZE, "labels", seed=1).onnx != model.onnx


def test_a_failed_verification_leaves_the_old_bundle(model, tmp_path, snapshot, monkeypatch):
    export(model, tmp_path / "bundle")
    before = snapshot(tmp_path)
    monkeypatch.setattr(exporting, "verify", lambda *_: FAILED)
    with pytest.raises(VerificationError, match="max abs error 1 exceeds") as caught:
        export(model, tmp_path / "bundle")
    assert "No model was written" in str(caught.value)
    with pytest.raises(VerificationError):
        export(model, tmp_path / "new" / "bundle")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("where", ["verify", "contract_tree", "_json"])
def test_an_interrupt_leaves_the_old_bundle(model, tmp_path, snapshot, monkeypatch, where):
    export(model, tmp_path / "bundle")
    before = snapshot(tmp_path)

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, where, interrupt)
    for path in (tmp_path / "bundle", tmp_path / "new" / "bundle"):
        with pytest.raises(KeyboardInterrupt):
            export(model, path)
    assert snapshot(tmp_path) == before


def make_folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize(("make", "says"), [(make_folder, "not written by searchkit"), (Path.touch, "not a folder")])
def test_a_place_that_is_taken_is_refused_before_any_work(tiny_network, tmp_path, snapshot, make, says):
    make(tmp_path / "taken")
    before = snapshot(tmp_path)
    model = Deployable(tiny_network(), SIZE, "raw")
    with pytest.raises(UsageError, match=says):
        export(model, tmp_path / "taken")
    assert snapshot(tmp_path) == before
    assert "onnx" not in model.__dict__, "nothing was exported"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tiny_network):
    model = Deployable(tiny_network(), SIZE, "raw")
    with pytest.raises(StorageError, match="/proc/x"):
        export(model, Path("/proc/x"))
    assert "onnx" not in model.__dict__


def test_without_onnx_runtime_nothing_is_exported(tiny_network, tmp_path, monkeypatch):
    monkeypatch.setattr(ONNXRuntimeBackend, "probe", lambda _: Unavailable("it is missing", "pip install it"))
    model = Deployable(tiny_network(), SIZE, "raw")
    with pytest.raises(BackendUnavailableError, match=r"it is missing\. Pip install it"):
        export(model, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
    assert "onnx" not in model.__dict__


def test_weights_from_a_file(tiny_network, trained, tmp_path):
    model = Deployable(tiny_network(), SIZE, "raw", weights=trained)
    export(model, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    sha256 = hashlib.sha256(trained.read_bytes()).hexdigest()
    weights = bundle.json("contract.json")["weights"]
    assert weights == {"trained": True, "text": f"from a file with SHA-256 {sha256}", "sha256": sha256}
    assert b"searchkit.trained" in bundle.files["model.onnx"]
    for name in (*bundle.entries, MANIFEST):
        data = (tmp_path / "bundle" / name).read_bytes()
        for word in (b"private", b"my-weights", str(tmp_path).encode()):
            assert word not in data, name
    # The same weights, drawn instead of read, are the same graph but for what it says of them.
    drawn = Deployable(tiny_network(), SIZE, "raw", seed=3)
    assert abs(len(drawn.onnx) - len(model.onnx)) < 200


def test_weights_of_another_network_are_refused(tiny_network, trained, tmp_path):
    model = Deployable(tiny_network(classes=7), SIZE, "raw", weights=trained)
    with pytest.raises(InputFileError, match="tensor of another shape"):
        export(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_many_classes(tiny_network, tmp_path):
    network = tiny_network(classes=300)
    with pytest.raises(UsageError, match="too many classes for a uint8 label map") as caught:
        Deployable(network, SIZE, "labels")
    assert "Use --io raw" in str(caught.value)
    export(Deployable(network, SIZE, "raw"), tmp_path / "bundle")
    contract = read_bundle(tmp_path / "bundle").json("contract.json")
    assert len(contract["classes"]) == len(set(contract["classes"])) == 300
    assert len(contract["palette"]) == 255


def test_255_classes_fit_in_a_label_map(tiny_network):
    assert Deployable(tiny_network(classes=255), SIZE, "labels").network.classes == 255
    with pytest.raises(UsageError):
        Deployable(tiny_network(classes=256), SIZE, "labels")


SPECS = {
    "raw": ("image", "float32", "NCHW", [1, 3, 64, 96], "logits", "NCHW"),
    "logits": ("image", "float32", "NCHW", [1, 3, 64, 96], "logits", "NCHW"),
    "labels": ("image", "uint8", "NHWC", [1, 64, 96, 3], "labels", "NHW"),
}


@pytest.mark.parametrize("io", SPECS)
def test_the_contract_tells_a_consumer_all_there_is_to_know(tiny_network, io):
    tree = contract_of(Deployable(tiny_network(), SIZE, io))
    assert json.loads(json.dumps(tree)) == tree
    name, dtype, layout, shape, output, output_layout = SPECS[io]
    assert tree["io"] == io
    assert {key: tree["input"][key] for key in ("name", "dtype", "layout", "shape")} == {
        "name": name,
        "dtype": dtype,
        "layout": layout,
        "shape": shape,
    }
    assert (tree["output"]["name"], tree["output"]["layout"]) == (output, output_layout)
    assert all(side >= 1 for side in tree["output"]["shape"]), (
        "the model's own sides, whatever the contract leaves open"
    )
    assert (tree["precision"], tree["resize"]["rule"]) == ("fp32", "stretch")
    assert tree["resolution"] == {"height_px": 64, "width_px": 96}
    assert tree["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert tree["normalisation"]["std"] == [0.229, 0.224, 0.225]
    assert tree["classes"] == [f"class {i}" for i in range(5)]
    assert (len(tree["palette"]), tree["ignore"]) == (5, 255)
    assert tree["weights"]["trained"] is False


def test_a_network_is_not_built_where_it_is_refused(tiny_network, monkeypatch):
    monkeypatch.setattr(type(tiny_network()), "build", lambda *_: pytest.fail("built"))
    with pytest.raises(UsageError, match="Use 64x96"):
        Deployable(tiny_network(), Size(65, 97), "raw")
    with pytest.raises(UsageError, match="unknown tensor contract"):
        Deployable(tiny_network(), SIZE, "nonsense")
