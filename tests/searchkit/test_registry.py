"""Plug-ins are the files of a folder: adding one is adding a file, and a broken one harms no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from searchkit.errors import UsageError
from searchkit.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "fast_one.py": '"""A fast one.\n\nMore."""\nTOY = "fast"\n',
    "plain.py": "TOY = 'plain'\n",
    "empty.py": "",
    "broken.py": '"""Does not run."""\nraise RuntimeError("imported")\n',
    "no_python.py": '"""Half a docstring',
    "nul.py": "\0",
    "folder/__init__.py": '"""A whole folder."""\nfrom .inner import TOY\n',
    "folder/inner.py": "TOY = 'folder'\n",
    "bare_folder/inner.py": "",
    "_private.py": "TOY = 'private'\n",
    "notes.txt": "not a plug-in",
    "data.json": "{}",
}
NAMES = ["broken", "empty", "fast-one", "folder", "no-python", "nul", "plain"]


@pytest.fixture
def toys(tmp_path, monkeypatch):
    package = tmp_path / "toys"
    for name, text in ({"__init__.py": ""} | FILES).items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("toys", "TOY", "toy")
    for module in [name for name in sys.modules if name.split(".")[0] == "toys"]:
        del sys.modules[module]


def test_names_are_the_files_sorted_with_hyphens(toys):
    assert toys.names() == NAMES


def test_listing_imports_nothing(toys):
    toys.names()
    assert [toys.summary(name) for name in NAMES] == ["Does not run.", "", "A fast one.", "A whole folder.", "", "", ""]
    assert [name for name in sys.modules if name.startswith("toys.")] == []


@pytest.mark.parametrize(("name", "value"), [("plain", "plain"), ("folder", "folder"), ("fast-one", "fast")])
def test_load(toys, name, value):
    assert toys.load(name) == value
    assert toys.load(name.replace("-", "_")) == value


def test_a_file_that_is_added_is_found(toys, tmp_path):
    (tmp_path / "toys" / "new_one.py").write_text('"""New."""\nTOY = "new"\n')
    assert "new-one" in toys.names()
    assert toys.load("new-one") == "new"
    assert toys.summary("new-one") == "New."


@pytest.mark.parametrize(
    "name", ["plane", "", "notes", "-private", "_private", "bare-folder", "os", "folder.inner", "../x"]
)
def test_an_unknown_name_lists_the_known_ones(toys, name):
    with pytest.raises(UsageError) as caught:
        toys.load(name)
    message = str(caught.value)
    assert message.startswith(f"unknown toy (got {name!r}; allowed: {', '.join(NAMES)}). Did you mean ")
    if name == "plane":
        assert "Did you mean plain" in message


def test_a_broken_plug_in_breaks_only_itself(toys):
    with pytest.raises(RuntimeError, match="imported"):
        toys.load("broken")
    assert toys.load("plain") == "plain"


def test_an_unknown_name_has_no_summary(toys):
    assert toys.summary("nothing") == ""


@pytest.mark.parametrize("package", ["searchkit.spaces.SPACES", "searchkit.baselines.BASELINES"])
def test_the_lists_of_searchkit_import_no_torch(package):
    module, name = package.rsplit(".", 1)
    script = f"import sys; from {module} import {name} as R; print([R.summary(n) for n in R.names()])"
    script += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    summaries, torch_is_loaded = done.stdout.splitlines()
    assert "''" not in summaries, "a plug-in without a docstring"
    assert torch_is_loaded == "False"
