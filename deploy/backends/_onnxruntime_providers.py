"""Which execution providers ONNX Runtime is given for a device and a mode, and with which options."""

from __future__ import annotations

import os
from pathlib import Path

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA}

# TF32 keeps 10 bits of a factor's fraction: another network than the one that was verified.
_CUDA = {"use_tf32": "0"}


def providers_of(mode: str, device: str) -> list[tuple[str, dict[str, str]]]:
    """Providers with their options, the wanted one first; what it does not take goes to the next."""
    if mode == "tensorrt":
        return [(TENSORRT, _tensorrt_options()), (CUDA, _CUDA)]
    if mode == "cuda_graph":
        return [(CUDA, _CUDA | {"enable_cuda_graph": "1"})]
    return [(PROVIDERS[device], _CUDA if device == "cuda" else {})]


def settings_of(mode: str, device: str, threads: int | None) -> dict[str, str]:
    """What a session says of those options."""
    if device == "cpu":
        return {"threads": str(threads) if threads else "default"}
    if mode == "tensorrt":
        # The provider has no switch for it, and TensorRT's builder allows it where the GPU has it.
        return {"tf32": "TensorRT's default", "engine_cache": "on"}
    return {"tf32": "off", "cuda_graph": "on" if mode == "cuda_graph" else "off"}


def _tensorrt_options() -> dict[str, str]:
    """Engines are kept, as building one takes minutes.

    With the precision flags off the provider makes a strongly typed network: types stand in the graph.
    """
    folder = str(engine_cache())
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
    }


def engine_cache() -> Path:
    """The user's own folder of engines; made, and closed to others, as an engine is code."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "searchkit" / "onnxruntime-tensorrt"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
