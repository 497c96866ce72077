"""What a bundle says of its engines. Records that lie: tests/hostile/test_bundles.py."""

from __future__ import annotations

import json

import pytest

from deploy.backends import Engine
from deploy.bundle import read_bundle, write_bundle
from deploy.engine_record import RECORDS, EngineRecord, engine_files, read_records
from searchkit.files import sha256_bytes

ONE = Engine("tensorrt-rtx", "1.7.1", ("sm75", "sm86"), b"code", ".engine", 1.25, {"z": "1", "a": "2"})
OTHER = Engine("aoti", "2.13", ("cpu-avx2",), b"other code", ".pt2", 9.0)


def test_no_engines_are_no_files():
    assert engine_files([], "0" * 64) == ({}, [])


def test_engines_are_named_by_their_backend_and_recorded_in_order():
    files, records = engine_files([ONE, OTHER], "0" * 64)
    assert files["engines/aoti.pt2"] == b"other code"
    assert files["engines/tensorrt-rtx.engine"] == b"code"
    assert [record.backend for record in records] == ["aoti", "tensorrt-rtx"]
    assert records[1] == EngineRecord(
        file="engines/tensorrt-rtx.engine",
        backend="tensorrt-rtx",
        version="1.7.1",
        targets=("sm75", "sm86"),
        bytes=4,
        sha256=sha256_bytes(b"code"),
        onnx_sha256="0" * 64,
        options={"a": "2", "z": "1"},
    )
    tree = json.loads(files[RECORDS])
    assert tree["schema"] == 1
    assert [set(entry) for entry in tree["engines"]] == [set(EngineRecord.__dataclass_fields__)] * 2


def test_the_same_engines_make_the_same_files():
    slower = Engine(**{**ONE.__dict__, "seconds": 99.0, "options": {"a": "2", "z": "1"}})
    assert engine_files([ONE, OTHER], "0" * 64) == engine_files([OTHER, slower], "0" * 64)


def test_two_engines_of_one_backend_are_a_mistake_of_the_caller():
    with pytest.raises(AssertionError, match="one engine a backend"):
        engine_files([ONE, ONE], "0" * 64)


@pytest.mark.parametrize("suffix", ["", "engine", "./x", ".a/b", ".E", "." + "a" * 17])
def test_a_suffix_is_one(suffix):
    with pytest.raises(AssertionError):
        engine_files([Engine(**{**ONE.__dict__, "suffix": suffix})], "0" * 64)


def test_what_is_written_is_read(tmp_path, files):
    compiled, records = engine_files([ONE, OTHER], sha256_bytes(files["model.onnx"]))
    write_bundle(tmp_path / "b", files | compiled)
    assert read_records(read_bundle(tmp_path / "b")) == records


def test_a_bundle_without_engines_has_no_records(tmp_path, files):
    del files[RECORDS]
    write_bundle(tmp_path / "b", files)
    assert read_records(read_bundle(tmp_path / "b")) == []
