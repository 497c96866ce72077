"""The kernels' work in plain steps: what they are held to, and what runs where there is no native library."""

from __future__ import annotations

import numpy as np

from searchkit.normalization import normalise
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

_LARGEST = np.float32(1e37)


def label_head(
    logits_CHW: np.ndarray, size: Size, *, corners: str, certainty: str | None
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """As `deploy.native.label_head.label_head`, whose docstring says what the results are."""
    resized = resize(bounded(logits_CHW), size, corners)
    labels = resized.argmax(0).astype(np.uint8)
    if certainty is None:
        return labels
    best = resized.max(0)
    if certainty == "probability":
        level = 255 / np.exp(resized - best).sum(0)
    else:
        others = np.partition(resized, -2, axis=0)[-2] if len(resized) > 1 else np.full_like(best, -np.inf)
        level = (best - others) * 16
    return labels, (np.minimum(level, 255) + 0.5).astype(np.uint8)


def bounded(logits: np.ndarray) -> np.ndarray:
    """Float32 logits, what is no number or too large to be blended replaced."""
    values = logits.astype(np.float32)
    values[np.isnan(values)] = -_LARGEST
    return values.clip(-_LARGEST, _LARGEST)


def resize(values: np.ndarray, size: Size, corners: str) -> np.ndarray:
    """C x h x w to C x H x W, bilinearly: columns first, then rows, in the type of `values`."""
    low, high, weight = taps(values.shape[2], size.width, corners)
    weight = weight.astype(values.dtype)
    wide = values[:, :, low] + weight * (values[:, :, high] - values[:, :, low])
    low, high, weight = taps(values.shape[1], size.height, corners)
    weight = weight.astype(values.dtype)[:, None]
    return wide[:, low] + weight * (wide[:, high] - wide[:, low])


def taps(source: int, target: int, corners: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `target` positions the two of `source` that it blends, and the weight of the higher one."""
    positions = np.arange(target, dtype=np.float64)
    if corners == "align_corners":
        at = positions * (source - 1) / (target - 1) if target > 1 else np.zeros(1)
    else:
        at = np.maximum((positions + 0.5) * source / target - 0.5, 0)
    low = np.minimum(at.astype(np.int64), source - 1)
    return low, np.minimum(low + 1, source - 1), at - low


def preprocess(
    picture_HWC: np.ndarray, inside: Size, pad: tuple[int, int, int], layout: str, out: np.ndarray
) -> np.ndarray:
    """As `deploy.native.preprocessing.preprocess`: Pillow's resize, padding, normalisation, transposition."""
    height, width = out.shape[2:] if layout == "NCHW" else out.shape[1:3]
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = pad
    pixels[: inside.height, : inside.width] = resize_picture(np.ascontiguousarray(picture_HWC), inside)
    if layout == "pixels":
        out[0] = pixels
    else:
        normal = normalise(pixels)
        out[:] = normal if layout == "NCHW" else normal.transpose(0, 2, 3, 1)
    return out
