"""Bundles that were damaged, or made to harm, give an error, never a crash; the Python package refuses each as well."""

from __future__ import annotations

import json
import os
import shutil

import onnx
import pytest

from deploy import manifest
from deploy.segmenter import load
from searchkit import strict_json
from searchkit.errors import SearchkitError
from searchkit.files import sha256_bytes


@pytest.fixture
def bundle(exported_bundle, tmp_path):
    """A copy to damage."""
    return shutil.copytree(exported_bundle(), tmp_path / "bundle")


@pytest.fixture
def refusal(run):
    """`refusal(folder)`: code and message, after the Python package refused the same folder."""

    def opened(folder):
        with pytest.raises(SearchkitError):
            load(folder)
        code, _, message = run("address", "open_bundle", folder, status=1).stdout.decode().partition(": ")
        assert message.endswith("\n")
        assert message.count("\n") == 1
        return code, message

    return opened


def edit_manifest(bundle, change, *, seal=True):
    """Change the decoded manifest, and seal it again."""
    tree = json.loads((bundle / "manifest.json").read_text())
    change(tree)
    tree.pop("sha256", None)
    if seal:
        tree["sha256"] = sha256_bytes(strict_json.canonical(tree))
    (bundle / "manifest.json").write_text(json.dumps(tree))


def replace_file(bundle, name, data):
    """Another content of a file, and a manifest that agrees."""
    (bundle / name).write_bytes(data)
    names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]
    files = {name: (bundle / name).read_bytes() for name in names if name != "manifest.json"}
    (bundle / "manifest.json").write_bytes(manifest.encode(files))


def entry_of(tree, name):
    return tree["files"][name]


def test_the_whole_bundle_opens(run, bundle):
    assert run("address", "open_bundle", bundle, status=0).stdout == b"ok 2000\n"


def test_flipped_bytes(refusal, bundle):
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        data = bytearray(path.read_bytes())
        for place in (0, len(data) // 2, len(data) - 2):
            changed = bytearray(data)
            changed[place] ^= 4
            path.write_bytes(changed)
            assert refusal(bundle)[0] == "damaged", (path.name, place)
        path.write_bytes(data)


def test_truncated_files(refusal, bundle):
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for length in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            # A manifest may lose the line feed at its end.
            if path.name != "manifest.json" or length < len(data) - 1:
                assert refusal(bundle)[0] == "damaged", (path.name, length)
        path.write_bytes(data)


def test_missing_files(refusal, bundle):
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        data = path.read_bytes()
        path.unlink()
        assert refusal(bundle)[0] == ("usage" if path.name == "manifest.json" else "damaged")
        path.write_bytes(data)


def test_no_bundle(refusal, tmp_path):
    assert refusal(tmp_path / "nothing")[0] == "usage"
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file")[0] == "usage"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda tree: tree.update(schema=3), "schema"),
        (lambda tree: tree.update(schema=True), "schema"),
        (lambda tree: tree.update(files=[]), "not a manifest"),
        (lambda tree: tree["files"].update({"../../etc/passwd": entry_of(tree, "README.md")}), "no bundle does"),
        (lambda tree: tree["files"].update({"/etc/passwd": entry_of(tree, "README.md")}), "no bundle does"),
        (lambda tree: tree["files"].update({"stacks/a/../../b": entry_of(tree, "README.md")}), "no bundle does"),
        (lambda tree: tree["files"].update({"stacks/a/b": entry_of(tree, "README.md")}), "does not exist"),
        (lambda tree: tree["files"].pop("README.md"), "lacks README.md"),
        (lambda tree: entry_of(tree, "model.onnx").update(bytes=2**31), "another size"),
        (lambda tree: entry_of(tree, "model.onnx").update(bytes=2**31 + 1), "out of range"),
        (lambda tree: entry_of(tree, "model.onnx").update(bytes=10**4000), "out of range"),
        (lambda tree: entry_of(tree, "model.onnx").update(bytes=-1), "size and SHA-256"),
        (lambda tree: entry_of(tree, "model.onnx").update(bytes=1.5), "no integer"),
        (lambda tree: entry_of(tree, "model.onnx").update(sha256="0" * 64), "another SHA-256"),
        (lambda tree: entry_of(tree, "model.onnx").update(sha256="0" * 63), "size and SHA-256"),
        (lambda tree: tree.update(more="x" * 257), "too long"),
        (lambda tree: tree.update(more=list(range(100_001))), "too many values"),
    ],
)
def test_manifests(refusal, bundle, change, part):
    edit_manifest(bundle, change)
    code, message = refusal(bundle)
    assert code == "damaged"
    assert part in message


def test_manifest_without_a_seal(refusal, bundle):
    edit_manifest(bundle, lambda tree: None, seal=False)
    assert "own SHA-256" in refusal(bundle)[1]


@pytest.mark.parametrize("data", [b"[" * 500_000, b"\xff\xfe{}", b"\0" * 100, b'{"a":' * 100_000, b" " * (2 << 20)])
def test_manifests_that_are_no_json(refusal, bundle, data):
    (bundle / "manifest.json").write_bytes(data)
    assert refusal(bundle)[0] == "damaged"


def test_duplicate_keys(refusal, bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"schema": 2,', '"schema": 2, "schema": 2,'))
    assert "duplicate key" in refusal(bundle)[1]


def test_what_is_not_listed(refusal, bundle):
    (bundle / "model.onnx.data").touch()
    assert "not listed" in refusal(bundle)[1]
    (bundle / "model.onnx.data").unlink()
    (bundle / "engines").mkdir()
    assert "not listed" in refusal(bundle)[1]


def test_links_pipes_and_folders(refusal, bundle, tmp_path):
    readme = bundle / "README.md"
    outside = readme.rename(tmp_path / "outside.md")
    readme.symlink_to(outside)
    assert "symbolic link" in refusal(bundle)[1]
    readme.unlink()
    os.link(outside, readme)
    assert "hard link" in refusal(bundle)[1]
    readme.unlink()
    os.mkfifo(readme)
    assert "pipe" in refusal(bundle)[1]
    readme.unlink()
    readme.mkdir()
    assert "does not exist" in refusal(bundle)[1]
    readme.rmdir()
    outside.rename(readme)
    moved = (bundle / "stacks").rename(tmp_path / "stacks")
    (bundle / "stacks").symlink_to(moved)
    assert "symbolic link" in refusal(bundle)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["resolution"].update(height_px=128),
        lambda tree: tree["resolution"].update(height_px=10**9),
        lambda tree: tree["resolution"].update(height_px=0),
        lambda tree: tree["resolution"].update(height_px="64"),
        lambda tree: tree.pop("io"),
        lambda tree: tree.update(classes=[]),
        lambda tree: tree.update(palette=[[0, 0, 256]]),
        lambda tree: tree.update(ignore=-1),
        lambda tree: tree["resize"].update(rule="crop"),
    ],
)
def test_contracts_that_lie(refusal, bundle, change):
    tree = json.loads((bundle / "contract.json").read_text())
    change(tree)
    replace_file(bundle, "contract.json", json.dumps(tree).encode())
    assert refusal(bundle)[0] == "damaged"


def _external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def _huge_weights(model):
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def _other_name(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"


MODELS = {
    "another file": _external,
    "huge": _huge_weights,
    "`image`": _other_name,
    "operator Loop": lambda model: setattr(model.graph.node[0], "op_type", "Loop"),
    "domain": lambda model: setattr(model.graph.node[0], "domain", "ai.evil"),
    "standard operator set": lambda model: model.opset_import.add(domain="ai.onnx.ml", version=3),
    "field 25": lambda model: model.functions.add(name="f"),
    "attribute with a field": lambda model: model.graph.node[0].attribute.add(name="g", type=5).g.SetInParent(),
    "one input": lambda model: model.graph.input.add(name="second"),
}


@pytest.mark.parametrize("part", MODELS)
def test_models_that_are_sealed_and_hostile(refusal, bundle, part):
    model = onnx.load_from_string((bundle / "model.onnx").read_bytes())
    MODELS[part](model)
    replace_file(bundle, "model.onnx", model.SerializeToString())
    code, message = refusal(bundle)
    assert code == "damaged"
    assert part in message


def test_models_that_onnx_runtime_refuses(refusal, bundle):
    """They pass the gate on the wire; what is wrong is between the nodes."""
    model = onnx.load_from_string((bundle / "model.onnx").read_bytes())
    model.graph.node[-1].input[0] = "nowhere"
    replace_file(bundle, "model.onnx", model.SerializeToString())
    code, message = refusal(bundle)
    assert code == "runtime"
    assert "cannot load the model" in message


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"\xff" * 64, b"not a model at all"])
def test_models_that_are_none(refusal, bundle, data):
    replace_file(bundle, "model.onnx", data)
    assert refusal(bundle)[0] == "damaged"
