"""What is installed here, what can run, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass

from .backends import BACKENDS, Available
from .backends.onnxruntime import installed

# Distribution -> the extra that brings it; None for what the base installation brings.
_PACKAGES: dict[str, str | None] = {
    "torch": None,
    "numpy": None,
    "onnx": None,
    "onnxscript": None,
    "safetensors": None,
    "pydantic": None,
    "typer": None,
    "rich": None,
    "pillow": None,
    "fvcore": None,
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "rtx",
    "cuda-core": "tensorrt",
    "pycuda": "pycuda",
    "openvino": "openvino",
}


@dataclass(frozen=True)
class Package:
    """One distribution: its version, or the line that installs it."""

    name: str
    version: str | None
    install: str


@dataclass(frozen=True)
class BackendState:
    """One backend: whether it runs here, why not, and what to do."""

    name: str
    available: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str | None
    install: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything `searchkit doctor` prints."""

    system: dict[str, str]
    packages: tuple[Package, ...]
    backends: tuple[BackendState, ...]
    problems: tuple[str, ...]

    def to_tree(self) -> dict[str, object]:
        return {"schema": 1, **asdict(self)}


def diagnose() -> Diagnosis:
    """Look at this machine; raises nothing, changes nothing."""
    packages = tuple(_package(name, extra) for name, extra in _PACKAGES.items())
    backends = tuple(_backend(name) for name in BACKENDS.names())
    return Diagnosis(_system(), packages, backends, tuple(_problems(packages, backends)))


def _package(name: str, extra: str | None) -> Package:
    install = "pip install searchkit" if extra is None else f"pip install 'searchkit[{extra}]'"
    try:
        return Package(name, importlib.metadata.version(name), install)
    except importlib.metadata.PackageNotFoundError:
        # Importable without metadata: a package that was put on the path by hand.
        module = {"pillow": "PIL"}.get(name, name.replace("-", "_"))
        version = "installed without metadata" if _importable(module) else None
        return Package(name, version, install)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _backend(name: str) -> BackendState:
    state = BACKENDS.load(name).probe()
    if isinstance(state, Available):
        return BackendState(name, True, state.version, state.devices, None, None)
    return BackendState(name, False, None, (), state.reason, state.install)


def _problems(packages: tuple[Package, ...], backends: tuple[BackendState, ...]) -> list[str]:
    problems = [
        f"{p.name} is missing: {p.install}" for p in packages if _PACKAGES[p.name] is None and p.version is None
    ]
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
