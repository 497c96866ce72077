"""What a cell's architecture parameters learn from those of the cell before it: the GCN-guided module.

Source: Cheng et al., Eq. 5 to 7. With a cell's parameters alpha_k as p edges x q candidates,

    alpha'_k = alpha_k + gamma Phi2(A Phi1(alpha_{k-1}) W + Phi1(alpha_{k-1}))
    A = softmax over the edges of cell k-1 of (alpha_k w1) (alpha_{k-1} w2)^T

Phi1 maps q to d values, Phi2 d to q, W is d x d, w1 and w2 are q x q; each pair of neighbouring cells has its own. The
first cell has no other before it and keeps its parameters.

What the paper leaves open and is chosen here: Phi1 and Phi2 are one matrix each, without a bias, so that a search that
begins with alpha = 0 begins with alpha' = 0 and no candidate ahead; `fc` (Table VI, c) is Phi2(Phi1(alpha_{k-1})), the
same without the graph. A candidate that is gone counts as 0 in alpha, the value that says nothing; an edge that is gone
is no node of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...choices import ChoiceTable

# Far below any similarity, and far within float32.
_GONE = -1e30


class GuidedTable(ChoiceTable):
    """A table whose scores are alpha': rows are the edges of one cell after the other.

    Args:
        edges: rows of a cell (p).
        kind: "fc" or "gcn".
        width: d.
        weight: gamma.
    """

    def __init__(
        self,
        name: str,
        level: str,
        rows: Sequence[str],
        candidates: Sequence[str],
        *,
        edges: int,
        kind: Literal["fc", "gcn"],
        width: int,
        weight: float,
    ) -> None:
        super().__init__(name, level, rows, candidates)
        self.edges, self.weight = edges, weight
        pairs, q = len(self.rows) // edges - 1, len(self.candidates)
        self.phi1, self.phi2 = _drawn(pairs, q, width), _drawn(pairs, width, q)
        self.graph = _drawn(pairs, width, width) if kind == "gcn" else None
        self.w1, self.w2 = (_drawn(pairs, q, q) if kind == "gcn" else None for _ in range(2))

    def scores(self) -> Tensor:
        """alpha' of the live candidates."""
        alpha = self.dense(self.logits, fill=0.0).unflatten(0, (-1, self.edges))
        before = alpha[:-1]
        hidden = before @ self.phi1
        if self.graph is not None:
            hidden = self.adjacency(alpha) @ hidden @ self.graph + hidden
        guided = alpha[1:] + self.weight * (hidden @ self.phi2)
        return self.live(torch.cat([alpha[:1], guided]))

    def adjacency(self, alpha: Tensor) -> Tensor:
        """A of Eq. 6: pairs of cells x edges of the later x edges of the earlier; each row sums to 1.

        Args:
            alpha: cells x edges x candidates.
        """
        assert self.w1 is not None
        assert self.w2 is not None
        similar = (alpha[1:] @ self.w1) @ (alpha[:-1] @ self.w2).transpose(1, 2)
        there = self.alive_mask.any(dim=1).view(-1, 1, self.edges)[:-1]
        return similar.masked_fill(~there, _GONE).softmax(dim=2)


def _drawn(pairs: int, rows: int, columns: int) -> nn.Parameter:
    """A matrix a pair of cells, such that a vector of unit variance keeps it."""
    return nn.Parameter(torch.randn(pairs, rows, columns) / rows**0.5)
