"""Bundles are written whole or not at all, and read back as they were. Damage: tests/hostile/test_bundles.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deploy import bundle as bundles
from deploy.bundle import MANIFEST, ROLES, is_bundle, read_bundle, replace_bundle, write_bundle
from searchkit import __version__, strict_json
from searchkit.errors import DamagedArtifactError, StorageError, UsageError

OPTIONAL = ("precision.json", "lowering.json", "engines.json")
SCHEMA_1 = Path(__file__).parents[1] / "golden" / "bundle-schema-1"


def test_round_trip(bundle, files):
    read = read_bundle(bundle)
    assert (read.path, read.schema) == (bundle, 2)
    assert read.files == files
    assert len(read.files) == len(files)
    assert {p.name for p in bundle.iterdir()} == {MANIFEST, *ROLES}
    assert is_bundle(bundle)


EXTRA = {
    "engines/tensorrt-rtx.engine": b"code",
    "stacks/deepstream/config_infer.txt": b"keys",
    "stacks/triton/ssr-128/1.0/config.pbtxt": b"keys",
}


def test_files_may_lie_in_folders(tmp_path, files, snapshot):
    write_bundle(tmp_path / "one", files | EXTRA)
    assert read_bundle(tmp_path / "one").files == files | EXTRA
    assert is_bundle(tmp_path / "one")
    roles = json.loads((tmp_path / "one" / MANIFEST).read_text())["files"]
    assert "code" in roles["engines/tensorrt-rtx.engine"]["role"]
    write_bundle(tmp_path / "one", files)
    assert {p.name for p in (tmp_path / "one").iterdir()} == {MANIFEST, *ROLES}, "replaced with all its folders"


def test_what_is_optional_may_be_left_out(tmp_path, files):
    for name in OPTIONAL:
        del files[name]
    write_bundle(tmp_path / "b", files)
    assert read_bundle(tmp_path / "b").files == files


def test_a_file_is_checked_again_when_it_is_read(bundle):
    read = read_bundle(bundle)
    (bundle / "labels.txt").write_bytes(b"the bytes of labels.tx!")
    with pytest.raises(DamagedArtifactError, match=r"labels\.txt: file has another SHA-256"):
        read.files["labels.txt"]
    (bundle / "labels.txt").unlink()
    with pytest.raises(DamagedArtifactError, match="does not exist"):
        read.files["labels.txt"]


@pytest.mark.parametrize(
    "name",
    [
        "engines/../x",
        "engines/.hidden",
        "engines/a/b",
        "engines/",
        "stacks/x",
        "stacks/X/y",
        "stacks/x/../y",
        "stacks/x/-y",
        "stacks/x/y.",
        "stacks/x/y z",
        "stacks/a/b/c/d/e/f/g",
        "stacks/x/" + "y" * 65,
        "model.onnx.data",
        "Model.onnx",
        "manifest.json",
        "/etc/passwd",
        "engines/a\n",
        "engines/\u00e9",
        "",
    ],
)
def test_other_names_are_never_written(tmp_path, files, name):
    with pytest.raises(AssertionError, match="which no bundle does"):
        write_bundle(tmp_path / "b", files | {name: b""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["stacks/x/readme", "stacks/x/README"], "twice"),
        (["stacks/x/a", "stacks/x/a/b"], "twice"),
        (["stacks/x/a", "stacks/x/A/b/c"], "twice"),
        ([f"stacks/x/{i}" for i in range(64)], "more than 64"),
    ],
)
def test_names_that_no_folder_can_hold_are_never_written(tmp_path, files, names, says):
    with pytest.raises(AssertionError, match=says):
        write_bundle(tmp_path / "b", files | dict.fromkeys(names, b""))
    assert not list(tmp_path.iterdir())


def test_a_bundle_of_schema_1_is_still_read():
    read = read_bundle(SCHEMA_1)
    assert read.schema == 1
    assert set(read.files) == {"model.onnx", "network.json", "contract.json", "verification.json"}
    assert read.json("contract.json")["io"] == "labels"
    assert is_bundle(SCHEMA_1)


def test_the_manifest_states_sizes_hashes_roles_and_its_own_hash(bundle, files):
    tree = json.loads((bundle / MANIFEST).read_text())
    assert list(tree) == ["schema", "searchkit", "files", "sha256"]
    assert (tree["schema"], tree["searchkit"]) == (2, __version__)
    assert list(tree["files"]) == sorted(files)
    for name, data in files.items():
        sha256 = hashlib.sha256(data).hexdigest()
        assert tree["files"][name] == {"bytes": len(data), "sha256": sha256, "role": ROLES[name]}
    own = tree.pop("sha256")
    assert own == hashlib.sha256(strict_json.canonical(tree)).hexdigest()


def test_the_same_files_make_the_same_bundle(tmp_path, bundle, files, snapshot):
    write_bundle(tmp_path / "other", dict(reversed(files.items())))
    assert snapshot(bundle) == snapshot(tmp_path / "other")


def test_a_bundle_may_be_replaced(bundle, files):
    write_bundle(bundle, files | {"model.onnx": b"new"})
    assert read_bundle(bundle).files["model.onnx"] == b"new"
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_missing_parents_are_made(tmp_path, files):
    write_bundle(tmp_path / "a" / "b" / "c", files)
    assert read_bundle(tmp_path / "a" / "b" / "c").files == files


def test_an_empty_folder_is_filled(tmp_path, files):
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", files)
    assert read_bundle(tmp_path / "empty").files == files


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.onnx", "engines/"])
def test_a_foreign_folder_is_refused_and_untouched(tmp_path, files, snapshot, name):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    if name.endswith("/"):
        (foreign / name).mkdir()
    else:
        (foreign / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="not empty and was not written by searchkit"):
        write_bundle(foreign, files)
    assert snapshot(tmp_path) == before


def test_a_bundle_with_a_foreign_file_is_foreign(bundle, files, snapshot):
    (bundle / "notes.txt").write_text("mine")
    before = snapshot(bundle)
    with pytest.raises(UsageError, match="not written by searchkit"):
        write_bundle(bundle, files)
    assert snapshot(bundle) == before


def test_a_file_at_the_path_is_refused(tmp_path, files):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UsageError, match="a file, not a folder"):
        write_bundle(tmp_path / "taken", files)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_storage_error(files):
    with pytest.raises(StorageError):
        write_bundle(bundles.Path("/proc/searchkit/bundle"), files)


@pytest.mark.parametrize("left_out", sorted({*ROLES} - {*OPTIONAL}))
def test_a_bundle_is_never_written_in_part(tmp_path, files, left_out):
    del files[left_out]
    with pytest.raises(AssertionError):
        write_bundle(tmp_path / "part", files)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
@pytest.mark.parametrize("at", range(len(ROLES) + 1))
def test_an_interrupt_at_any_file_leaves_the_old_bundle(bundle, files, snapshot, monkeypatch, error, at):
    before = snapshot(bundle.parent)
    written = []
    write = bundles.write_bytes

    def fail(path, data):
        written.append(path)
        if len(written) > at:
            raise error
        write(path, data)

    monkeypatch.setattr(bundles, "write_bytes", fail)
    with pytest.raises(error if isinstance(error, type) else OSError):
        write_bundle(bundle, dict.fromkeys(files, b"new"))
    assert len(written) == at + 1
    assert snapshot(bundle.parent) == before


def interrupted(path, files):
    with replace_bundle(path) as write:
        write(files)
        raise KeyboardInterrupt


def test_an_interrupt_after_the_last_file_leaves_nothing(tmp_path, files):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "new" / "one", files)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["missing", "a" * 300, "a\0b", "", "file", "empty"])
def test_what_is_no_bundle_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    with pytest.raises(UsageError, match="not a bundle"):
        read_bundle(bundles.Path(name))


def test_a_bundle_may_be_reached_through_a_link(bundle, files):
    link = bundle.with_name("link")
    link.symlink_to(bundle)
    assert read_bundle(link).files == files


def test_json_inside_a_bundle_is_strict(tmp_path, files):
    write_bundle(tmp_path / "b", files | {"contract.json": b'{"a": 1}', "network.json": b'{"a": 1, "a": 2}'})
    read = read_bundle(tmp_path / "b")
    assert read.json("contract.json") == {"a": 1}
    with pytest.raises(DamagedArtifactError, match=r"network\.json: a: duplicate key"):
        read.json("network.json")
