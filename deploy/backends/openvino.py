"""OpenVINO on the CPU, in float32 or, where the CPU computes in it, in bfloat16; int8 through quantised graphs.

On a CPU with bfloat16 instructions OpenVINO's own default is bfloat16: each mode therefore forces its precision, and
what the compiled network really uses is read back.

Modes: `fp32`; `bf16`, which keeps 8 bits of a number's significand and so is another function than the verified one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError, VerificationError

from . import Available, Backend, Session, SessionInfo, Unavailable

if TYPE_CHECKING:
    import numpy as np

    from . import Model

INSTALL = "pip install openvino"

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_MESSAGE_CHARACTERS = 200


class OpenVINOSession(Session):
    """One compiled network with one request: a stream that takes all the threads it may, for latency."""

    def __init__(self, info: SessionInfo, compiled: Any) -> None:
        self._info, self._compiled = info, compiled
        self._request = compiled.create_infer_request()
        self._input: np.ndarray | None = None

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        """The array itself is read, so it must not change until the next `load`; a read-only one is copied."""
        import numpy as np
        import openvino

        # Shared memory must be writable and without gaps. Kept, because a tensor does not keep the array it shares.
        self._input = np.require(batch, requirements=("C", "W"))
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def execute(self) -> None:
        self._request.infer()

    def synchronize(self) -> None:
        """Nothing to wait for: `execute` returns with the result."""

    def output(self) -> np.ndarray:
        result: np.ndarray = self._request.get_output_tensor().data.copy()
        return result

    def close(self) -> None:
        del self._request, self._compiled
        self._input = None


class OpenVINOBackend(Backend):
    """OpenVINO's CPU plug-in."""

    name = "openvino"
    modes = ("fp32", "bf16")

    def probe(self) -> Available | Unavailable:
        try:
            import openvino

            devices = openvino.Core().available_devices
        except (ImportError, OSError, RuntimeError) as error:
            return Unavailable(f"OpenVINO cannot be loaded ({str(error)[:_MESSAGE_CHARACTERS]})", INSTALL)
        if "CPU" not in devices:
            return Unavailable("OpenVINO does not find its CPU plug-in", INSTALL)
        return Available(openvino.__version__, ("cpu",))

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        mode = self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        import openvino

        core = openvino.Core()
        _require_mode(core, mode)
        compiled = _compiled(core, model.onnx, mode, threads)
        options = _options(compiled, mode, model.precision)
        _require_asked(options, mode, threads)
        return OpenVINOSession(SessionInfo(self.name, state.version, "CPU plug-in", device, options), compiled)


def _require_mode(core: Any, mode: str) -> None:
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if mode == "bf16" and "BF16" not in capabilities:
        raise BackendUnavailableError(
            "this CPU has no instructions for bfloat16 that OpenVINO uses",
            got=", ".join(capabilities),
            allowed="BF16 among them (AVX512_BF16 or AMX)",
            fix="use the mode fp32",
        )


def _compiled(core: Any, onnx: bytes, mode: str, threads: int | None) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[mode],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Two sessions would otherwise be nailed to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return core.compile_model(core.read_model(model=onnx), "CPU", settings)
    except RuntimeError as error:
        raise VerificationError(
            f"OpenVINO refuses the model: {_last_line(error)}", fix="use the backend onnxruntime"
        ) from error


def _last_line(error: RuntimeError) -> str:
    """OpenVINO's messages begin with the places in its source, and end with what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["it does not say why"])[-1][:_MESSAGE_CHARACTERS]


def _options(compiled: Any, mode: str, precision: str) -> dict[str, str]:
    """What the compiled network uses, as it says itself."""
    read = compiled.get_property
    return {
        "mode": mode,
        "precision": _precision(mode, precision),
        "inference_precision": read("INFERENCE_PRECISION_HINT").get_type_name(),
        "kernels": _kernels(compiled),
        "threads": str(read("INFERENCE_NUM_THREADS")),
        "streams": str(read("NUM_STREAMS")),
        "hint": str(read("PERFORMANCE_HINT")).rpartition(".")[2].lower(),
        "cpu_pinning": "on" if read("ENABLE_CPU_PINNING") else "off",
    }


def _precision(mode: str, model: str) -> str:
    """What is computed in; integers stay integers, and a float16 model is computed in the mode's precision."""
    if model == "int8":
        return "int8" if mode == "fp32" else f"int8 and {mode}"
    return mode if model == "fp32" else f"{model} as {mode}"


def _kernels(compiled: Any) -> str:
    """Convolutions and matrix products of the compiled network by the precision that they run in, such as `f32 30`."""
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        facts = operation.get_rt_info()
        kind, precision = (facts[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            counts[precision] += 1
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _require_asked(options: dict[str, str], mode: str, threads: int | None) -> None:
    """Nothing other than what was asked for is run in silence."""
    if options["inference_precision"] != _HINTS[mode] or (mode == "fp32" and "bf16" in options["kernels"]):
        raise BackendUnavailableError(
            "OpenVINO computes in another precision than it was told to",
            got=f"{options['inference_precision']}, kernels {options['kernels']}",
            allowed=_HINTS[mode],
        )
    if threads is not None and options["threads"] != str(threads):
        raise UsageError(
            "OpenVINO uses another number of threads",
            where="--threads",
            got=threads,
            allowed=f"at most {options['threads']} here",
            fix="give fewer threads",
        )


BACKEND = OpenVINOBackend()
