"""`searchkit show --svg`: what is drawn, of what, and what is refused. The tree is looked at in `test_cli.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from searchkit.cli import app
from searchkit.console import run
from searchkit.networks import SHIPPED
from searchkit.spaces import SPACES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.json"))])
def test_shipped_genotypes_are_drawn(folder, capsys, name):
    for file in ("a.svg", "b.svg"):
        assert run(app, ["show", name, "--svg", file]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    root = ElementTree.parse(folder / "a.svg").getroot()
    assert root.findtext("{http://www.w3.org/2000/svg}title") == name


def test_the_resolution_is_that_of_the_picture(folder):
    assert run(app, ["show", "ssr", "--resolution", "1024x2048", "--svg", "a.svg"]) == 0
    assert ">128x256 px<" in (folder / "a.svg").read_text()


def test_a_tree_may_be_had_beside_it(folder, capsys):
    assert run(app, ["show", "ssr", "--resolution", "64x128", "--svg", "a.svg", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "ssr"
    assert (folder / "a.svg").exists()


def test_the_folder_of_a_search_stands_for_what_it_found(folder, capsys):
    (folder / "run").mkdir()
    (folder / "run" / "genotype.json").write_bytes((SHIPPED / "ssr.json").read_bytes())
    assert run(app, ["show", "run", "--svg", "a.svg"]) == 0
    assert run(app, ["show", "ssr", "--svg", "b.svg"]) == 0
    assert (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    (folder / "run" / "genotype.json").write_text("{}")
    assert run(app, ["show", "run", "--svg", "a.svg"]) == 3
    assert "run/genotype.json: schema: missing field" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            "erfnet --svg x.svg",
            2,
            "--svg: only networks of a search space can be drawn (got 'erfnet, a fixed network')",
        ),
        ("ssr --svg nowhere/x.svg", 4, "nowhere/x.svg: the folder does not exist"),
        ("ssr --svg /dev/full", 4, "/dev/full: there is a device"),
        ("ssr --svg .", 4, "there is a folder at this path"),
        ("ssr --resolution 500x1000 --svg x.svg", 2, "ssr does not take this size"),
        ("ssr --svg x.svg --json nowhere/x.json", 4, "nowhere/x.json: the folder does not exist"),
    ],
)
def test_refusals_leave_nothing(folder, capsys, words, code, says):
    assert run(app, ["show", *words.split()]) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert not list(folder.iterdir())


def test_a_space_without_drawings_says_so(folder, capsys, monkeypatch):
    from searchkit.spaces import Space

    space = SPACES.load("ssr")
    monkeypatch.setattr(type(space), "diagram", lambda self, genotype, size: Space.diagram(self, genotype, size))
    assert run(app, ["show", "ssr", "--svg", "x.svg"]) == 2
    assert "networks of ssr cannot be drawn" in capsys.readouterr().err


def test_drawing_needs_no_torch(folder):
    words = ["show", "ssr", "--svg", str(folder / "a.svg")]
    code = f"import sys; from searchkit.cli import app; from searchkit.console import run; code = run(app, {words!r})"
    code += "; assert 'torch' not in sys.modules; sys.exit(code)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
