"""What the PyTorch network says to a picture, in all the forms that a verification compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from searchkit.blocks import resize
from searchkit.sizes import Size

from .deployable import Deployable
from .limits import Limits

_DECISIONS = {
    torch.argmax,
    torch.Tensor.argmax,
    torch.softmax,
    torch.Tensor.softmax,
    F.softmax,
}


@dataclass(frozen=True)
class Reference:
    """PyTorch's answer to one picture.

    Attributes:
        output: as the contract has it.
        logits: what the last arg-max or softmax is applied to; the output where there is none. N x C x H x W.
        labels: N x H x W at the input's size.
        clear: N x H x W, whether the two best logits, at the input's size, differ by more than the margin.
    """

    output: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    clear: np.ndarray

    @property
    def centred(self) -> np.ndarray:
        """The logits less their mean over the classes, float64: what decides the labels."""
        logits = self.logits.astype(np.float64)
        centred: np.ndarray = logits - logits.mean(axis=1, keepdims=True)
        return centred


class _Capture(torch.overrides.TorchFunctionMode):
    """Keeps what a decision was last applied to."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: torch.Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DECISIONS:
            self.logits = args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


def reference(model: Deployable, picture: np.ndarray, limits: Limits) -> Reference:
    """Run the PyTorch network on a uint8 RGB picture H x W x 3 of the model's size."""
    output, captured = capture_logits(model.module, torch.from_numpy(model.contract.encode(picture)))
    found, logits = output.numpy(), captured.numpy()
    return Reference(found, logits, model.contract.labels(found, model.size), _clear(logits, model.size, limits))


def capture_logits(module: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a network inside its contract, and what its last arg-max or softmax was applied to."""
    capture = _Capture()
    with torch.inference_mode(), capture:
        output = module(batch)
    return output, output if capture.logits is None else capture.logits


def _clear(logits: np.ndarray, size: Size, limits: Limits) -> np.ndarray:
    best = resize(torch.from_numpy(logits), size).topk(2, dim=1).values
    margin = limits.margin
    if limits.relative_margin:
        margin *= float((logits - logits.mean(axis=1, keepdims=True)).std())
    found: np.ndarray = (best[:, 0] - best[:, 1]).numpy() > margin
    return found
