"""Eq. 5 to 7 of LGCNet: by hand, and against plain loops."""

import math

import numpy as np
import pytest
import torch

from searchkit.spaces.lgcnet.guidance import GuidedTable
from searchkit.strategies._relaxations import softmax


def table_of(kind, *, cells=3, edges=4, candidates=5, width=6, weight=0.5, seed=0):
    torch.manual_seed(seed)
    rows = [f"{cell}.{edge}" for cell in range(cells) for edge in range(edges)]
    found = GuidedTable(
        "cell", "cell", rows, [f"o{i}" for i in range(candidates)], edges=edges, kind=kind, width=width, weight=weight
    ).double()
    found.logits.data = torch.randn_like(found.logits)
    return found


def test_by_hand():
    """Two cells of two edges and two candidates, d = 1."""
    table = table_of("gcn", cells=2, edges=2, candidates=2, width=1)
    table.logits.data = torch.tensor([1.0, 2.0, 0.0, -1.0, 0.5, 0.0, 0.0, 1.0]).double()
    table.phi1.data = torch.tensor([[[1.0], [2.0]]]).double()
    table.phi2.data = torch.tensor([[[3.0, -1.0]]]).double()
    table.graph.data = torch.tensor([[[0.5]]]).double()
    table.w1.data = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    table.w2.data = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).double()
    # Phi1: edge 0 has 1 + 4 = 5, edge 1 has -2. Swapped by w2, alpha_0 is (2, 1) and (-1, 0).
    # Similarities of edge 0 of cell 1 (0.5, 0): 1 and -0.5; of edge 1 (0, 1): 1 and 0.
    first = 1 / (1 + math.exp(-1.5))
    second = 1 / (1 + math.exp(-1.0))
    messages = [(first * 5 + (1 - first) * -2) * 0.5 + 5, (second * 5 + (1 - second) * -2) * 0.5 - 2]
    expected = [1.0, 2.0, 0.0, -1.0]
    for own, message in zip(((0.5, 0.0), (0.0, 1.0)), messages, strict=True):
        expected += [own[0] + 0.5 * 3 * message, own[1] - 0.5 * message]
    torch.testing.assert_close(table.scores(), torch.tensor(expected).double())


def loops(table, kind):
    """Eq. 5 to 7, number by number."""
    cells, edges, q = len(table.rows) // table.edges, table.edges, len(table.candidates)
    alive = table.alive
    alpha = np.where(alive, table.dense(table.logits, fill=0.0).detach().numpy(), 0.0).reshape(cells, edges, q)
    alive = alive.reshape(cells, edges, q)
    phi1, phi2 = table.phi1.detach().numpy(), table.phi2.detach().numpy()
    result = alpha.copy()
    for k in range(1, cells):
        hidden = [
            [sum(alpha[k - 1, i, c] * phi1[k - 1, c, j] for c in range(q)) for j in range(phi1.shape[2])]
            for i in range(edges)
        ]
        mixed = hidden
        if kind == "gcn":
            w1, w2, graph = (t.detach().numpy()[k - 1] for t in (table.w1, table.w2, table.graph))
            mixed = []
            for i in range(edges):
                there = [e for e in range(edges) if alive[k - 1, e].any()]
                raw = {e: float((alpha[k, i] @ w1) @ (alpha[k - 1, e] @ w2)) for e in there}
                total = sum(math.exp(v) for v in raw.values())
                neighbour = sum(math.exp(raw[e]) / total * np.array(hidden[e]) for e in there)
                mixed.append(neighbour @ graph + np.array(hidden[i]))
        for i in range(edges):
            result[k, i] = alpha[k, i] + table.weight * np.array(mixed[i]) @ phi2[k - 1]
    return result[alive]


@pytest.mark.parametrize("kind", ["fc", "gcn"])
@pytest.mark.parametrize("shrunk", [False, True])
def test_against_loops(kind, shrunk):
    table = table_of(kind, weight=0.7)
    if shrunk:
        alive = np.random.default_rng(1).random(table.alive.shape) < 0.5
        alive[2] = False
        alive[[0, 1, 3], 0] = True
        table.shrink(alive)
    np.testing.assert_allclose(table.scores().detach().numpy(), loops(table, kind), rtol=1e-9, atol=1e-12)


def test_rows_of_the_adjacency_sum_to_one_over_edges_that_are_there():
    table = table_of("gcn")
    alive = table.alive
    alive[1] = False
    table.shrink(alive)
    alpha = table.dense(table.logits, fill=0.0).unflatten(0, (-1, table.edges))
    adjacency = table.adjacency(alpha)
    assert adjacency.shape == (2, 4, 4)
    torch.testing.assert_close(adjacency.sum(dim=2), torch.ones(2, 4).double())
    assert (adjacency[0, :, 1] == 0).all()
    assert (adjacency[1] > 0).all()


@pytest.mark.parametrize("kind", ["fc", "gcn"])
def test_a_search_begins_undecided_and_the_first_cell_keeps_its_own(kind):
    table = table_of(kind)
    table.logits.data.zero_()
    assert (table.scores() == 0).all()
    table.logits.data.normal_()
    torch.testing.assert_close(table.dense()[:4], table.dense(table.logits)[:4])
    assert not torch.allclose(table.dense()[4:], table.dense(table.logits)[4:])


@pytest.mark.parametrize("kind", ["fc", "gcn"])
def test_gradients_reach_all_of_it(kind):
    table = table_of(kind)
    (softmax(table)[4:] * torch.randn(8, 5).double()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in table.parameters())
    # What is decided of a cell depends on the cell before it.
    assert (table.logits.grad.view(3, -1)[0] != 0).any()


def test_without_weight_nothing_is_exchanged():
    table = table_of("gcn", weight=0.0)
    torch.testing.assert_close(table.scores(), table.logits)
