"""ONNX Runtime on the CPU or, through its CUDA provider, on a GPU.

`get_available_providers()` lists CUDA even where its library cannot be loaded, and a session then runs on the CPU
without a word; so the provider in use is read back and anything else than the wanted one is an error.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError

from . import Available, Backend, Session, SessionInfo, Unavailable

if TYPE_CHECKING:
    import numpy as np

    from ..deployable import Deployable

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
INSTALL = "install one of them: pip install 'searchkit[cpu]' or pip install 'searchkit[gpu]'"


def installed() -> list[str]:
    """Which of the two distributions that provide the module `onnxruntime` are installed."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def create_session(model: bytes, *, device: str, threads: int | None = None, optimise: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` on exactly one provider.

    Args:
        model: serialised ONNX.
        device: `cpu` or `cuda`.
        threads: of the CPU; the runtime's default if None.
        optimise: False switches the graph optimiser off.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed, has no such device, or came up on another provider.
    """
    BACKEND.require(device)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    wanted = _PROVIDERS[device]
    provider_options = [{"use_tf32": "0"}] if device == "cuda" else [{}]
    session = onnxruntime.InferenceSession(model, options, providers=[wanted], provider_options=provider_options)
    if session.get_providers()[0] != wanted:
        raise BackendUnavailableError(
            "ONNX Runtime fell back to another provider",
            got=session.get_providers()[0],
            allowed=wanted,
            fix="check the CUDA and cuDNN libraries with `searchkit doctor`, or use --device cpu",
        )
    return session


class ONNXRuntimeSession(Session):
    """A session with its input and output bound to the device's memory."""

    def __init__(self, model: Deployable, info: SessionInfo, threads: int | None) -> None:
        self._info = info
        self._session = create_session(model.onnx, device=info.device, threads=threads)
        self._input_name = self._session.get_inputs()[0].name
        self._output_name = self._session.get_outputs()[0].name
        self._binding = self._session.io_binding()
        self._binding.bind_output(self._output_name, info.device)

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        import onnxruntime

        # The value owns device memory: an inference then reads it where it is.
        value = onnxruntime.OrtValue.ortvalue_from_numpy(batch, self._info.device, 0)
        self._binding.bind_ortvalue_input(self._input_name, value)

    def execute(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def synchronize(self) -> None:
        self._binding.synchronize_outputs()

    def output(self) -> np.ndarray:
        result: np.ndarray = self._binding.copy_outputs_to_cpu()[0]
        return result

    def close(self) -> None:
        del self._binding, self._session


class ONNXRuntimeBackend(Backend):
    """The module `onnxruntime`, whichever of its two distributions brought it."""

    name = "onnxruntime"

    def probe(self) -> Available | Unavailable:
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            return Unavailable(f"the module onnxruntime cannot be imported ({error})", INSTALL)
        found = installed()
        if len(found) > 1:
            return Unavailable(
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
                "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them",
            )
        providers = onnxruntime.get_available_providers()
        devices = tuple(d for d in ("cuda", "cpu") if _PROVIDERS[d] in providers)
        return Available(onnxruntime.__version__, devices)

    def open(self, model: Deployable, *, device: str | None = None, threads: int | None = None) -> Session:
        state, device = self.require(device)
        options = {"graph_optimisation": "all", "io_binding": "on"}
        if device == "cpu":
            options["threads"] = str(threads) if threads else "default"
        info = SessionInfo(self.name, state.version, _PROVIDERS[device], device, options)
        return ONNXRuntimeSession(model, info, threads)


BACKEND = ONNXRuntimeBackend()
