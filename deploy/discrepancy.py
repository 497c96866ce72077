"""How far answers are apart: the figures of a verification."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .reference import Reference


def largest(errors: Sequence[np.ndarray]) -> float:
    """The largest magnitude; NaN where one is."""
    # np.max, unlike max, keeps a NaN.
    return float(np.max([np.abs(error).max() for error in errors])) if errors else 0.0


def share(hits: Sequence[np.ndarray], of: Sequence[np.ndarray]) -> float:
    """Of the pixels that are true in `of`, how many are in `hits`; 0 where there are none."""
    total = sum(int(mask.sum()) for mask in of)
    return sum(int((hit & mask).sum()) for hit, mask in zip(hits, of, strict=True)) / total if total else 0.0


def signal_to_noise_db(errors: Sequence[np.ndarray], references: Sequence[Reference]) -> float | None:
    """Of the logits less their mean over the classes, in decibels; None where there is no error."""
    # What all classes have in common decides nothing.
    noise = sum(float(np.square(error - error.mean(axis=1, keepdims=True)).sum()) for error in errors)
    signal = sum(float(np.square(wanted.centred).sum()) for wanted in references)
    found = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
    return found if found is not None and math.isfinite(found) else None
