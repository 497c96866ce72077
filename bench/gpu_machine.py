"""`python -m bench.gpu_machine cuda FILE`: what a GPU run ran on, as JSON; ends with 1 where that is missing."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from searchkit.console import write_json

from . import machine

_PACKAGES = ("triton", "tensorrt", "tensorrt-rtx", "cuda-core", "cuda-bindings", "onnx", "onnxscript", "typer")


def describe() -> dict[str, Any]:
    """The machine as every result has it, and what else a run may use: packages, and ONNX Runtime's providers."""
    found: dict[str, Any] = dict(machine.describe())
    for package in _PACKAGES:
        try:
            found[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        import onnxruntime

        found["onnxruntime_providers"] = ", ".join(onnxruntime.get_available_providers())
    except ImportError:
        found["onnxruntime_providers"] = None
    return found


def main(device: str, path: str) -> int:
    """Write the description; 1 and a line if the device is not there."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no CUDA device here")
        return 1
    write_json(describe(), path)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
