"""A model that ends in labels, as one that ends in its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchkit.errors import UsageError

from .native.label_tail import without_label_tail
from .variant import Variant

if TYPE_CHECKING:
    from torch import nn

    from .backends import Model


class HeadlessModel(Variant):
    """A `Model` without its last resize and arg-max, for backends that run the ONNX model.

    Of its contract only the input still holds.

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
        super().__init__(model, found.model)
        self.corners = found.corners

    @property
    def module(self) -> nn.Module:
        """None: raises `UsageError`."""
        raise UsageError("a model without its end is an ONNX model only", fix="choose a backend that runs ONNX")
