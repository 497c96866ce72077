"""A model that ends in labels, as one that ends in its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchkit.errors import UsageError

from .native.label_tail import without_label_tail

if TYPE_CHECKING:
    from torch import Tensor, nn

    from searchkit.sizes import Size

    from .backends import Model
    from .contracts import Contract


class HeadlessModel:
    """A `Model` without its last resize and arg-max, for backends that run the ONNX model.

    Attributes:
        corners: how the resize that is left to do takes corners: `half_pixel` or `align_corners`.

    Raises:
        UsageError: the model does not end so.
    """

    def __init__(self, model: Model) -> None:
        found = without_label_tail(model.onnx)
        if found is None:
            raise UsageError(
                "the model has no last resize and arg-max that could be left out",
                allowed="the tensor contracts labels and triton",
                fix="export with --io labels",
            )
        self._model, self.onnx, self.corners = model, found.model, found.corners

    @property
    def contract(self) -> Contract:
        """That of the whole model; only its input still holds."""
        return self._model.contract

    @property
    def size(self) -> Size:
        return self._model.size

    @property
    def precision(self) -> str:
        return self._model.precision

    @property
    def module(self) -> nn.Module:
        raise UsageError("a model without its end is an ONNX model only", fix="choose a backend that runs ONNX")

    def example(self) -> Tensor:
        return self._model.example()

    def engine(self, backend: str) -> bytes | None:
        """None: engines were built of the whole model."""
        return None
