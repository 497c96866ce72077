"""A bundle that is not what was written is refused before ONNX Runtime sees a byte of it."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from deploy import bundled, manifest, runners, segmenter
from deploy.backends import BACKENDS, Available
from deploy.bundle import MANIFEST, ROLES, read_bundle, write_bundle
from deploy.engine_record import read_records
from searchkit import strict_json
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, InputFileError, UsageError
from searchkit.files import sha256_bytes

CONTRACT = {
    "schema": 1,
    "io": "labels",
    "resolution": {"height_px": 64, "width_px": 96},
    "weights": {"trained": False, "text": "none"},
    "classes": ["road", "sky"],
    "palette": [[1, 2, 3], [4, 5, 6]],
    "ignore": 255,
}
STACK = "stacks/triton/ssr/config.pbtxt"
ENGINE = "engines/tensorrt-rtx.engine"
NAMES = sorted([MANIFEST, *ROLES, STACK, ENGINE])


class OpenedError(Exception):
    """A runtime would have been given the model."""


@pytest.fixture(autouse=True)
def spy(monkeypatch):
    def opened(*_args, **_options):
        raise OpenedError

    # The made-up model is none, so the gate, which has tests of its own, must let it through to the spy.
    monkeypatch.setattr(bundled.BundledModel, "onnx", property(lambda model: model.bundle.files["model.onnx"]))
    for backend in map(BACKENDS.load, BACKENDS.names()):
        monkeypatch.setattr(type(backend), "open", opened)
    monkeypatch.setattr(runners, "create_session", opened)
    monkeypatch.setattr(segmenter, "mode_for_labels", lambda *_: "default")


def record(files, **changes):
    """`engines.json` for a bundle of these files."""
    found = {
        "file": ENGINE,
        "backend": "tensorrt-rtx",
        "version": "1.7.1",
        "targets": ["sm75"],
        "bytes": len(files[ENGINE]),
        "sha256": sha256_bytes(files[ENGINE]),
        "onnx_sha256": sha256_bytes(files["model.onnx"]),
        "options": {"flags": ""},
    }
    return json.dumps({"schema": 1, "engines": [found | changes]}).encode()


def contents():
    files = {name: bytes(range(64)) for name in ROLES} | {"contract.json": json.dumps(CONTRACT).encode()}
    files |= {STACK: b"name", ENGINE: b"machine code"}
    return files | {"engines.json": record(files)}


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle"
    write_bundle(path, contents())
    return path


def refusal(bundle):
    with pytest.raises((DamagedArtifactError, UsageError)) as caught:
        segmenter.load(bundle, trust_engines=True)
    message = str(caught.value)
    assert str(bundle) in message
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_the_spy_sees_a_bundle_that_is_whole(bundle):
    with pytest.raises(DamagedArtifactError, match="cannot open the model") as caught:
        segmenter.load(bundle)
    assert isinstance(caught.value.__cause__, OpenedError)


# Every bit and every length of a long file would take a minute: of the manifest they are tried in memory below.
MAX_EXHAUSTIVE_BYTES = 500


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation(bundle, name):
    data = (bundle / name).read_bytes()
    # The line end of the manifest alone is nothing lost.
    for length in range(0, len(data) - (name == MANIFEST), 1 if len(data) <= MAX_EXHAUSTIVE_BYTES else 7):
        (bundle / name).write_bytes(data[:length])
        refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    is_short = len(data) <= MAX_EXHAUSTIVE_BYTES
    for index in range(0, len(data), 1 if is_short else 3):
        for bit in range(8) if is_short else [index % 8]:
            data[index] ^= 1 << bit
            (bundle / name).write_bytes(data)
            refusal(bundle)
            data[index] ^= 1 << bit


def decoded(data):
    return manifest.decode(strict_json.loads(bytes(data), where="manifest"), where="manifest")


def test_every_flipped_bit_and_every_truncation_of_a_manifest(bundle):
    data = bytearray((bundle / MANIFEST).read_bytes())
    assert len(decoded(data)[1]) == len(NAMES) - 1
    for index in range(len(data)):
        for bit in range(8):
            data[index] ^= 1 << bit
            with pytest.raises((DamagedArtifactError, InputFileError)):
                decoded(data)
            data[index] ^= 1 << bit
    for length in range(len(data) - 1):
        with pytest.raises((DamagedArtifactError, InputFileError)):
            decoded(data[:length])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [b"\0", b"{}", b"x" * 2**21])
def test_every_file_grown(bundle, name, extra):
    with (bundle / name).open("ab") as file:
        file.write(extra)
    refusal(bundle)


def test_a_file_larger_than_stated_is_not_read(bundle):
    os.truncate(bundle / "model.onnx", 2**40)
    assert "another size than the manifest says (got '1099511627776 bytes'" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_missing(bundle, name):
    (bundle / name).unlink()
    message = refusal(bundle)
    assert ("not a bundle" if name == MANIFEST else "does not exist") in message


@pytest.mark.parametrize("name", NAMES)
def test_every_file_renamed(bundle, name):
    (bundle / name).rename((bundle / name).with_name("X" + (bundle / name).name.upper()))
    refusal(bundle)


def test_two_files_exchanged(bundle):
    (bundle / "model.onnx").rename(bundle / "swap")
    (bundle / "network.json").rename(bundle / "model.onnx")
    (bundle / "swap").rename(bundle / "network.json")
    (bundle / "model.onnx").write_bytes(bytes(range(63)) + b"\0")
    assert "another SHA-256" in refusal(bundle)


@pytest.mark.parametrize(
    "name",
    ["engine.plan", ".hidden", "MODEL.ONNX", "model.onnx.data", "two\nlines", "golden/", "engines/x", "stacks/x/"],
)
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
    assert "holds a symbolic link" in refusal(bundle)


def test_a_folder_that_is_a_link(bundle):
    (bundle / "stacks").rename(bundle.parent / "outside")
    (bundle / "stacks").symlink_to(bundle.parent / "outside")
    assert "holds a symbolic link (got 'stacks'" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_inside_the_folder(bundle, name):
    (bundle / name).unlink()
    (bundle / name).symlink_to(bundle / ("model.onnx" if name != "model.onnx" else "labels.txt"))
    assert "holds a symbolic link" in refusal(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_name_outside(bundle, name):
    os.link(bundle / name, bundle.parent / "outside")
    assert "hard link" in refusal(bundle)


def test_more_files_than_a_bundle_holds_are_not_all_looked_at(bundle):
    for folder in range(20):
        (bundle / "stacks" / f"x{folder}").mkdir()
        for index in range(30):
            (bundle / "stacks" / f"x{folder}" / str(index)).write_bytes(b"")
    assert "too many files" in refusal(bundle)


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


def large(*sizes):
    """Claims of more than a bundle may hold, each of which a manifest can state."""

    def change(tree):
        for name, size in zip(sorted(tree["files"]), sizes, strict=False):
            tree["files"][name]["bytes"] = size

    return change


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
    **{f"schema {value!r}": top(schema=value) for value in (0, 1, 3, -1, True, "1", None, [1], 2**31)},
    **{f"4 GiB {n}": large(*[2**31] * n) for n in (1, 2, 3)},
    "case twins": lambda tree: tree["files"].update({STACK.replace("ssr", "SSR"): tree["files"][STACK]}),
    "file and folder": lambda tree: tree["files"].update({f"{STACK}/x": tree["files"][STACK]}),
    "65 files": lambda tree: tree["files"].update({f"stacks/x/{i}": tree["files"][STACK] for i in range(65)}),
    **{f"files {value!r}": top(files=value) for value in (None, [], {}, "model.onnx", 4)},
    **{f"size {v!r}": of("model.onnx", bytes=v) for v in (0, 63, 65, -1, -(2**31), 2**31, 64.0, "64", True, None)},
    **{f"hash {v!r}": of("model.onnx", sha256=v) for v in ("", "0" * 64, "A" * 64, None, 0, ["0" * 64])},
    **{
        f"renamed {n!r}": renamed(n)
        for n in (
            "../x",
            "/etc/passwd",
            "a/../../b",
            "MODEL.ONNX",
            "",
            ".",
            "CON",
            "engines/../model.onnx",
            "stacks/..",
        )
    },
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
    "more colours than bytes": CONTRACT | {"classes": [str(i) for i in range(300)], "palette": [[0, 0, 0]] * 300},
    "ignore": CONTRACT | {"ignore": "none"},
    "classes": CONTRACT | {"classes": 4},
    "no class": CONTRACT | {"classes": []},
    "weights": CONTRACT | {"weights": []},
    **{f"precision {p!r}": CONTRACT | {"precision": p} for p in ("fp64", None, 32, [])},
    **{f"resize {r!r}": CONTRACT | {"resize": r} for r in ("stretch", {}, [], {"rule": "crop"}, {"rule": 1})},
    **{
        f"pad {p!r}": CONTRACT | {"resize": {"rule": "letterbox", "pad_rgb": p}}
        for p in ([1, 2], [1, 2, 256], [True, 1, 1], "red", 7, None)
    },
}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())
def test_a_contract_that_is_no_contract(tmp_path, contract):
    path = tmp_path / "bundle"
    write_bundle(path, contents() | {"contract.json": json.dumps(contract).encode()})
    with pytest.raises(DamagedArtifactError, match=r"contract\.json: not a contract"):
        segmenter.load(path)


def test_nothing_is_changed_by_refusing(bundle):
    copy = bundle.with_name("copy")
    shutil.copytree(bundle, copy)
    (copy / "model.onnx").write_bytes(b"x")
    before = state(copy.parent)
    refusal(copy)
    assert state(copy.parent) == before


def state(folder):
    return {p: (p.read_bytes() if p.is_file() else None, p.stat().st_mtime_ns) for p in folder.rglob("*")}


# --- engines, which are code


@pytest.fixture
def runtime(monkeypatch):
    """TensorRT-RTX as if there were a GPU, and what it is given."""
    backend, given = BACKENDS.load("tensorrt-rtx"), []

    def opened(_backend, model, **_options):
        given.append(model.engine("tensorrt-rtx"))
        raise OpenedError

    monkeypatch.setattr(type(backend), "probe", lambda _: Available("1.7.1", ("cuda",)))
    monkeypatch.setattr(type(backend), "open", opened)
    return given


def test_without_trust_no_byte_of_an_engine_reaches_its_runtime(bundle, runtime):
    with pytest.raises(DamagedArtifactError, match="tensorrt-rtx cannot open the model"):
        segmenter.load(bundle, backend="tensorrt-rtx")
    assert runtime == [None]


def test_with_trust_the_runtime_gets_the_engine(bundle, runtime):
    with pytest.raises(DamagedArtifactError, match="tensorrt-rtx cannot open the model"):
        segmenter.load(bundle, backend="tensorrt_rtx", trust_engines=True)
    assert runtime == [b"machine code"]
    model = bundled.BundledModel(read_bundle(bundle))
    assert model.engine_options("tensorrt-rtx") == {"flags": ""}
    assert model.engine("onnxruntime") is None


def test_a_refusal_names_the_engine_that_was_not_trusted(bundle, monkeypatch):
    backend = BACKENDS.load("tensorrt-rtx")

    def refuse(*_args, **_options):
        raise BackendUnavailableError("it cannot build here", fix="install a compiler")

    monkeypatch.setattr(type(backend), "probe", lambda _: Available("1.7.1", ("cuda",)))
    monkeypatch.setattr(type(backend), "open", refuse)
    with pytest.raises(BackendUnavailableError, match="pass trust_engines=True, or --trust-engine"):
        segmenter.load(bundle, backend="tensorrt-rtx")
    with pytest.raises(BackendUnavailableError, match="Install a compiler"):
        segmenter.load(bundle, backend="tensorrt-rtx", trust_engines=True)


RECORDS = {
    "another engine": {"sha256": "0" * 64},
    "another size": {"bytes": 1},
    "another model": {"onnx_sha256": "0" * 64},
    "another file": {"file": "engines/other.engine"},
    "no engine": {"file": "model.onnx"},
    "unknown field": {"trusted": True},
    "no version": {"version": None},
    "bytes as text": {"bytes": "12"},
    "targets a number": {"targets": 75},
    "targets a text": {"targets": "sm75"},
    "targets of numbers": {"targets": [75]},
    "options a list": {"options": ["x"]},
    "options of numbers": {"options": {"x": 1}},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS.keys())
def test_an_engine_that_its_record_is_not_about(tmp_path, runtime, changes):
    files = contents()
    write_bundle(tmp_path / "b", files | {"engines.json": record(files, **changes)})
    with pytest.raises(DamagedArtifactError, match=r"engines\.json"):
        segmenter.load(tmp_path / "b", backend="tensorrt-rtx", trust_engines=True)
    assert runtime == []


def test_engines_exchanged(tmp_path, runtime):
    """Two engines under each other's names, in a manifest that is sealed: each record is about the other."""
    files = contents()
    one, other = ENGINE, "engines/aoti.pt2"
    entries = json.loads(record(files))["engines"]
    entries.append(entries[0] | {"file": other, "backend": "aoti", "bytes": 4, "sha256": sha256_bytes(b"else")})
    files |= {other: b"else", "engines.json": json.dumps({"engines": entries}).encode()}
    write_bundle(tmp_path / "whole", files)
    assert len(read_records(read_bundle(tmp_path / "whole"))) == 2
    write_bundle(tmp_path / "b", files | {one: b"else", other: files[one]})
    with pytest.raises(DamagedArtifactError, match="the record of another engine"):
        segmenter.load(tmp_path / "b", backend="tensorrt-rtx", trust_engines=True)
    assert runtime == []


@pytest.mark.parametrize("engines", [[], {}, None, [None], [[]], "x", [{}]], ids=repr)
def test_records_that_are_none(tmp_path, runtime, engines):
    write_bundle(tmp_path / "b", contents() | {"engines.json": json.dumps({"engines": engines}).encode()})
    with pytest.raises(DamagedArtifactError, match=r"engines\.json"):
        segmenter.load(tmp_path / "b", backend="tensorrt-rtx", trust_engines=True)
    assert runtime == []


def test_an_engine_without_a_record(tmp_path, runtime):
    files = contents()
    del files["engines.json"]
    write_bundle(tmp_path / "b", files)
    with pytest.raises(DamagedArtifactError, match="an engine without a record"):
        segmenter.load(tmp_path / "b", backend="tensorrt-rtx", trust_engines=True)
    assert runtime == []
