"""Bilinear resizing as two matrices: what a Resize of the exporter computes, as constants."""

from __future__ import annotations

import numpy as np
import onnx

from .editing import Editor, attribute

_SIZES = 3
_CORNERS = ("align_corners", "half_pixel", "pytorch_half_pixel")


def is_bilinear(editor: Editor, resize: onnx.NodeProto | None) -> bool:
    """Whether a node is a bilinear Resize of a map to a stated size, with weights that sum to 1 at each position."""
    if resize is None or resize.op_type != "Resize" or not editor.is_map(resize.input[0]):
        return False
    convention = attribute(resize, "coordinate_transformation_mode", "half_pixel")
    stated = len(resize.input) > _SIZES and editor.is_constant(resize.input[_SIZES])
    linear = attribute(resize, "mode", "nearest") == "linear" and convention in _CORNERS and stated
    return linear and not attribute(resize, "antialias", 0) and not attribute(resize, "exclude_outside", 0)


def matrix(after: int, before: int, convention: str) -> np.ndarray:
    """The after x before matrix that resizes one side, in double precision.

    Args:
        convention: ONNX's `coordinate_transformation_mode`.
    """
    place = np.arange(after, dtype=np.float64)
    if convention == "align_corners":
        at = place * (before - 1) / (after - 1) if after > 1 else np.zeros(after)
    else:
        at = (place + 0.5) * before / after - 0.5
        if convention == "pytorch_half_pixel" and after == 1:
            at = np.zeros(after)
    at = at.clip(0, before - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, before - 1)
    weights = np.zeros((after, before))
    np.add.at(weights, (np.arange(after), low), 1 - (at - low))
    np.add.at(weights, (np.arange(after), high), at - low)
    return weights
