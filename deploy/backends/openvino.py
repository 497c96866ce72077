"""OpenVINO on the CPU, in float32 or, where the CPU computes in it, in bfloat16; int8 through quantised graphs.

On a CPU with bfloat16 instructions OpenVINO's own default is bfloat16: each mode therefore forces its precision, and
what the compiled network really uses is read back.

Modes: `fp32`; `bf16`, which keeps 8 bits of a number's significand and so is another function than the verified one;
`label_head` and `bf16_label_head`, the same two with the last resize and arg-max done by the native kernel behind
OpenVINO (see `docs/native.md`), for models that end in labels.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError, VerificationError

from ..native.label_head import kernels, label_head
from ..native.label_tail import Headless, without_label_tail
from ..native.library import Missing, native
from . import Available, Backend, Session, SessionInfo, Unavailable

if TYPE_CHECKING:
    import numpy as np

    from . import Model

INSTALL = "pip install openvino"

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_LABEL_HEAD = "label_head"
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
        # By itself `infer` copies every output: of the logits at 512x1024, 15 of 82 ms.
        self._request.infer(share_outputs=True)

    def synchronize(self) -> None:
        """Nothing to wait for: `execute` returns with the result."""

    def output(self) -> np.ndarray:
        result: np.ndarray = self._request.get_output_tensor().data.copy()
        return result

    def close(self) -> None:
        del self._request, self._compiled
        self._input = None


class LabelHeadSession(OpenVINOSession):
    """A network up to its logits, and the native kernel that makes labels of them; both are part of `execute`.

    OpenVINO's threads do not spin, so the kernel takes as many.
    """

    def __init__(self, info: SessionInfo, compiled: Any, headless: Headless, threads: int) -> None:
        super().__init__(info, compiled)
        self._headless, self._threads = headless, threads

    def execute(self) -> None:
        super().execute()
        logits = self._request.get_output_tensor().data
        head, size, corners = label_head, self._headless.size, self._headless.corners
        self._labels = head(logits[0], size, corners=corners, threads=self._threads)

    def output(self) -> np.ndarray:
        """A new array at each `execute`."""
        return self._labels[None]


class OpenVINOBackend(Backend):
    """OpenVINO's CPU plug-in."""

    name = "openvino"
    modes = ("fp32", "bf16", _LABEL_HEAD, f"bf16_{_LABEL_HEAD}")
    label_head_modes = MappingProxyType({_LABEL_HEAD: "fp32", f"bf16_{_LABEL_HEAD}": "bf16"})

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
        core = shared_core()
        precision = "bf16" if mode.startswith("bf16") else "fp32"
        _require_precision(core, precision)
        headless = _headless(model.onnx) if mode in self.label_head_modes else None
        compiled = _compiled(core, headless.model if headless else model.onnx, precision, threads)
        options = {"mode": mode} | _options(compiled, precision, model.precision)
        _require_asked(options, precision, threads)
        if headless is None:
            return OpenVINOSession(SessionInfo(self.name, state.version, "CPU plug-in", device, options), compiled)
        options["label_head"] = kernels()[0]
        info = SessionInfo(self.name, state.version, "CPU plug-in", device, options)
        return LabelHeadSession(info, compiled, headless, int(options["threads"]))


@cache
def shared_core() -> Any:
    """The one of this process, never freed.

    On a CPU with AMX a plug-in gives the thread that loads it an alternate signal stack. The plug-ins of two cores that
    are freed in the order they were made, or one that is freed in another thread, leave that thread with a stack that
    is gone: the next signal, such as Ctrl-C, then kills the process (seen with OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def _headless(onnx: bytes) -> Headless:
    found = native()
    if isinstance(found, Missing):
        raise BackendUnavailableError(f"the native label head is not available: {found.reason}", fix=found.fix)
    headless = without_label_tail(onnx)
    if headless is None:
        raise UsageError(
            "the modes with the native label head need a model that ends in labels",
            where="--backend",
            allowed="the tensor contracts labels and triton",
            fix="use the mode fp32 or bf16, or export with --io labels",
        )
    return headless


def _require_precision(core: Any, precision: str) -> None:
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        raise BackendUnavailableError(
            "this CPU has no instructions for bfloat16 that OpenVINO uses",
            got=", ".join(capabilities),
            allowed="BF16 among them (AVX512_BF16 or AMX)",
            fix="use the mode fp32",
        )


def _compiled(core: Any, onnx: bytes, precision: str, threads: int | None) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
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


def _options(compiled: Any, precision: str, model: str) -> dict[str, str]:
    """What the compiled network uses, as it says itself."""
    read = compiled.get_property
    return {
        "precision": _precision(precision, model),
        "inference_precision": read("INFERENCE_PRECISION_HINT").get_type_name(),
        "kernels": _kernels(compiled),
        "threads": str(read("INFERENCE_NUM_THREADS")),
        "streams": str(read("NUM_STREAMS")),
        "hint": str(read("PERFORMANCE_HINT")).rpartition(".")[2].lower(),
        "cpu_pinning": "on" if read("ENABLE_CPU_PINNING") else "off",
    }


def _precision(computed: str, model: str) -> str:
    """What is computed in; integers stay integers, and a float16 model is computed in the mode's precision."""
    if model == "int8":
        return "int8" if computed == "fp32" else f"int8 and {computed}"
    return computed if model == "fp32" else f"{model} as {computed}"


def _kernels(compiled: Any) -> str:
    """Convolutions and matrix products of the compiled network by the precision that they run in, such as `f32 30`."""
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        facts = operation.get_rt_info()
        kind, precision = (facts[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            counts[precision] += 1
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _require_asked(options: dict[str, str], precision: str, threads: int | None) -> None:
    """Nothing other than what was asked for is run in silence."""
    if options["inference_precision"] != _HINTS[precision] or (precision == "fp32" and "bf16" in options["kernels"]):
        raise BackendUnavailableError(
            "OpenVINO computes in another precision than it was told to",
            got=f"{options['inference_precision']}, kernels {options['kernels']}",
            allowed=_HINTS[precision],
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
