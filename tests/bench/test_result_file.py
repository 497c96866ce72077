"""One reader of measured runs: what it gives, and what it refuses in which words."""

import json

import pytest

from bench.result_file import FailedCell, read_results
from searchkit.errors import InputFileError


@pytest.fixture
def tree(measured):
    failed = {"network": "erfnet", "backend": "aoti", "mode": "default", "precision": "fp32", "problem": "no compiler"}
    return {"schema": 1, "machine": {"cores": 2}, "measurements": [measured().to_tree()], "failures": [failed]}


@pytest.fixture
def written(tmp_path):
    def write(tree):
        path = tmp_path / "f.json"
        path.write_bytes(tree if isinstance(tree, bytes) else json.dumps(tree).encode())
        return path

    return write


def test_a_run_comes_back(measured, tree, written):
    found = read_results(written(tree))
    assert found.measurements == (measured(),)
    assert found.failures == (FailedCell("erfnet", "aoti", "default", "fp32", "no compiler"),)
    assert found.machine == {"cores": 2}
    assert found.complete, "files from before it was stated were whole"


def test_a_partial_run_says_so(tree, written):
    assert not read_results(written(tree | {"complete": False, "note": "interrupted"})).complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema: written by a newer version of searchkit .got 2; allowed: 1.. Update"),
        ({"schema": 0}, "unknown schema"),
        ({"schema": True}, "unknown schema"),
        ({"speed": 1}, "unknown field .got 'speed'"),
        ({"measurements": {}}, "measurements: wrong value .got 'dict'; allowed: a list"),
        ({"measurements": [3]}, r"measurements\[0\]: not a measurement"),
        ({"failures": [{"network": "ssr"}]}, r"failures\[0\].backend: missing field"),
        ({"machine": []}, "machine: wrong value"),
        ({"complete": "yes"}, "complete: wrong value .got 'yes'; allowed: true or false"),
    ],
)
def test_refusals(tree, written, change, words):
    path = written(tree | change)
    with pytest.raises(InputFileError, match=words) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


def test_a_missing_field_is_named(tree, written):
    del tree["machine"]
    with pytest.raises(InputFileError, match="machine: missing field"):
        read_results(written(tree))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"schema": 1, "measurem', "not valid JSON: .* line 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"measurements": [NaN]}', "NaN is not a number"),
        (b'{"measurements": [], "measurements": []}', "a key stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"measurements": ' + b"9" * 5000 + b"}", "damaged result file"),
        (b"[]", "not measurements of networks .got 'list'"),
        (b'{"schema": 1, "kind": "roofline"}', "an object of schema, kind"),
    ],
)
def test_damage_is_named(written, data, words):
    with pytest.raises(InputFileError, match=words):
        read_results(written(data))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputFileError, match="result file is a folder"):
        read_results(tmp_path)
    with pytest.raises(InputFileError, match="result file does not exist"):
        read_results(tmp_path / "none.json")


def test_an_absurd_size_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputFileError, match="result file is too large"):
        read_results(path)
