"""Bilinear resize of logits and arg-max in one pass, so that full-resolution logits are never written.

At 19 classes and 1024 x 2048 those logits are 152 MiB, which a CPU spends most of its time writing and reading.
"""

from __future__ import annotations

import ctypes
from typing import Literal, overload

import numpy as np

from searchkit.errors import UsageError
from searchkit.sizes import Size

from .head_arguments import CERTAINTIES, CORNERS, DTYPES, check
from .library import Native, native

#: What needs no native library, best first.
PLAIN = ("torch", "numpy")

#: Steps of the margin: a byte holds margins up to 255 / 16.
MARGIN_STEPS = 16


class _Logits(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("classes", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("class_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        ("column_stride", ctypes.c_ssize_t),
    )


class _LabelMap(ctypes.Structure):
    _fields_ = (
        ("labels", ctypes.c_void_p),
        ("certainty", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("corners", ctypes.c_int32),
        ("certainty", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_int32),
    )


@overload
def label_head(
    logits_CHW: np.ndarray,
    size: Size,
    *,
    corners: str = ...,
    certainty: None = ...,
    threads: int = ...,
    kernel: str | None = ...,
) -> np.ndarray: ...


@overload
def label_head(
    logits_CHW: np.ndarray,
    size: Size,
    *,
    corners: str = ...,
    certainty: Literal["probability", "margin"],
    threads: int = ...,
    kernel: str | None = ...,
) -> tuple[np.ndarray, np.ndarray]: ...


def label_head(
    logits_CHW: np.ndarray,
    size: Size,
    *,
    corners: str = "half_pixel",
    certainty: str | None = None,
    threads: int = 1,
    kernel: str | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Labels H x W, uint8, of the logits resized to `size`; and how certain they are, if asked for.

    The lowest index wins a tie. A NaN counts as the lowest logit; logits beyond +-1e37, infinities included, count as
    +-1e37. Interpolation is in float32.

    Args:
        logits_CHW: C x h x w, float32, float16 or bfloat16 (of ml_dtypes), with any strides: for channels-last logits
            give `logits_HWC.transpose(2, 0, 1)`, which copies nothing.
        size: of the label map.
        corners: `half_pixel` (PyTorch's align_corners=False) or `align_corners`.
        certainty: `probability`: round(255 x softmax of the winner); `margin`: distance to the second-best logit in
            steps of 1/16, at most 255.
        threads: of the native kernel. Beside a runtime whose threads spin, one is fastest.
        kernel: one of `kernels()`; the best if None.

    Raises:
        UsageError: an argument is out of its range.
    """
    check(logits_CHW.shape, logits_CHW.dtype.name, size, corners, certainty)
    if threads < 1:
        raise UsageError("no thread", where="label head", got=threads, allowed="at least 1")
    found = native()
    allowed = kernels()
    if kernel is not None and kernel not in allowed:
        raise UsageError("no such kernel here", where="kernel", got=kernel, allowed=", ".join(allowed))
    if isinstance(found, Native) and kernel not in PLAIN:
        return _native(found, logits_CHW, size, corners, certainty, threads, kernel)
    if kernel == "numpy":
        from .reference import label_head as plain
    else:
        from .fallback import label_head as plain
    return plain(logits_CHW, size, corners=corners, certainty=certainty)


def kernels() -> tuple[str, ...]:
    """What runs here, best first; `PLAIN` always does."""
    found = native()
    return (*(found.kernels if isinstance(found, Native) else ()), *PLAIN)


def _native(
    library: Native,
    logits: np.ndarray,
    size: Size,
    corners: str,
    certainty: str | None,
    threads: int,
    kernel: str | None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    if not logits.flags.aligned or any(stride % logits.itemsize for stride in logits.strides):
        logits = logits.copy(order="C")
    labels = np.empty(size, np.uint8)
    levels = np.empty(size, np.uint8) if certainty else None
    strides = [stride // logits.itemsize for stride in logits.strides]
    given = _Logits(logits.ctypes.data, DTYPES.index(logits.dtype.name), *logits.shape, *strides)
    wanted = _LabelMap(labels.ctypes.data, None if levels is None else levels.ctypes.data, *size)
    options = _Options(
        CORNERS.index(corners),
        1 + CERTAINTIES.index(certainty) if certainty else 0,
        min(threads, 1024),
        library.names.index(kernel) if kernel else -1,
    )
    status = library.handle.sk_label_head(ctypes.byref(given), ctypes.byref(wanted), ctypes.byref(options))
    if status:
        text = library.handle.sk_status_text(status).decode()
        raise UsageError(f"the label head refuses: {text}", where="label head")
    return labels if levels is None else (labels, levels)
