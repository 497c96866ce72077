"""A network with another ONNX model than its own, as backends and `verify` take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from searchkit.sizes import Size

    from .backends import Model
    from .contracts import Contract


class Variant:
    """A `Model` that is another one but for `onnx`; engines were built of the other, so it has none."""

    def __init__(self, model: Model, onnx: bytes) -> None:
        self._model, self.onnx = model, onnx

    @property
    def contract(self) -> Contract:
        """That of the other model."""
        return self._model.contract

    @property
    def size(self) -> Size:
        """Height and width of the input image."""
        return self._model.size

    @property
    def precision(self) -> str:
        """What the ONNX model computes in."""
        return self._model.precision

    @property
    def module(self) -> nn.Module:
        """The PyTorch network of the other model."""
        return self._model.module

    def example(self) -> Tensor:
        """An input of the right shape and dtype."""
        return self._model.example()

    def engine(self, backend: str) -> bytes | None:
        """None: it was just made."""
        return None
