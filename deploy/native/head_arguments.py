"""What the label heads take, on a CPU and on GPUs: the same arguments, refused in the same words."""

from __future__ import annotations

from typing import Any

from searchkit.errors import UsageError
from searchkit.sizes import Size

MAX_CLASSES = 256
MAX_SIDE = 32768
#: PyTorch's align_corners=False and True, as ONNX's Resize names them.
CORNERS = ("half_pixel", "align_corners")
CERTAINTIES = ("probability", "margin")
#: In the order of `sk_dtype` in `label_head.h`.
DTYPES = ("float32", "float16", "bfloat16")


def check(shape: tuple[int, ...], dtype: str, size: Size, corners: str, certainty: str | None) -> None:
    """Raises `UsageError` unless logits of this shape (C x h x w) and type can be resized to `size`."""
    problem: tuple[str, Any, str] | None = None
    if len(shape) != 3 or 0 in shape:
        problem = ("logits are not C x h x w", shape, "three sides of at least 1")
    elif shape[0] > MAX_CLASSES:
        problem = ("too many classes for labels of one byte", shape[0], f"at most {MAX_CLASSES}")
    elif dtype not in DTYPES:
        problem = ("logits of another type", dtype, ", ".join(DTYPES))
    elif min(size) < 1 or max(*size, *shape[1:]) > MAX_SIDE:
        problem = ("a side is out of range", (*shape[1:], *size), f"1 to {MAX_SIDE}")
    elif corners not in CORNERS:
        problem = ("unknown convention of corners", corners, " or ".join(CORNERS))
    elif certainty is not None and certainty not in CERTAINTIES:
        problem = ("unknown certainty", certainty, " or ".join(CERTAINTIES))
    if problem:
        raise UsageError(problem[0], where="label head", got=problem[1], allowed=problem[2])
