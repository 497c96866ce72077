"""Augmentation whose randomness is addressed: what happens to a sample depends on (seed, epoch, index) alone.

So neither the number of workers, nor prefetching, nor the step at which a run was resumed can change a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data import Sample
from ..normalization import normalise
from ..sizes import Size
from .recipe import Augmentation

IGNORE = 255
# Streams of one seed: what is drawn for one purpose never shifts what is drawn for another.
AUGMENT, ORDER, STEP = 1, 2, 3

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def generator(seed: int, stream: int, major: int, minor: int = 0) -> np.random.Generator:
    """Random numbers at an address (Philox, a counter-based generator), independent of any drawn before."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, minor, major]))


@dataclass(frozen=True)
class Address:
    """Which sample, in which pass through the data, of which run."""

    seed: int
    epoch: int
    index: int


def augment(
    sample: Sample, how: Augmentation, crop: Size, address: Address, *, factor: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A random view of a sample.

    Args:
        sample: H x W x 3 and H x W, uint8.
        crop: size of the result; where the scaled picture is smaller, the rest is mean colour with labels 255.
        factor: multiplies the random scale.

    Returns:
        Image, float32 3 x crop, normalised; labels, uint8, crop.
    """
    random = generator(address.seed, AUGMENT, address.epoch, address.index)
    # Every number is drawn whether it is used or not, so that one setting does not change what another draws.
    scale, top, left, flip, *factors = random.random(7)
    low, high = how.scale
    window = _Window.place(sample.labels.shape, factor * low * (high / low) ** scale, crop, top, left)
    mirrored = how.flip and flip < 0.5
    image = _cut(sample.image, window, Image.Resampling.BILINEAR)
    labels = _cut(sample.labels, window, Image.Resampling.NEAREST)
    if how.jitter:
        image = _jitter(image, [1 + how.jitter * (2 * f - 1) for f in factors])
    normal = normalise(image)[0]
    if mirrored:
        normal, labels = normal[:, :, ::-1], labels[:, ::-1]
    if normal.shape[1:] == tuple(crop) and not mirrored:
        return normal, labels
    return _padded(normal, labels, window, crop)


@dataclass(frozen=True)
class _Window:
    """What part of the sample is cut out (`box`: left, top, right, bottom), to what size, and where it goes."""

    box: tuple[float, float, float, float]
    size: Size
    offset: tuple[int, int]

    @classmethod
    def place(cls, stored: tuple[int, ...], scale: float, crop: Size, top: float, left: float) -> _Window:
        spans, offsets = [], []
        for side, wanted, where in zip(stored, crop, (top, left), strict=True):
            scaled = max(1, round(side * scale))
            span = min(wanted, scaled)
            room = abs(scaled - wanted)
            start = int(where * (room + 1))
            ratio = side / scaled
            first = start if scaled > wanted else 0
            spans.append((first * ratio, min((first + span) * ratio, float(side)), span))
            offsets.append(0 if scaled > wanted else start)
        (y0, y1, height), (x0, x1, width) = spans
        return cls((x0, y0, x1, y1), Size(height, width), (offsets[0], offsets[1]))


def _cut(array: np.ndarray, window: _Window, resampling: Image.Resampling) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(picture.resize((window.size.width, window.size.height), resampling, box=window.box))


def _jitter(image: np.ndarray, factors: list[float]) -> np.ndarray:
    """Brightness, then contrast, then saturation, each by a factor; uint8 to uint8."""
    brightness, contrast, saturation = (np.float32(f) for f in factors)
    x = image.astype(np.float32) * brightness
    x = (x - x.mean()) * contrast + x.mean()
    grey = (x @ _LUMA)[..., None]
    x = (x - grey) * saturation + grey
    return np.rint(x).clip(0, 255).astype(np.uint8)


def _padded(normal: np.ndarray, labels: np.ndarray, window: _Window, crop: Size) -> tuple[np.ndarray, np.ndarray]:
    image = np.zeros((3, *crop), np.float32)
    out = np.full(tuple(crop), IGNORE, np.uint8)
    top, left = window.offset
    bottom, right = top + window.size.height, left + window.size.width
    image[:, top:bottom, left:right] = normal
    out[top:bottom, left:right] = labels
    return image, out
