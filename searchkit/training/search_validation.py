"""How well a supernet labels pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..normalization import normalise
from ..supernet import Supernet
from .loader import Samples
from .metrics import Confusion
from .search_computing import Logits
from .train import predicted


@torch.no_grad()
def confusion_of(supernet: Supernet, samples: Samples, logits_of: Callable[[Tensor], Logits]) -> Confusion:
    """Label maps of samples, one after the other, against the truth, at the samples' size.

    Args:
        supernet: in evaluation mode while this runs, in training mode afterwards.
        logits_of: the supernet's logits of normalised images, 1 x 3 x H x W.
    """
    confusion: Confusion | None = None
    supernet.eval()
    for index in range(len(samples)):
        sample = samples[index]
        logits = logits_of(torch.from_numpy(normalise(sample.image)))
        assert isinstance(logits, Tensor), "a supernet in evaluation mode has one head"
        confusion = confusion or Confusion(logits.shape[1])
        confusion.add(sample.labels, predicted(logits, sample.labels.shape).cpu().numpy()[0])
    supernet.train()
    assert confusion is not None, "a split has samples"
    return confusion
