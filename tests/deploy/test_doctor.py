"""What is installed, what runs and what can be built; the command has its tests beside the other commands."""

from __future__ import annotations

import importlib.metadata

import pytest

from deploy.backends import BACKENDS, Compiler, Unavailable
from deploy.doctor import NativeState, diagnose


@pytest.fixture
def distributions(monkeypatch):
    """`distributions({"tensorrt-cu13": "11.4"})`: these are what pip installed, and nothing can be imported."""

    def install(versions):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr("deploy.doctor._importable", lambda _: False)
        return {package.name: package for package in diagnose().packages}

    return install


def test_a_compiler_says_what_it_builds_where_nothing_runs():
    states = {backend.name: backend for backend in diagnose().backends}
    assert set(states["tensorrt-rtx"].builds) >= {"sm75", "sm86", "sm89", "sm120"}
    for name, state in states.items():
        assert not state.builds or isinstance(BACKENDS.load(name), Compiler)


def test_a_compiler_that_cannot_build(monkeypatch):
    monkeypatch.setattr(type(BACKENDS.load("tensorrt-rtx")), "probe_build", lambda _: Unavailable("broken", "pip x"))
    (state,) = (backend for backend in diagnose().backends if backend.name == "tensorrt-rtx")
    assert state.builds == ()


@pytest.mark.parametrize(
    ("distribution", "package"),
    [
        ("tensorrt", "tensorrt"),
        ("tensorrt-cu13", "tensorrt"),
        ("tensorrt-cu12", "tensorrt"),
        ("tensorrt-rtx", "tensorrt-rtx"),
        ("tensorrt-rtx-cu13", "tensorrt-rtx"),
    ],
)
def test_tensorrt_is_found_under_each_of_its_names(distribution, package, distributions):
    packages = distributions({distribution: "11.4.0.106"})
    assert packages[package].version == "11.4.0.106"
    assert [p.name for p in packages.values() if p.version] == [package]


def test_what_is_missing_and_not_needed_is_no_problem(distributions):
    needed = ("torch", "numpy", "onnx", "onnxscript", "safetensors", "pydantic", "typer", "rich", "pillow", "fvcore")
    packages = distributions(dict.fromkeys(needed, "1"))
    assert packages["openvino"].version is None
    assert packages["openvino"].install == "pip install openvino"
    assert not [problem for problem in diagnose().problems if "is missing" in problem]


def test_both_builds_of_onnx_runtime_are_a_problem(monkeypatch):
    monkeypatch.setattr("deploy.doctor.installed", lambda: ["onnxruntime", "onnxruntime-gpu"])
    assert any("overwrite each other" in problem for problem in diagnose().problems)


def test_the_native_kernels(monkeypatch):
    monkeypatch.setattr("deploy.doctor.status", lambda: (False, "not compiled yet; do this"))
    assert diagnose().native == NativeState(False, "not compiled yet; do this")


@pytest.mark.parametrize("build", [False, True])
def test_they_are_compiled_only_when_asked(build, monkeypatch):
    built = []
    monkeypatch.setattr("deploy.doctor.native", lambda: built.append(1))
    diagnose(build_native=build)
    assert built == [1] * build
