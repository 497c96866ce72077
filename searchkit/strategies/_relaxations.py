"""Architecture parameters as probabilities, for whole tables of choices at once.

All functions return rows x candidates, are differentiable in the logits, and keep their gradients finite: a candidate
that is gone stands for a very small logit rather than for minus infinity, so that nothing has to be computed from
infinities, and is masked away afterwards.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..choices import ChoiceTable

#: Far below any logit, and far within float32.
_GONE = -1e30


def masked_softmax(table: ChoiceTable, values: Tensor) -> Tensor:
    """Softmax of values of the live candidates, in the order of the logits; 0 where one is gone."""
    return table.dense(values, fill=_GONE).softmax(dim=1) * table.alive_mask


def softmax(table: ChoiceTable) -> Tensor:
    """Softmax of the logits over the live candidates of each choice; 0 where one is gone."""
    return masked_softmax(table, table.scores())


def normalized_sigmoid(table: ChoiceTable) -> Tensor:
    """Sigmoids divided by their sum over the live candidates (SSR paper, section 3.2); 0 where a candidate is gone.

    Computed as softmax of log-sigmoids, which is the same and does not divide 0 by 0 where all sigmoids are tiny.
    """
    return masked_softmax(table, F.logsigmoid(table.scores()))


def log_normalized_sigmoid(table: ChoiceTable) -> Tensor:
    """The logarithm of `normalized_sigmoid`, exact down to the smallest probabilities; 0 where a candidate is gone."""
    logs = table.dense(F.logsigmoid(table.scores()), fill=_GONE).log_softmax(dim=1)
    return torch.where(table.alive_mask, logs, 0.0)


def sigmoid(table: ChoiceTable) -> Tensor:
    """Independent sigmoids; 0 where a candidate is gone."""
    return table.dense(table.scores().sigmoid(), fill=0.0)


def as_array(probabilities: Tensor) -> np.ndarray:
    """Probabilities for decisions, in float64."""
    found: np.ndarray = probabilities.detach().cpu().double().numpy()
    return found
