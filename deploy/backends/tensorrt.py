"""TensorRT 10.4 to 11: engines for one GPU, built on that GPU.

10.4 is the last that serves the V100. Networks are strongly typed in all versions: the types in the ONNX model are what
is computed. The older way, a flag that allows FP16, would let TensorRT compute in FP16 what the model keeps in FP32
because it overflows.

Not run here: the library needs a GPU to build and to run. The code is held to the recorded interfaces of 10.4, 10.16
and 11.4.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError, unknown_name
from searchkit.files import sha256_bytes

from . import Available, Compiler, Engine, Session, SessionInfo, Unavailable
from ._cuda import Gpu, find_gpu, open_stream, require_gpu
from ._tensorrt_builder import build_plan, deserialised, message_log
from ._tensorrt_cache import CacheFile
from ._tensorrt_identity import check_header, check_recorded, numbers, onnx_digest, rebuild, recorded_options
from ._tensorrt_session import EngineSession, check_answers

if TYPE_CHECKING:
    from . import Model

INSTALL = "pip install tensorrt cuda-core cuda-bindings, in the versions that `searchkit doctor --target GPU` names"
_WHAT = "TensorRT"
_OLDEST = (10, 4)
_NO_VOLTA_FROM = (10, 5)
COMPATIBILITY = {"none": "NONE", "same": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        workspace_bytes: most scratch memory a layer may take; None is all of the GPU's.
        hardware: where the engine runs: `none` this GPU model only; `same` any of its compute capability (Turing and
            newer); `ampere+` any from Ampere on. The wider, the slower.
        timing_cache: folder for the times of kernels, which make the next build faster and more alike; None keeps none.
    """

    workspace_bytes: int | None = None
    hardware: str = "none"
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.hardware not in COMPATIBILITY:
            raise unknown_name("hardware compatibility", self.hardware, COMPATIBILITY)


DEFAULTS = BuildOptions()


def _module() -> Any:
    import tensorrt

    return tensorrt


class TensorRT(Compiler):
    """The module `tensorrt`."""

    name = "tensorrt"

    def probe(self) -> Available | Unavailable:
        state = self._found()
        return Available(state[0], ("cuda",)) if isinstance(state, tuple) else state

    def probe_build(self) -> Available | Unavailable:
        state = self._found()
        return Available(state[0], (state[1].sm,)) if isinstance(state, tuple) else state

    def _found(self) -> tuple[str, Gpu] | Unavailable:
        """Version and GPU, or what is missing."""
        try:
            version = str(_module().__version__)
        except (ImportError, OSError) as error:
            return Unavailable(f"the module tensorrt cannot be imported ({error})", INSTALL)
        if numbers(version)[:2] < _OLDEST:
            return Unavailable(f"TensorRT {version} is older than 10.4", INSTALL)
        gpu = find_gpu()
        if isinstance(gpu, str):
            return Unavailable(gpu, f"install NVIDIA's driver, then {INSTALL}")
        if gpu.sm == "sm70" and numbers(version)[:2] >= _NO_VOLTA_FROM:
            return Unavailable(f"TensorRT {version} does not serve {gpu.name}", "pip install tensorrt-cu12==10.4.0")
        return version, gpu

    def build(self, model: Model, targets: Sequence[str], *, options: BuildOptions = DEFAULTS) -> Engine:
        state = self.probe_build()
        if isinstance(state, Unavailable):
            raise BackendUnavailableError(f"{_WHAT} engines cannot be built here: {state.reason}", fix=state.install)
        self.chosen_mode(None, model.precision)
        if not targets or set(targets) != set(state.devices):
            raise UsageError(
                "TensorRT builds for the GPU of this machine only",
                where="--target",
                got=", ".join(targets) or "none",
                allowed=state.devices[0],
                fix="build there, or take tensorrt-rtx, which builds for other GPUs",
            )
        gpu, trt, started = require_gpu(), _module(), time.monotonic()
        build = _Build(trt, gpu, options)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        data = build_plan(trt, model.onnx, flags=typed, configure=build.configure, what=_WHAT)
        build.keep_times()
        identity = _identity(model.onnx, state.version, gpu) | {
            "hardware_compatibility": options.hardware,
            "flags": build.flags(),
        }
        seconds = time.monotonic() - started
        return Engine(self.name, state.version, (gpu.sm,), data, ".engine", seconds, identity)

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        gpu = require_gpu()
        data, recorded = model.engine(self.name), recorded_options(model, self.name)
        if data is None:
            engine = self.build(model, [gpu.sm])
            data, recorded = engine.data, engine.options
        check_header(data, runtime="tensorrt", version=state.version, sm=gpu.sm, backend=self.name)
        here = _asked_of(recorded, _identity(model.onnx, state.version, gpu), gpu)
        check_recorded(recorded, here, backend=self.name, sm=gpu.sm)
        return self._started(model, data, gpu, state.version)

    def _started(self, model: Model, data: bytes, gpu: Gpu, version: str) -> Session:
        trt = _module()
        options = {
            "gpu": gpu.name,
            "compute_capability": gpu.sm,
            "driver": gpu.driver,
            "engine_sha256": sha256_bytes(data),
            "tf32": "off",
            "memory": gpu.library,
        }
        with ExitStack() as undo:
            cuda = open_stream(gpu)
            undo.callback(cuda.close)
            with cuda.current():
                runtime = trt.Runtime(message_log(trt))
                engine = deserialised(trt, runtime, data, _WHAT, fix=rebuild(self.name, gpu.sm))
            info = SessionInfo(self.name, version, _WHAT, "cuda", options)
            session = EngineSession(
                trt, model, runtime, engine, lambda opened: opened.create_execution_context(), cuda, info
            )
            check_answers(model, session)
            undo.pop_all()
        return session


class _Build:
    """The settings of one build."""

    def __init__(self, trt: Any, gpu: Gpu, options: BuildOptions) -> None:
        self._trt, self._options = trt, options
        self._config: Any = None
        self._level = getattr(trt.HardwareCompatibilityLevel, COMPATIBILITY[options.hardware], None)
        if self._level is None or (options.hardware == "ampere+" and int(gpu.sm[2:]) < 80):
            raise UsageError(
                f"no such hardware compatibility with TensorRT {trt.__version__} on {gpu.name}",
                got=options.hardware,
                allowed="none",
            )
        folder = options.timing_cache
        self._times = CacheFile(folder, "timing", trt.__version__, gpu.name, gpu.sm) if folder else None

    def flags(self) -> str:
        """The settings as text."""
        return f"strongly-typed tf32=off workspace={self._options.workspace_bytes or 'all'}"

    def configure(self, config: Any) -> None:
        """Set what was chosen."""
        trt, self._config = self._trt, config
        # Ten bits of mantissa would not be the function that was verified.
        config.clear_flag(trt.BuilderFlag.TF32)
        if self._options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._options.workspace_bytes)
        if self._options.hardware != "none":
            config.hardware_compatibility_level = self._level
        if self._times:
            # Times of another GPU are refused by the library; then it starts afresh.
            known = config.create_timing_cache(self._times.read() or b"")
            config.set_timing_cache(known, False) or config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep_times(self) -> None:
        """Write what the build measured, if that is wanted."""
        if self._times:
            self._times.write(bytes(self._config.get_timing_cache().serialize()))


def _identity(onnx: bytes, version: str, gpu: Gpu) -> dict[str, str]:
    """What an engine is tied to."""
    return {
        "onnx_sha256": onnx_digest(onnx),
        "tensorrt": version,
        "gpu": gpu.name,
        "compute_capability": gpu.sm,
        "driver": gpu.driver,
    }


def _asked_of(recorded: Mapping[str, str], identity: dict[str, str], gpu: Gpu) -> dict[str, str]:
    """The part of the identity that must agree: a hardware-compatible engine runs on more than its own GPU."""
    hardware = recorded.get("hardware_compatibility", "none")
    free = {"none": set(), "same": {"gpu"}}.get(hardware, {"gpu", "compute_capability"})
    if hardware == "ampere+" and int(gpu.sm[2:]) < 80:
        free = set()
    return {field: value for field, value in identity.items() if field not in free}


BACKEND = TensorRT()
