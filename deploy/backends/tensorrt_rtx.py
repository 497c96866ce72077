"""TensorRT-RTX: engines for GeForce and RTX GPUs, built on any machine, finished by the driver where they run.

Building needs no GPU: one engine can hold several compute capabilities, and the same model gives the same bytes.
Running one compiles its kernels at the first start; they are kept in the user's cache folder for the next. Not run
here: all that needs a GPU is written against the recorded interface of version 1.7.1.

Not used, as it does not work without a GPU or at all: refitting and stripping weights, hardware compatibility levels,
version compatibility, timing caches (their serialisation crashes the process).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError, unknown_name
from searchkit.files import sha256_bytes

from . import Available, Compiler, Engine, Session, SessionInfo, Unavailable
from ._cuda import Gpu, find_gpu, open_stream, require_gpu
from ._tensorrt_builder import build_plan, deserialised, message_log
from ._tensorrt_cache import CacheFile, cache_folder
from ._tensorrt_identity import check_header, check_recorded, onnx_digest, rebuild, recorded_options
from ._tensorrt_session import EngineSession, check_answers

if TYPE_CHECKING:
    from . import Model

INSTALL = "pip install tensorrt-rtx cuda-core cuda-bindings"
_WHAT = "TensorRT-RTX"
_PREFIX_BYTES = 64


def _module() -> Any:
    import tensorrt_rtx

    return tensorrt_rtx


def _targets(trt: Any) -> tuple[str, ...]:
    """Compute capabilities that engines can be built for, as `sm75`."""
    return tuple(name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM"))


class TensorRTRTX(Compiler):
    """The module `tensorrt_rtx`."""

    name = "tensorrt-rtx"

    def probe_build(self) -> Available | Unavailable:
        try:
            trt = _module()
        except (ImportError, OSError) as error:
            return Unavailable(f"the module tensorrt_rtx cannot be imported ({error})", INSTALL)
        return Available(trt.__version__, _targets(trt))

    def probe(self) -> Available | Unavailable:
        state = self.probe_build()
        if isinstance(state, Unavailable):
            return state
        gpu = find_gpu()
        if isinstance(gpu, str):
            return Unavailable(gpu, f"install NVIDIA's driver, R580 or newer, then {INSTALL}")
        if gpu.sm not in state.devices:
            return Unavailable(
                f"it has no code for {gpu.name} ({gpu.sm})", "use TensorRT: `searchkit doctor --target GPU`"
            )
        return Available(state.version, ("cuda",))

    def build(self, model: Model, targets: Sequence[str]) -> Engine:
        state = self.probe_build()
        if isinstance(state, Unavailable):
            raise BackendUnavailableError(f"{_WHAT} engines cannot be built here: {state.reason}", fix=state.install)
        self.chosen_mode(None, model.precision)
        chosen = _chosen(targets, state.devices)
        trt = _module()
        started = time.monotonic()

        def configure(config: Any) -> None:
            config.num_compute_capabilities = len(chosen)
            for index, target in enumerate(chosen):
                config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
            # Ten bits of mantissa would not be the function that was verified.
            config.clear_flag(trt.BuilderFlag.TF32)

        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        data = build_plan(trt, model.onnx, flags=typed, configure=configure, what=_WHAT)
        options = {"onnx_sha256": onnx_digest(model.onnx), "tensorrt_rtx": trt.__version__, "flags": "tf32=off"}
        return Engine(self.name, trt.__version__, chosen, data, ".engine", time.monotonic() - started, options)

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        gpu = require_gpu()
        data = model.engine(self.name)
        if data is None:
            data = self.build(model, [gpu.sm]).data
        check_header(data, runtime="tensorrt-rtx", version=state.version, sm=gpu.sm, backend=self.name)
        here = {"onnx_sha256": onnx_digest(model.onnx), "tensorrt_rtx": state.version}
        check_recorded(recorded_options(model, self.name), here, backend=self.name, sm=gpu.sm)
        return self._started(model, data, gpu, state.version)

    def _started(self, model: Model, data: bytes, gpu: Gpu, version: str) -> Session:
        trt = _module()
        digest = sha256_bytes(data)
        cached = CacheFile(cache_folder() / self.name, "kernels", digest[:32], gpu.name, gpu.driver, version)
        kernels = KernelCache(trt, cached)
        options = {
            "gpu": gpu.name,
            "compute_capability": gpu.sm,
            "driver": gpu.driver,
            "engine_sha256": digest,
            "kernels": "eager",
            "tf32": "off",
            "memory": gpu.library,
        }
        with ExitStack() as undo:
            cuda = open_stream(gpu)
            undo.callback(cuda.close)
            with cuda.current():
                runtime = trt.Runtime(message_log(trt))
                options["validity"] = _validity(trt, runtime, data, gpu)
                engine = deserialised(trt, runtime, data, _WHAT, fix=rebuild(self.name, gpu.sm))
            info = SessionInfo(self.name, version, _WHAT, "cuda", options)
            session = EngineSession(trt, model, runtime, engine, kernels.context, cuda, info)
            check_answers(model, session)
            with cuda.current():
                options["kernel_cache"] = kernels.keep()
            undo.pop_all()
        return session


class KernelCache:
    """The kernels that the driver compiled for an engine, kept from one start to the next.

    Args:
        cached: where they are kept; tied to the engine, the GPU, the driver and the version.
    """

    def __init__(self, trt: Any, cached: CacheFile) -> None:
        self._trt, self._cached = trt, cached
        self._cache: Any = None
        self._warm = False

    def context(self, engine: Any) -> Any:
        """An execution context whose kernels are all compiled when it is made, not lazily behind slower ones."""
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = config.create_runtime_cache()
        blob = self._cached.read()
        # The library checks the blob against GPU, driver and version, and takes nothing from one that does not fit.
        self._warm = blob is not None and bool(self._cache.deserialize(blob))
        config.set_runtime_cache(self._cache)
        return engine.create_execution_context(runtime_config=config)

    def keep(self) -> str:
        """Write what was compiled, and say what became of it: `warm`, `written` or `not written`."""
        if self._warm:
            return "warm"
        blob = self._cache.serialize()
        return "written" if blob is not None and self._cached.write(bytes(blob)) else "not written"


def _chosen(targets: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The targets in the library's own order, each once, so that the same choice gives the same bytes."""
    if not targets:
        raise UsageError("no target to build for", where="--target", allowed=", ".join(known))
    for target in targets:
        if target not in known:
            raise unknown_name(f"target of {_WHAT}", target, known, where="--target")
    return tuple(target for target in known if target in targets)


def _validity(trt: Any, runtime: Any, data: bytes, gpu: Gpu) -> str:
    """The library's own opinion of the engine's header: `valid`, `suboptimal` or `unknown`."""
    validity, reasons = runtime.get_engine_validity(data[:_PREFIX_BYTES])
    names = [n.lower() for n, bit in trt.EngineInvalidityDiagnostics.__members__.items() if int(reasons) & int(bit)]
    if validity != trt.EngineValidity.INVALID:
        return str(validity.name.lower())
    # Invalid for no reason is what it answers where it cannot ask the GPU.
    if not names:
        return "unknown"
    raise BackendUnavailableError(
        "TensorRT-RTX does not take the engine", got=", ".join(names), fix=rebuild("tensorrt-rtx", gpu.sm)
    )


BACKEND = TensorRTRTX()
