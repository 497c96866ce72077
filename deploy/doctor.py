"""What is installed here, what can run, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass

from .backends import BACKENDS, Available, Compiler
from .backends.onnxruntime import installed
from .native.library import native
from .native.status import status

_REQUIRED = ("torch", "numpy", "onnx", "onnxscript", "safetensors", "pydantic", "typer", "rich", "pillow", "fvcore")
_GPU = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-core", "cuda-bindings", "pycuda")
_OPTIONAL = ("onnxruntime", "openvino", *_GPU)
# One module in distributions of several names.
_ALSO = {
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}


@dataclass(frozen=True)
class Package:
    """One distribution: its version, or the line that installs it."""

    name: str
    version: str | None
    install: str


@dataclass(frozen=True)
class BackendState:
    """One backend: whether it runs here, why not, and what to do.

    Attributes:
        builds: what it can build engines for here, such as `sm75`; that may be possible where running is not.
    """

    name: str
    available: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str | None
    install: str | None
    builds: tuple[str, ...] = ()


@dataclass(frozen=True)
class NativeState:
    """Label head and pre-processing in one pass each: whether they are in use, and which, or why not."""

    in_use: bool
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything `searchkit doctor` prints."""

    system: dict[str, str]
    packages: tuple[Package, ...]
    backends: tuple[BackendState, ...]
    problems: tuple[str, ...]
    native: NativeState

    def to_tree(self) -> dict[str, object]:
        return {"schema": 1, **asdict(self)}


def diagnose(*, build_native: bool = False) -> Diagnosis:
    """Look at this machine; raises nothing, and changes nothing unless the native kernels are to be compiled."""
    if build_native:
        native()
    packages = tuple(_package(name) for name in (*_REQUIRED, *_OPTIONAL))
    backends = tuple(_backend(name) for name in BACKENDS.names())
    return Diagnosis(_system(), packages, backends, tuple(_problems(packages, backends)), NativeState(*status()))


def _package(name: str) -> Package:
    install = f"pip install {name}"
    for distribution in (name, *_ALSO.get(name, ())):
        with suppress(importlib.metadata.PackageNotFoundError):
            return Package(name, importlib.metadata.version(distribution), install)
    # Importable without metadata: a package that was put on the path by hand.
    module = {"pillow": "PIL"}.get(name, name.replace("-", "_"))
    return Package(name, "installed without metadata" if _importable(module) else None, install)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _backend(name: str) -> BackendState:
    backend = BACKENDS.load(name)
    state = backend.probe()
    building = backend.probe_build() if isinstance(backend, Compiler) else None
    builds = building.devices if isinstance(building, Available) else ()
    if isinstance(state, Available):
        return BackendState(name, True, state.version, state.devices, None, None, builds)
    return BackendState(name, False, None, (), state.reason, state.install, builds)


def _problems(packages: tuple[Package, ...], backends: tuple[BackendState, ...]) -> list[str]:
    problems = [f"{p.name} is missing: {p.install}" for p in packages if p.name in _REQUIRED and p.version is None]
    if len(installed()) > 1:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install one"
        )
    if not any(b.available for b in backends):
        problems.append("no backend can run here")
    return problems


def _system() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_threads": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "gpu": _gpu(),
    }


def _gpu() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "unknown without PyTorch"
    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (SM{major}{minor}), CUDA {torch.version.cuda}"
