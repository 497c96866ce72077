"""PyTorch in float64: what is left of an error once float32's own rounding is known.

Two float32 programs that sum in different orders differ by more, the larger their numbers are. Trained logits may be
ten times those of seeded weights, and PyTorch itself is then further from the true value than a limit of 1e-4.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from .deployable import Deployable
from .reference import capture_logits

#: How many times PyTorch's own error in float32 another float32 program may have: it, too, rounds in some order.
FACTOR = 2.0


@dataclass(frozen=True)
class Exact:
    """PyTorch's answer in float64 to one picture: the output as the contract has it, and the logits behind it."""

    output: np.ndarray
    logits: np.ndarray


def exact(model: Deployable, picture: np.ndarray) -> Exact:
    """Run the PyTorch network in float64 on a uint8 RGB picture H x W x 3 of the model's size."""
    batch = torch.from_numpy(model.contract.encode(picture))
    module = copy.deepcopy(model.module).double()
    output, logits = capture_logits(module, batch.double() if batch.is_floating_point() else batch)
    return Exact(output.numpy(), logits.numpy())
