"""PyTorch eager: the reference; convolutions and BatchNorms as the network has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Available, Backend, Session, SessionInfo, Unavailable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..deployable import Deployable


class PyTorchSession(Session):
    """A copy of the reference network on one device."""

    def __init__(self, model: Deployable, info: SessionInfo) -> None:
        import copy

        self._info = info
        # A copy, so that moving it to a device leaves the reference where it is.
        self._module = copy.deepcopy(model.module).to(info.device)
        self._input = model.example().to(info.device)
        self._output: torch.Tensor | None = None

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        import torch

        self._input = torch.from_numpy(batch).to(self._info.device)

    def execute(self) -> None:
        import torch

        with torch.inference_mode():
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


class PyTorchBackend(Backend):
    """The installed PyTorch."""

    name = "pytorch"

    def probe(self) -> Available | Unavailable:
        try:
            import torch
        except (ImportError, OSError) as error:
            return Unavailable(f"the module torch cannot be imported ({error})", "pip install searchkit")
        devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
        return Available(torch.__version__, devices)

    def open(self, model: Deployable, *, device: str | None = None, threads: int | None = None) -> Session:
        state, device = self.require(device)
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        options = {"mode": "eager", "memory_format": "contiguous", "dtype": "float32"}
        if device == "cuda":
            # TF32 would be another network than the one that was verified.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            options |= {"tf32": "off", "cudnn_benchmark": str(torch.backends.cudnn.benchmark).lower()}
        else:
            options["threads"] = str(torch.get_num_threads())
        info = SessionInfo(self.name, state.version, f"PyTorch {device.upper()}", device, options)
        return PyTorchSession(model, info)


BACKEND = PyTorchBackend()
