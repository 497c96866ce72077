"""AOTInductor: PyTorch's network compiled ahead of time to a library in a `.pt2` file; building needs a C++ compiler.

Running an engine needs none. An engine holds machine code for one kind of CPU or GPU and is tied to the PyTorch that
built it; it starts as many threads as the process is told to, whatever the building one had.
"""

from __future__ import annotations

import io
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError, VerificationError, unknown_name
from searchkit.files import sha256_bytes

from . import Available, Compiler, Engine, Session, SessionInfo, Unavailable
from ._aoti_package import TORCH_KEY, metadata_of, release, require_runnable
from ._cpp_compiler import INSTALL, compiler_problem
from ._torch import first_line, private_copy, settings_held, tensor_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    from . import Model

SUFFIX = ".pt2"

_Run = Callable[..., Any]
# A library that was loaded stays in the process until it ends, whatever is done about it: one copy an engine is enough.
_LOADED: dict[tuple[str, str], _Run] = {}
_LOADING = threading.Lock()


class AOTISession(Session):
    """A compiled network; sessions of one engine share its code, not their inputs and outputs."""

    def __init__(self, run: _Run, model: Model, info: SessionInfo, threads: int | None) -> None:
        self._run, self._info, self._threads = run, info, threads
        self._input = model.example().to(info.device)
        self._output: torch.Tensor | None = None

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        """On a CPU the array itself is read, so it must not change until the next `load`."""
        self._input = tensor_of(batch).to(self._info.device)

    def execute(self) -> None:
        with settings_held(self._threads, self._info.device):
            self._output = self._run(self._input)

    def synchronize(self) -> None:
        if self._info.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def output(self) -> np.ndarray:
        assert self._output is not None, "execute first"
        return self._output.cpu().numpy()

    def close(self) -> None:
        del self._run, self._input
        self._output = None


class AOTIBackend(Compiler):
    """PyTorch's compiler and loader of packages. It builds the float32 network: other precisions are ONNX graphs."""

    name = "aoti"
    precisions = ("fp32",)
    runs_onnx = False
    slow_modes = ("default",)

    def probe(self) -> Available | Unavailable:
        try:
            import torch
        except (ImportError, OSError) as error:
            return Unavailable(f"the module torch cannot be imported ({error})", "pip install torch")
        devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
        return Available(torch.__version__, devices)

    def probe_build(self) -> Available | Unavailable:
        state = self.probe()
        if isinstance(state, Unavailable):
            return state
        problem = compiler_problem()
        if problem:
            return Unavailable(problem, INSTALL)
        return Available(state.version, tuple(_target(device) for device in state.devices))

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        """As `Backend.open`; a model without an engine for this backend is built first, which takes a minute."""
        mode = self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        data = model.engine(self.name)
        if data is None:
            data = self.build(model, [_target(device)]).data
        metadata = metadata_of(data)
        require_runnable(metadata, device)
        options = {"mode": mode, "precision": "fp32", **_settings(device, threads)}
        if device == "cpu":
            options["instructions"] = metadata.get("AOTI_CPU_ISA", "").lower()
        info = SessionInfo(self.name, state.version, f"AOTInductor {device.upper()}", device, options)
        return AOTISession(_loaded(data, device), model, info, threads)

    def build(self, model: Model, targets: Sequence[str]) -> Engine:
        self.chosen_mode(None, model.precision)
        state = self.probe_build()
        if isinstance(state, Unavailable):
            raise BackendUnavailableError(f"backend aoti cannot build here: {state.reason}", fix=INSTALL)
        device = _device(targets, state.devices)
        start = time.monotonic()
        data = _package(model, device)
        options = {"precision": "fp32", "threads": "those of the process", **metadata_of(data)}
        return Engine(self.name, state.version, tuple(targets), data, SUFFIX, time.monotonic() - start, options)


def _target(device: str) -> str:
    """Such as `cpu-avx512` or `cuda-sm90`: what an engine built here for `device` needs at least."""
    import torch

    if device == "cpu":
        return f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"
    major, minor = torch.cuda.get_device_capability()
    return f"cuda-sm{major}{minor}"


def _device(targets: Sequence[str], known: Sequence[str]) -> str:
    for target in targets:
        if target not in known:
            raise unknown_name("target of aoti", target, known)
    if len(targets) != 1:
        raise UsageError("an AOTInductor engine is for one target", got=list(targets), allowed=f"one of {list(known)}")
    return targets[0].partition("-")[0]


def _settings(device: str, threads: int | None) -> dict[str, str]:
    import torch

    return {"tf32": "off"} if device == "cuda" else {"threads": str(threads or torch.get_num_threads())}


def _package(model: Model, device: str) -> bytes:
    import torch
    from torch._inductor import aoti_compile_and_package

    file = io.BytesIO()
    settings = {
        # As many threads as the running process has, not as the building one had.
        "cpp.dynamic_threads": True,
        # One thread compiles: a pool of compiling processes would live as long as this one.
        "compile_threads": 1,
        "aot_inductor.metadata": {TORCH_KEY: release(torch.__version__)},
    }
    try:
        with _quiet(), torch.no_grad(), settings_held(None, device):
            program = torch.export.export(private_copy(model.module, device), (model.example().to(device),))
            aoti_compile_and_package(program, package_path=file, inductor_configs=settings)
    except RuntimeError as error:
        raise VerificationError(
            f"PyTorch cannot compile this network: {first_line(error)}", fix="use the backend pytorch"
        ) from error
    return file.getvalue()


def _loaded(data: bytes, device: str) -> _Run:
    from torch._inductor import aoti_load_package

    key = (sha256_bytes(data), device)
    with _LOADING:
        if key not in _LOADED:
            try:
                with _quiet():
                    _LOADED[key] = aoti_load_package(io.BytesIO(data))
            except RuntimeError as error:
                raise BackendUnavailableError(
                    f"PyTorch cannot load the engine: {first_line(error)}", fix="build the engine again on this machine"
                ) from error
        return _LOADED[key]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without notes that are none of a user's business.

    Without a C++ compiler the loader cannot compare instruction sets, and calls the file outdated; that was compared.
    """
    logger = logging.getLogger("torch._inductor.package.package")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


BACKEND = AOTIBackend()
