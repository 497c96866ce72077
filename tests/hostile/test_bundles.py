"""A bundle that is not what was written is refused before ONNX Runtime sees a byte of it."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from deploy import segmenter
from deploy.bundle import MANIFEST, ROLES, write_bundle
from searchkit import strict_json
from searchkit.errors import DamagedArtifactError, UsageError
from searchkit.files import sha256_bytes

CONTRACT = {
    "schema": 1,
    "io": "labels",
    "resolution": {"height_px": 64, "width_px": 96},
    "weights": {"trained": False},
    "classes": ["road", "sky"],
    "palette": [[1, 2, 3], [4, 5, 6]],
    "ignore": 255,
}
NAMES = sorted([MANIFEST, *ROLES])


class OpenedError(Exception):
    """ONNX Runtime would have been given the model."""


@pytest.fixture(autouse=True)
def spy(monkeypatch):
    def create_session(*_args, **_options):
        raise OpenedError

    monkeypatch.setattr(segmenter, "create_session", create_session)


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle"
    files = {name: bytes(range(64)) for name in ROLES} | {"contract.json": json.dumps(CONTRACT).encode()}
    write_bundle(path, files)
    return path


def refusal(bundle):
    with pytest.raises((DamagedArtifactError, UsageError)) as caught:
        segmenter.load(bundle)
    message = str(caught.value)
    assert str(bundle) in message
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_the_spy_sees_a_bundle_that_is_whole(bundle):
    with pytest.raises(DamagedArtifactError, match="cannot open the model") as caught:
        segmenter.load(bundle)
    assert isinstance(caught.value.__cause__, OpenedError)


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation(bundle, name):
    data = (bundle / name).read_bytes()
    for length in range(len(data)):
        (bundle / name).write_bytes(data[:length])
        if name == MANIFEST and length == len(data) - 1:
            continue  # the line end alone: nothing is lost
        refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    for index in range(len(data)):
        for bit in range(8):
            data[index] ^= 1 << bit
            (bundle / name).write_bytes(data)
            refusal(bundle)
            data[index] ^= 1 << bit


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [b"\0", b"{}", b"x" * 2**21])
def test_every_file_grown(bundle, name, extra):
    with (bundle / name).open("ab") as file:
        file.write(extra)
    refusal(bundle)


def test_a_file_larger_than_stated_is_not_read(bundle):
    os.truncate(bundle / "model.onnx", 2**40)
    assert "bundle file is too large" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_missing(bundle, name):
    (bundle / name).unlink()
    message = refusal(bundle)
    assert ("not a bundle" if name == MANIFEST else "does not exist") in message


@pytest.mark.parametrize("name", NAMES)
def test_every_file_renamed(bundle, name):
    (bundle / name).rename(bundle / name.upper())
    refusal(bundle)


def test_two_files_exchanged(bundle):
    (bundle / "model.onnx").rename(bundle / "swap")
    (bundle / "network.json").rename(bundle / "model.onnx")
    (bundle / "swap").rename(bundle / "network.json")
    (bundle / "model.onnx").write_bytes(bytes(range(63)) + b"\0")
    assert "another SHA-256" in refusal(bundle)


@pytest.mark.parametrize("name", ["engine.plan", ".hidden", "MODEL.ONNX", "model.onnx.data", "two\nlines", "engines/"])
def test_a_surplus_file(bundle, name):
    if name.endswith("/"):
        (bundle / name).mkdir()
    else:
        (bundle / name).write_bytes(b"")
    assert "holds a file that its manifest does not list" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_out_of_the_folder(bundle, name):
    outside = bundle.parent / "outside"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    assert "leads outside the folder" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop"])
def test_something_else_in_place_of_a_file(bundle, name, kind):
    path = bundle / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else "/dev/zero")
    refusal(bundle)


def sealed(tree):
    """A manifest as someone would write it who knows how it is sealed."""
    tree.pop("sha256", None)
    return json.dumps(tree | {"sha256": sha256_bytes(strict_json.canonical(tree))}).encode()


def test_sealing_by_hand_makes_a_valid_manifest(bundle):
    tree = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_bytes(sealed(tree))
    with pytest.raises(DamagedArtifactError, match="cannot open the model"):
        segmenter.load(bundle)


def of(name, **changes):
    def change(tree):
        tree["files"][name] |= changes

    return change


def renamed(name):
    def change(tree):
        tree["files"][name] = tree["files"].pop("model.onnx")

    return change


def added(name):
    def change(tree):
        tree["files"][name] = tree["files"]["model.onnx"]

    return change


def top(**changes):
    return lambda tree: tree.update(changes)


CHANGES = {
    **{f"schema {value!r}": top(schema=value) for value in (0, 2, -1, True, "1", None, [1], 2**31)},
    **{f"files {value!r}": top(files=value) for value in (None, [], {}, "model.onnx", 4)},
    **{f"size {v!r}": of("model.onnx", bytes=v) for v in (0, 63, 65, -1, -(2**31), 2**31, 64.0, "64", True, None)},
    **{f"hash {v!r}": of("model.onnx", sha256=v) for v in ("", "0" * 64, "A" * 64, None, 0, ["0" * 64])},
    **{f"renamed {n!r}": renamed(n) for n in ("../x", "/etc/passwd", "a/../../b", "MODEL.ONNX", "", ".", "CON")},
    **{f"added {n!r}": added(n) for n in ("../x", "/etc/passwd", "engine.plan", "contract.json/", MANIFEST)},
    "no entry": lambda tree: tree["files"].pop("verification.json"),
    "empty entry": lambda tree: tree["files"].update({"model.onnx": {}}),
    "entry null": lambda tree: tree["files"].update({"model.onnx": None}),
    "entry a list": lambda tree: tree["files"].update({"model.onnx": [64, "0"]}),
    "no files": lambda tree: tree.pop("files"),
    "no schema": lambda tree: tree.pop("schema"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_sealed_manifest_that_lies(bundle, change):
    tree = json.loads((bundle / MANIFEST).read_bytes())
    change(tree)
    (bundle / MANIFEST).write_bytes(sealed(tree))
    refusal(bundle)


TEXTS = {
    "empty": lambda text: "",
    "a list": lambda text: f"[{text}]",
    "null": lambda text: "null",
    "NaN": lambda text: text.replace('"schema": 1', '"schema": NaN'),
    "infinite": lambda text: text.replace('"schema": 1', '"schema": 1e999'),
    "float": lambda text: text.replace('"schema": 1', '"schema": 1.0'),
    "duplicate schema": lambda text: text.replace('"schema": 1', '"schema": 1, "schema": 1'),
    "duplicate file": lambda text: text.replace('"files": {', '"files": {"model.onnx": {}, '),
    "unsealed": lambda text: text.replace('"sha256": "', '"sha255": "'),
    "byte-order mark": lambda text: "\ufeff" + text,
    "deep": lambda text: "[" * 100_000,
    "long": lambda text: text + " " * 2**20,
    "NUL": lambda text: text + "\0",
    "two documents": lambda text: text + text,
}


@pytest.mark.parametrize("change", TEXTS.values(), ids=TEXTS.keys())
def test_a_manifest_that_is_no_manifest(bundle, change):
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(change(text))
    refusal(bundle)


CONTRACTS = {
    "a list": [],
    "empty": {},
    **{f"without {name}": {k: v for k, v in CONTRACT.items() if k != name} for name in CONTRACT if name != "schema"},
    **{f"io {io!r}": CONTRACT | {"io": io} for io in ("nonsense", 4, None, "../labels", ["raw"])},
    **{f"palette {p!r}": CONTRACT | {"palette": p} for p in (None, [[1, 2]], [[1, 2, 3, 4]], ["red"], [[0, 0, 256]])},
    **{f"size {s!r}": CONTRACT | {"resolution": {"height_px": s, "width_px": 96}} for s in (None, "x", [], 0, -8)},
    "many colours": CONTRACT | {"palette": [[0, 0, 0]] * 300},
    "ignore": CONTRACT | {"ignore": "none"},
    "classes": CONTRACT | {"classes": 4},
    "no class": CONTRACT | {"classes": []},
    "weights": CONTRACT | {"weights": []},
}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_a_contract_that_is_no_contract(tmp_path, contract):
    path = tmp_path / "bundle"
    write_bundle(path, dict.fromkeys(ROLES, b"{}") | {"contract.json": json.dumps(contract).encode()})
    with pytest.raises(DamagedArtifactError, match=r"contract\.json: not a contract"):
        segmenter.load(path)


def test_nothing_is_changed_by_refusing(bundle):
    copy = bundle.with_name("copy")
    shutil.copytree(bundle, copy)
    (copy / "model.onnx").write_bytes(b"x")
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.iterdir()}
    refusal(copy)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in copy.iterdir()} == before
