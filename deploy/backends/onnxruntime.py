"""ONNX Runtime on the CPU or, through its CUDA or TensorRT provider, on a GPU.

`get_available_providers()` lists CUDA and TensorRT even where their libraries cannot be loaded, and a session then runs
somewhere else without a word; so the provider in use is read back and anything else than the wanted one is an error.

Modes: `default`, the provider of the device; `label_head`, the same on the CPU with the last resize and arg-max done by
the native operator (see `docs/native.md`); `cuda_graph`, the CUDA provider with its kernels recorded and replayed;
`tensorrt`, the TensorRT provider. The last two are written against the documented provider options and were not run
here: there was no GPU.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError

from ..native.library import Missing, Native, native, ready
from ..native.onnx_operator import register, with_label_head
from . import Available, Backend, Session, SessionInfo, Unavailable
from ._onnxruntime_providers import PROVIDERS, TENSORRT, providers_of, settings_of

if TYPE_CHECKING:
    import numpy as np

    from . import Model

#: The mode whose sessions end in the native operator.
LABEL_HEAD = "label_head"
INSTALL = "pip install onnxruntime, or onnxruntime-gpu for CUDA: exactly one of them"

# Which provider took which nodes: without it a few nodes on the CPU go unseen. Older versions ignore it.
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_DTYPES = {"float": "float32", "float16": "float16", "uint8": "uint8", "int32": "int32", "int64": "int64"}


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


def create_session(
    model: bytes, *, device: str, threads: int | None = None, optimise: bool = True, mode: str = "default"
) -> Any:
    """An `onnxruntime.InferenceSession` on exactly one provider, which does not leave it while it runs either.

    Args:
        model: serialised ONNX.
        device: `cpu` or `cuda`.
        threads: of the CPU; the runtime's default if None.
        optimise: False switches the graph optimiser off.
        mode: one of the backend's modes.

    Raises:
        BackendUnavailableError: ONNX Runtime is not installed, has no such device, or came up on another provider; or
            the mode cannot be had here.
        UsageError: the mode is `label_head`, and the model does not end in labels.
    """
    BACKEND.require(device)
    _require_mode(mode, device)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if device == "cuda":
        options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    if mode == LABEL_HEAD:
        model = _headed(model, options)
    return _opened(model, options, providers_of(mode, device), device)


def mode_for_labels(model: bytes, device: str) -> str:
    """The fastest mode for label maps: `label_head` where its library is there and the model ends in labels.

    Otherwise `default`. Nothing is compiled for it: see `deploy.native.library`.
    """
    return LABEL_HEAD if device == "cpu" and ready() and with_label_head(model) is not None else "default"


def _headed(model: bytes, options: Any) -> bytes:
    """The model with the native operator at its end, and options that know the operator."""
    register(options)
    headed = with_label_head(model)
    if headed is None:
        raise UsageError(
            f"the mode {LABEL_HEAD} needs a model that ends in labels",
            where="--backend",
            allowed="the tensor contracts labels and triton",
            fix="use the mode default, or export with --io labels",
        )
    return headed


def _opened(model: bytes, options: Any, providers: list[tuple[str, dict[str, str]]], device: str) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    wanted = providers[0][0]
    refusals = (native.EPFail, native.Fail, native.RuntimeException, RuntimeError) if device == "cuda" else ()
    try:
        # With its own fall-back on, a provider that fails is replaced by another one, while running too.
        session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except refusals as error:
        reason = str(error).partition("\n")[0][:200]
        raise BackendUnavailableError(f"ONNX Runtime cannot use {wanted}: {reason}", fix=_fix(wanted)) from error
    found = session.get_providers()[0]
    if found != wanted:
        raise BackendUnavailableError(
            "ONNX Runtime fell back to another provider", got=found, allowed=wanted, fix=_fix(wanted)
        )
    nodes = _nodes_by_provider(session) if device == "cuda" else None
    if nodes and not nodes[wanted]:
        raise BackendUnavailableError(
            "ONNX Runtime runs the whole model on another provider", got=_in_words(nodes), allowed=wanted
        )
    return session


def _fix(provider: str) -> str:
    if provider == TENSORRT:
        return "check the TensorRT library that it links (libnvinfer.so.10 for 1.31), or use the mode default"
    return "check the CUDA and cuDNN libraries with `searchkit doctor`, or use --device cpu"


def _nodes_by_provider(session: Any) -> Counter[str] | None:
    """How many nodes of the graph each provider runs; None where this version does not say."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return nodes


def _in_words(nodes: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in nodes.most_common())


class ONNXRuntimeSession(Session):
    """A session with its input and output bound to the device's memory."""

    def __init__(self, model: Model, info: SessionInfo, session: Any) -> None:
        self._info, self._session = info, session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        self._binding = session.io_binding()
        self._bind(model)

    def _bind(self, model: Model) -> None:
        self._binding.bind_output(self._output_name, self._info.device)

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


class CudaGraphSession(ONNXRuntimeSession):
    """A CUDA graph reads and writes the same memory at each replay, so both sides are bound once."""

    def _bind(self, model: Model) -> None:
        import onnxruntime

        output = self._session.get_outputs()[0]
        dtype = _DTYPES[output.type.removeprefix("tensor(").removesuffix(")")]
        value = onnxruntime.OrtValue
        self._input = value.ortvalue_from_numpy(model.example().numpy(), self._info.device, 0)
        result = value.ortvalue_from_shape_and_type(output.shape, dtype, self._info.device, 0)
        self._binding.bind_ortvalue_input(self._input_name, self._input)
        self._binding.bind_ortvalue_output(self._output_name, result)

    def load(self, batch: np.ndarray) -> None:
        self._input.update_inplace(batch)


class ONNXRuntimeBackend(Backend):
    """The module `onnxruntime`, whichever of its two distributions brought it."""

    name = "onnxruntime"
    modes = ("default", LABEL_HEAD, "cuda_graph", "tensorrt")
    label_head_modes = MappingProxyType({LABEL_HEAD: "default"})

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
        devices = tuple(d for d in ("cuda", "cpu") if PROVIDERS[d] in providers)
        return Available(onnxruntime.__version__, devices)

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        mode = self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        # Before the model is asked for: it may have to be exported.
        _require_mode(mode, device)
        session = create_session(model.onnx, device=device, threads=threads, mode=mode)
        options = {"mode": mode, "precision": model.precision, "graph_optimisation": "all", "io_binding": "on"}
        options |= settings_of(mode, device, threads)
        if mode == LABEL_HEAD and isinstance(found := native(), Native):
            options["label_head"] = found.kernels[0]
        nodes = _nodes_by_provider(session) if device == "cuda" else None
        if nodes:
            options["nodes"] = _in_words(nodes)
        info = SessionInfo(self.name, state.version, session.get_providers()[0], device, options)
        kind = CudaGraphSession if mode == "cuda_graph" else ONNXRuntimeSession
        return kind(model, info, session)


def _require_mode(mode: str, device: str) -> None:
    import onnxruntime

    if mode == "default":
        return
    if mode == LABEL_HEAD:
        _require_label_head(device)
        return
    if device != "cuda":
        raise BackendUnavailableError(
            f"the mode {mode} of onnxruntime needs a CUDA device",
            got=device,
            allowed="cuda",
            fix="use the mode default, or install onnxruntime-gpu on a machine with a GPU",
        )
    if mode == "tensorrt" and TENSORRT not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            "this ONNX Runtime was built without its TensorRT provider", fix="pip install onnxruntime-gpu"
        )


def _require_label_head(device: str) -> None:
    if device != "cpu":
        raise BackendUnavailableError(
            f"the mode {LABEL_HEAD} of onnxruntime is one of the CPU", got=device, allowed="cpu", fix="use --device cpu"
        )
    found = native()
    if isinstance(found, Missing):
        raise BackendUnavailableError(f"the native label head is not available: {found.reason}", fix=found.fix)


BACKEND = ONNXRuntimeBackend()
