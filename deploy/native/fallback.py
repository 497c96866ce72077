"""The label head by PyTorch: what runs where there is no native library. Several times as fast as plain numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from searchkit.sizes import Size

from .reference import bounded, taps

# Rows of labels at a time: of 19 classes and 2048 columns these are 10 MiB, where all rows are 152.
_ROWS = 64


@torch.no_grad()
def label_head(
    logits_CHW: np.ndarray, size: Size, *, corners: str, certainty: str | None
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """As `deploy.native.label_head.label_head`, whose docstring says what the results are."""
    logits = torch.from_numpy(bounded(logits_CHW))
    wide = _blend(logits, 2, *taps(logits.shape[2], size.width, corners))
    low, high, weight = taps(logits.shape[1], size.height, corners)
    labels = np.empty(size, np.uint8)
    levels = np.empty(size, np.uint8)
    for first in range(0, size.height, _ROWS):
        part = slice(first, first + _ROWS)
        resized = _blend(wide, 1, low[part], high[part], weight[part])
        best, winner = resized.max(0)
        labels[part] = winner.numpy()
        if certainty is not None:
            levels[part] = _levels(resized, best, certainty)
    return labels if certainty is None else (labels, levels)


def _blend(values: Tensor, dimension: int, low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> Tensor:
    shape = [1, 1, 1]
    shape[dimension] = len(weight)
    share = torch.from_numpy(weight.astype(np.float32)).view(shape)
    first = values.index_select(dimension, torch.from_numpy(low))
    return first.lerp_(values.index_select(dimension, torch.from_numpy(high)), share)


def _levels(resized: Tensor, best: Tensor, certainty: str) -> np.ndarray:
    if certainty == "probability":
        level = 255 / (resized - best).exp().sum(0)
    elif len(resized) > 1:
        level = (best - resized.topk(2, dim=0).values[1]) * 16
    else:
        level = torch.full_like(best, 255)
    result: np.ndarray = (level.clamp(max=255) + 0.5).to(torch.uint8).numpy()
    return result
