"""Losses on logits N x C x H x W and labels N x H x W (int64, 255 counts nowhere)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks import resize
from .augment import IGNORE
from .distillation import divergence
from .distributed import shared_count
from .recipe import CrossEntropy, Distillation, Ohem

# Of a count that is divided by; a share of one, where several processes have one pixel among them.
_LEAST = 1e-3


def aligned(logits: Tensor, labels: Tensor, loss_at: str) -> tuple[Tensor, Tensor]:
    """Logits and labels at the resolution of the loss.

    The SSR paper first optimises "the output of 1/8 resolution", then that of the original resolution, "following"
    ERFNet (section 5.2), and no code of it was released. ERFNet's release first trains its encoder, by a 1x1 classifier
    on the 1/8 map, and only then its decoder. Here the network's own logits are taken to 1/8, and no layer is added:
    for networks that answer at 1/8, as the SSR baselines do, that is the same; for `ssr`, whose aggregation block then
    learns from the first step on, it is a reading of ours that the paper does not settle.

    Args:
        loss_at: "eighth": labels are subsampled to 1/8, each block by the pixel in its middle, and finer logits are
            resized to that; "full": logits are resized to the labels.
    """
    height, width = labels.shape[-2:]
    if loss_at == "eighth":
        labels = _subsampled(labels, max(1, height // 8), max(1, width // 8))
    return resize(logits.float(), labels.shape[-2:]), labels


def _subsampled(labels: Tensor, height: int, width: int) -> Tensor:
    rows = ((torch.arange(height, device=labels.device) + 0.5) * (labels.shape[-2] / height)).long()
    columns = ((torch.arange(width, device=labels.device) + 0.5) * (labels.shape[-1] / width)).long()
    return labels[:, rows][:, :, columns]


def pixel_loss(logits: Tensor, labels: Tensor, kind: Ohem | CrossEntropy) -> Tensor:
    """The loss that a recipe names, a scalar; 0 where no pixel is labelled."""
    if isinstance(kind, Ohem):
        return ohem(logits, labels, threshold=kind.threshold, kept=kind.kept)
    return cross_entropy(logits, labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels. Not reduced by PyTorch, whose mean is not reproducible on CUDA."""
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return losses.sum() / shared_count((labels != IGNORE).sum()).clamp(min=_LEAST)


def ohem(logits: Tensor, labels: Tensor, *, threshold: float, kept: float) -> Tensor:
    """Online hard example mining, as in FasterSeg's release.

    Pixels count whose true class has a probability of at most `threshold`, and in any case the hardest `kept` of all
    pixels, unlabelled ones included. The k-th value stands where the release sorts all of them.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    labelled = labels != IGNORE
    with torch.no_grad():
        # Unlabelled pixels are the easiest of all: they are chosen last.
        flat = losses.masked_fill(~labelled, -1.0).flatten()
        count = max(1, math.floor(kept * flat.numel()))
        kth = flat.kthvalue(flat.numel() - count + 1).values
        limit = kth.clamp(max=-math.log(threshold))
        # Written so that a NaN is chosen: the loss must show it.
        chosen = labelled & ~(losses < limit)
    return (losses * chosen).sum() / shared_count(chosen.sum()).clamp(min=_LEAST)


def total_loss(
    outputs: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    kind: Ohem | CrossEntropy,
    loss_at: str,
    auxiliary_weight: float,
    teacher: Tensor | None = None,
    how: Distillation | None = None,
) -> Tensor:
    """The main head's loss, `auxiliary_weight` times that of each auxiliary head, and the teacher's share.

    Args:
        outputs: logits, or the main logits and those of auxiliary heads.
        teacher: logits of the teacher, of any resolution.
    """
    main, *extra = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    logits, targets = aligned(main, labels, loss_at)
    loss = pixel_loss(logits, targets, kind)
    for other in extra:
        loss = loss + auxiliary_weight * pixel_loss(*aligned(other, labels, loss_at), kind)
    if teacher is not None:
        how = how or Distillation()
        loss = loss + how.weight * divergence(logits, teacher, how)
    return loss
