"""Every command block in README and docs runs, and what the documents name exists."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from searchkit.training.search_recipe import parse_search_recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# `make demo` has a test of its own below; the others would run this suite inside itself.
MAKE_TARGETS = {"make demo", "make test", "make check"}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{path.name}:{index}", body)
        for path in DOCUMENTS
        for index, (kind, body) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
        if kind == language
    ]


# Its blocks build C++ and follow each other in one folder: `tests/cpp/test_document.py` runs them in `make test-cpp`.
BUILDS = "cpp.md"
SHELL = [block for block in blocks("bash") if not block[0].startswith(f"{BUILDS}:")]
PYTHON = blocks("python")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `searchkit` and `bench` are those of this checkout, whatever is installed."""
    commands = tmp_path_factory.mktemp("bin")
    for name in ("searchkit", "bench"):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        script.chmod(0o755)
    return os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_there_is_something_to_run():
    assert len(SHELL) >= 4
    assert len(PYTHON) >= 1
    assert {kind for path in DOCUMENTS for kind, _ in BLOCK.findall(path.read_text())} <= {"bash", "python", "toml"}


@pytest.mark.parametrize(("name", "body"), blocks("toml"))
def test_parts_of_recipes(name: str, body: str):
    """Blocks of TOML are parts of recipes of searches."""
    parse_search_recipe({"batch": 1, "steps": 1} | tomllib.loads(body), where=name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "body"), SHELL, ids=[name for name, _ in SHELL])
def test_shell_block(name: str, body: str, tmp_path: Path, environment: dict[str, str]):
    lines = [line for line in body.splitlines() if line.strip()]
    commands = [line for line in lines if line not in MAKE_TARGETS]
    for target in set(lines) & MAKE_TARGETS:
        subprocess.run([*target.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)
    if commands:
        script = "set -eu\n" + "\n".join(commands)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "body"), PYTHON, ids=[name for name, _ in PYTHON])
def test_python_block(name: str, body: str, tmp_path: Path, environment: dict[str, str]):
    done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_make_demo_leaves_what_the_readme_says(tmp_path: Path, environment: dict[str, str]):
    """The recipe itself, at a small size, with this environment in place of the one it would make."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("searchkit", "bench"):
        shutil.copy(shutil.which(name, path=environment["PATH"]) or name, venv / "bin" / name)
    demo = tmp_path / "demo"
    command = [
        "make",
        "demo",
        f"VENV={venv}",
        f"DEMO={demo}",
        "SIZE=128x256",
        "HALF=64x128",
        "BENCH_FLAGS=--quick",
        "-o",
        f"{venv}/.ready",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("street.png", "street-labels.png", "fps.md", "fps.json", "ssr/model.onnx", "ssr/manifest.json"):
        assert (demo / name).stat().st_size > 0, name
    assert "fasterseg" in (demo / "fps.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_makefile_constraints_pin_torch():
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text()
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text()


def test_extras_never_ask_for_both_builds_of_onnxruntime():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"cpu", "gpu", "tensorrt", "rtx", "openvino", "report", "dev"} <= set(extras)
    for name, requirements in extras.items():
        found = {re.split(r"[<>=!~\[ ]", r)[0] for r in requirements} & {"onnxruntime", "onnxruntime-gpu"}
        assert len(found) <= 1, name
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not any(r.startswith("onnxruntime") for r in base)


def test_readme_table_is_the_measured_one():
    """The table in README, cell by cell, from the raw samples that are kept beside it."""
    import json

    from bench.measurement import Measurement
    from bench.table import markdown, rows_of

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    path = re.search(r"`(bench/results/[^`]+\.json)`", readme)
    assert path is not None
    tree = json.loads((ROOT / path[1]).read_text())
    measurements = [Measurement.from_tree(entry, where=path[1]) for entry in tree["measurements"]]
    assert markdown(rows_of(measurements)) in readme
