"""PyTorch: the reference, convolutions and BatchNorms as the network has them; eager, compiled or as a CUDA graph.

Modes: `eager`; `channels_last`, the same with channels innermost in memory; `compiled`, by TorchInductor, which needs a
C++ compiler on a CPU; `cuda_graph`, eager on a GPU, recorded once and replayed.
"""

from __future__ import annotations

import os
import sysconfig
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, VerificationError

from . import Available, Backend, Session, SessionInfo, Unavailable
from ._cpp_compiler import INSTALL, compiler_problem
from ._torch import first_line, private_copy, settings_held, tensor_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    from . import Model

_GRAPH_WARM_UP_RUNS = 3


class PyTorchSession(Session):
    """A copy of the reference network on one device, run eagerly."""

    def __init__(self, model: Model, info: SessionInfo, threads: int | None) -> None:
        self._info, self._threads = info, threads
        self._input = model.example().to(info.device)
        self._output: torch.Tensor | None = None
        self._module = private_copy(model.module, info.device)
        self._prepare()

    def _prepare(self) -> None:
        """What a mode does to `_module` once."""

    def _settings(self) -> AbstractContextManager[None]:
        return settings_held(self._threads, self._info.device)

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        """On a CPU the array itself is read, so it must not change until the next `load`."""
        self._input = tensor_of(batch).to(self._info.device)

    def execute(self) -> None:
        import torch

        with self._settings(), torch.inference_mode():
            self._output = self._module(self._input)

    def synchronize(self) -> None:
        if self._info.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def output(self) -> np.ndarray:
        assert self._output is not None, "execute first"
        return self._output.cpu().numpy()

    def close(self) -> None:
        del self._module
        self._output = None


class ChannelsLastSession(PyTorchSession):
    """Weights and maps as NHWC in memory, which is how oneDNN's and cuDNN's fastest convolutions want them."""

    def _prepare(self) -> None:
        import torch

        self._module = self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(self, batch: np.ndarray) -> None:
        import torch

        super().load(batch)
        # A picture as N x H x W x 3 bytes has its channels last already.
        if self._input.is_floating_point():
            self._input = self._input.contiguous(memory_format=torch.channels_last)


class CompiledSession(PyTorchSession):
    """`torch.compile` for this one input shape; compiled when it is opened."""

    def _prepare(self) -> None:
        import torch

        try:
            with self._settings(), torch.no_grad():
                # Its own graph has its own code: `torch.compile` keeps at most 8 variants a function, and all networks
                # under one contract share that contract's `forward`.
                graph = torch.export.export(self._module, (self._input,)).module()
                # One thread compiles: a pool of compiling processes would live as long as this one.
                options: dict[str, Any] = {"compile_threads": 1}
                self._module = torch.compile(graph, fullgraph=True, dynamic=False, options=options)  # type: ignore[assignment]
            self.execute()
        except RuntimeError as error:
            raise VerificationError(
                f"PyTorch cannot compile this network: {first_line(error)}", fix="use the mode eager"
            ) from error


class CudaGraphSession(PyTorchSession):
    """One eager run, recorded and replayed, so that the host starts one graph instead of some hundred kernels.

    Written against the documented `torch.cuda.graph`; not run here: there was no GPU.
    """

    def _prepare(self) -> None:
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with self._settings(), torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(_GRAPH_WARM_UP_RUNS):
                self._module(self._input)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with self._settings(), torch.inference_mode(), torch.cuda.graph(self._graph):
            self._output = self._module(self._input)

    def load(self, batch: np.ndarray) -> None:
        # The graph reads this memory and no other.
        self._input.copy_(tensor_of(batch))

    def execute(self) -> None:
        self._graph.replay()

    def close(self) -> None:
        del self._graph
        super().close()


_SESSIONS: dict[str, type[PyTorchSession]] = {
    "eager": PyTorchSession,
    "channels_last": ChannelsLastSession,
    "compiled": CompiledSession,
    "cuda_graph": CudaGraphSession,
}


class PyTorchBackend(Backend):
    """The installed PyTorch. It runs the float32 network: other precisions stand in the ONNX graph alone."""

    name = "pytorch"
    modes = tuple(_SESSIONS)
    precisions = ("fp32",)
    runs_onnx = False
    slow_modes = ("compiled",)

    def probe(self) -> Available | Unavailable:
        try:
            import torch
        except (ImportError, OSError) as error:
            return Unavailable(f"the module torch cannot be imported ({error})", "pip install torch")
        devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
        return Available(torch.__version__, devices)

    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        mode = self.chosen_mode(mode, model.precision)
        state, device = self.require(device)
        _require_mode(mode, device)
        options = _options(mode, device, threads)
        info = SessionInfo(self.name, state.version, f"PyTorch {device.upper()}", device, options)
        return _SESSIONS[mode](model, info, threads)


def _require_mode(mode: str, device: str) -> None:
    if mode == "cuda_graph" and device != "cuda":
        raise BackendUnavailableError(
            "the mode cuda_graph of pytorch needs a CUDA device", got=device, allowed="cuda", fix="use the mode eager"
        )
    problem = _cpu_compile_problem() if mode == "compiled" and device == "cpu" else None
    if problem:
        raise BackendUnavailableError(f"the mode compiled of pytorch cannot run here: {problem}", fix=INSTALL)


def _cpu_compile_problem() -> str | None:
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.isfile(header):
        return f"Python's headers are not installed ({os.path.basename(header)} is missing)"
    return compiler_problem()


def _options(mode: str, device: str, threads: int | None) -> dict[str, str]:
    import torch

    options = {
        "mode": mode,
        "precision": "fp32",
        "memory_format": "channels_last" if mode == "channels_last" else "contiguous",
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device == "cuda":
        return options | {"tf32": "off", "cudnn_benchmark": str(torch.backends.cudnn.benchmark).lower()}
    return options | {"threads": str(threads or torch.get_num_threads())}


BACKEND = PyTorchBackend()
