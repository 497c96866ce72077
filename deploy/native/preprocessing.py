"""From a camera's bytes to a network's input in one pass: resize, letterbox, normalisation and layout.

The result is, bit for bit, that of the steps one by one: `searchkit.pictures.resize_picture`, padding at the bottom and
at the right, `searchkit.normalization.normalise`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from searchkit.errors import UsageError
from searchkit.normalization import normalise
from searchkit.sizes import Size

from .library import Native, native

LAYOUTS = ("NCHW", "NHWC", "pixels")
MAX_SIDE_PX = 32768

_BLACK = (0, 0, 0)


class _Picture(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("row_stride", ctypes.c_ssize_t),
        ("column_stride", ctypes.c_ssize_t),
        ("channel_stride", ctypes.c_ssize_t),
    )


class _NetworkInput(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("layout", ctypes.c_int32),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("inside_height", ctypes.c_int64),
        ("inside_width", ctypes.c_int64),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("levels", ctypes.c_void_p),
        ("pad", ctypes.c_uint8 * 3),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_int32),
    )


def preprocess(
    picture_HWC: np.ndarray,
    size: Size,
    *,
    inside: Size | None = None,
    pad: tuple[int, int, int] = _BLACK,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    threads: int = 1,
    kernel: str | None = None,
) -> np.ndarray:
    """A picture as a network takes it.

    Args:
        picture_HWC: uint8 H x W x 3 of any size, with any strides: `bgr[..., ::-1]` copies nothing.
        size: of the result.
        inside: what the picture is resized to, bilinear with antialiasing; it lies at the top left. `size` if None.
        pad: what is beside it, in the picture's order of channels.
        layout: `NCHW`: float32 1 x 3 x H x W, normalised; `NHWC`: float32 1 x H x W x 3, normalised; `pixels`: uint8
            1 x H x W x 3 as they are.
        out: written to, and returned; a new array if None.
        threads: of the native kernel.
        kernel: one of `kernels()`; the best if None.

    Raises:
        UsageError: an argument is out of its range.
    """
    inside = inside or size
    _check(picture_HWC, size, inside, layout, threads)
    _check_pad(pad)
    out = _target(out, size, layout)
    found = native()
    allowed = kernels()
    if kernel is not None and kernel not in allowed:
        raise UsageError("no such kernel here", where="kernel", got=kernel, allowed=", ".join(allowed))
    if isinstance(found, Native) and kernel != "pillow":
        isa = found.names.index(kernel) if kernel else -1
        _native(found, picture_HWC, inside, out, layout, _Options(levels().ctypes.data, pad, min(threads, 1024), isa))
        return out
    from .reference import preprocess as plain

    return plain(picture_HWC, inside, pad, layout, out)


def kernels() -> tuple[str, ...]:
    """What runs here, best first; `pillow`, the steps one by one, always does."""
    found = native()
    return (*(found.kernels if isinstance(found, Native) else ()), "pillow")


@cache
def levels() -> np.ndarray:
    """What `normalise` makes of each byte: float32 3 x 256."""
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return np.ascontiguousarray(normalise(ramp)[0, :, 0])


def _check(picture: np.ndarray, size: Size, inside: Size, layout: str, threads: int) -> None:
    problem: tuple[str, Any, str] | None = None
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        problem = ("not a picture", f"{picture.dtype} {picture.shape}", "uint8 H x W x 3")
    elif min(*size, *inside) < 1 or max(*size, *picture.shape) > MAX_SIDE_PX:
        problem = ("a side is out of range", (*picture.shape[:2], *size, *inside), f"1 to {MAX_SIDE_PX}")
    elif inside.height > size.height or inside.width > size.width:
        problem = ("the picture does not fit", tuple(inside), f"at most {size}")
    elif layout not in LAYOUTS:
        problem = ("unknown layout", layout, ", ".join(LAYOUTS))
    elif threads < 1:
        problem = ("no thread", threads, "at least 1")
    if problem:
        raise UsageError(problem[0], where="pre-processing", got=problem[1], allowed=problem[2])


def _check_pad(pad: tuple[int, int, int]) -> None:
    if len(pad) != 3 or any(not 0 <= value <= 255 for value in pad):
        raise UsageError("not a colour", where="pre-processing", got=pad, allowed="three bytes")


def _target(out: np.ndarray | None, size: Size, layout: str) -> np.ndarray:
    shape = (1, 3, *size) if layout == "NCHW" else (1, *size, 3)
    dtype = np.dtype(np.uint8 if layout == "pixels" else np.float32)
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.carray:
        got = f"{out.dtype} {out.shape}"
        raise UsageError("out does not fit", where="pre-processing", got=got, allowed=f"contiguous {dtype} {shape}")
    return out


def _native(
    library: Native, picture: np.ndarray, inside: Size, out: np.ndarray, layout: str, options: _Options
) -> None:
    height, width = out.shape[2:] if layout == "NCHW" else out.shape[1:3]
    given = _Picture(picture.ctypes.data, *picture.shape[:2], *picture.strides)
    wanted = _NetworkInput(out.ctypes.data, LAYOUTS.index(layout), height, width, *inside)
    status = library.handle.sk_preprocess(ctypes.byref(given), ctypes.byref(wanted), ctypes.byref(options))
    if status:
        text = library.handle.sk_status_text(status).decode()
        raise UsageError(f"the pre-processing refuses: {text}", where="pre-processing")
