"""How the native library is made and kept, and that nothing needs it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.native import library
from deploy.native.label_head import PLAIN, kernels, label_head
from deploy.native.library import Missing, Native, Unbuilt, build, find_compiler, look, native
from searchkit.sizes import Size


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.cache_clear()
    yield tmp_path / "cache" / "searchkit" / "native"
    native.cache_clear()


def compiler_that(tmp_path, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def plain_works():
    assert kernels() == PLAIN
    logits = np.zeros((2, 2, 2), np.float32)
    logits[1] = 1
    assert (label_head(logits, Size(4, 4)) == 1).all()


def test_it_is_made_once(fresh):
    first = native()
    assert isinstance(first, Native)
    (made,) = fresh.iterdir()
    assert made == first.path
    before = made.stat()
    native.cache_clear()
    assert isinstance(native(), Native)
    assert (made.stat().st_mtime_ns, made.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_looking_compiles_nothing(fresh):
    found = look()
    assert isinstance(found, Unbuilt)
    assert not fresh.exists()
    made = native()
    assert made.path == found.path
    assert look().path == made.path


def test_without_a_compiler(fresh, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() is None
    assert native() == Missing("there is no C++ compiler", "install g++, or set CXX")
    plain_works()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'x.cpp:1: error: no such thing' >&2; exit 1", "the compiler failed: x.cpp:1: error: no such thing"),
        ("exit 3", "the compiler failed: exit code 3"),
    ],
)
def test_a_compiler_that_fails(fresh, monkeypatch, tmp_path, script, said):
    monkeypatch.setenv("CXX", compiler_that(tmp_path, script))
    found = native()
    assert isinstance(found, Missing)
    assert found.reason == said
    plain_works()
    assert not fresh.exists() or not list(fresh.iterdir())


def test_a_compiler_that_makes_something_else(fresh, monkeypatch, tmp_path):
    script = 'while [ "$1" != "-o" ]; do shift || exit 0; done; echo "not a library" > "$2"'
    monkeypatch.setenv("CXX", compiler_that(tmp_path, script))
    found = native()
    assert isinstance(found, Missing)
    assert "cannot be loaded" in found.reason
    plain_works()


def test_a_cache_that_cannot_be_written(fresh, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    found = native()
    assert isinstance(found, Missing)
    assert "cannot be kept" in found.reason
    plain_works()


def test_other_sources_or_another_compiler_mean_another_file(fresh, monkeypatch, tmp_path):
    names = {library._key("g++")}
    monkeypatch.setattr(library, "_version", lambda _: "another")
    names.add(library._key("g++"))
    monkeypatch.setattr(library, "_FLAGS", ("-O2",))
    names.add(library._key("g++"))
    for name in library.FILES:
        (tmp_path / name).write_bytes((library.SOURCES / name).read_bytes())
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    assert library._key("g++") in names
    (tmp_path / "label_head.h").write_text("changed")
    assert library._key("g++") not in names


def test_a_library_of_another_interface_is_refused(fresh, monkeypatch):
    monkeypatch.setattr(library, "ABI", 99)
    found = native()
    assert isinstance(found, Missing)
    assert found.reason == "the library has interface 1, not 99"


def test_the_switch(fresh, monkeypatch):
    monkeypatch.setenv("SEARCHKIT_NO_NATIVE", "1")
    assert isinstance(native(), Missing)
    plain_works()


def test_two_processes_at_once(fresh):
    code = "from deploy.native.library import native, Native; assert isinstance(native(), Native), native()"
    runs = [subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert len(list(fresh.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
@pytest.mark.parametrize("kernel", ["label_head", "preprocess"])
def test_random_input_under_the_sanitizers(tmp_path, kernel, sanitizers):
    """Ten thousand random shapes, layouts and contents, garbage included, through every instruction set."""
    compiler = find_compiler()
    assert compiler is not None
    program = tmp_path / "fuzz"
    flags = ["-std=c++17", "-O1", "-g", "-pthread", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    # Both read which instruction sets there are from the label head.
    sources = {library.SOURCES / "label_head.cpp", library.SOURCES / f"{kernel}.cpp"}
    fuzz = Path(__file__).with_name(f"{kernel}_fuzz.cpp")
    subprocess.run([compiler, *flags, "-I", library.SOURCES, fuzz, *sources, "-o", program], check=True)
    count = 10000 if "address" in sanitizers else 300
    done = subprocess.run([program, str(count)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{count} cases, ")


def test_build_says_what_went_wrong(tmp_path):
    assert "did not run" in (build(str(tmp_path / "missing"), tmp_path / "x.so") or "")
