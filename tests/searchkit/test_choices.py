"""Tables of choices: what is alive, how rows and parameters correspond, how they shrink."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchkit.choices import Choice, ChoiceTable, alive_of, check_choosable, one_hot
from searchkit.errors import SearchFailedError

ROWS, CANDIDATES = ("4.0", "4.1", "8.0"), ("d1", "d2", "d4", "d8")


@pytest.fixture
def table():
    """Logits 0 to 11, row by row."""
    made = ChoiceTable("operator", "dilation", ROWS, CANDIDATES)
    with torch.no_grad():
        made.logits.copy_(torch.arange(12.0))
    return made


def mask(*rows):
    return np.array([[character == "1" for character in row] for row in rows])


FEWER = mask("0110", "1000", "0000")


def test_everything_lives_and_nothing_is_preferred_at_the_start():
    table = ChoiceTable("operator", "dilation", ROWS, CANDIDATES)
    assert table.alive.all()
    assert table.alive.shape == (3, 4)
    assert table.logits.tolist() == [0] * 12
    assert table.logits.requires_grad
    assert table.undecided() == 3


def test_shrinking_shortens_the_parameter(table):
    before = table.logits
    kept = table.shrink(FEWER)
    assert kept.tolist() == [1, 2, 4]
    assert isinstance(table.logits, torch.nn.Parameter)
    assert table.logits is not before
    assert table.logits.tolist() == before[kept].tolist() == [1, 2, 4]
    assert table.logits.untyped_storage().nbytes() == 3 * 4
    assert table.undecided() == 1
    assert table.shrink(mask("0010", "1000", "0000")).tolist() == [1, 2]
    assert table.logits.tolist() == [2, 4]
    assert table.undecided() == 0


def test_dense_and_live_are_each_other_s_inverse(table):
    assert table.dense().tolist() == torch.arange(12.0).view(3, 4).tolist()
    table.shrink(FEWER)
    inf = float("inf")
    assert table.dense().tolist() == [[-inf, 1, 2, -inf], [4, -inf, -inf, -inf], [-inf] * 4]
    assert table.dense(torch.tensor([7.0, 8.0, 9.0]), fill=0.0).tolist() == [[0, 7, 8, 0], [9, 0, 0, 0], [0] * 4]
    assert table.live(table.dense()).tolist() == [1, 2, 4]


def test_gradients_reach_the_live_through_dense(table):
    table.shrink(FEWER)
    (table.dense(fill=0.0) * torch.arange(12.0).view(3, 4)).sum().backward()
    assert table.logits.grad.tolist() == [1, 2, 4]


def test_the_mask_is_that_of_the_live(table):
    table.shrink(FEWER)
    assert np.array_equal(table.alive_mask.numpy(), FEWER)
    assert table.alive_mask.dtype == torch.bool


def test_alive_is_a_copy(table):
    table.alive[:] = False
    assert table.alive.all()
    given_mask = FEWER.copy()
    table.shrink(given_mask)
    given_mask[:] = False
    assert np.array_equal(table.alive, FEWER)


def test_nothing_comes_back(table):
    table.shrink(FEWER)
    logits = table.logits
    for wrong in (np.ones((3, 4), dtype=bool), mask("0111", "1000", "0000"), np.zeros((3, 3), dtype=bool)):
        with pytest.raises(ValueError, match="operator: a candidate that is gone cannot come back"):
            table.shrink(wrong)
    assert table.logits is logits
    assert np.array_equal(table.alive, FEWER)


def test_a_table_may_lose_everything(table):
    assert table.shrink(np.zeros((3, 4), dtype=bool)).tolist() == []
    assert table.logits.numel() == 0
    assert table.dense(fill=0.0).tolist() == [[0] * 4] * 3
    assert table.undecided() == 0
    assert list(table.choices()) == []


def test_what_is_trained_stays_trained_and_what_is_not_stays_so(table):
    table.logits.requires_grad_(False)
    table.shrink(FEWER)
    assert not table.logits.requires_grad


def test_choices_as_a_person_sees_them(table):
    table.shrink(FEWER)
    assert list(table.choices()) == [
        Choice("4.0", "operator", "dilation", ("d2", "d4")),
        Choice("4.1", "operator", "dilation", ("d1",)),
    ]


def test_the_state_dict_holds_the_logits_alone(table):
    table.shrink(FEWER)
    assert list(table.state_dict()) == ["logits"]
    restored = ChoiceTable("operator", "dilation", ROWS, CANDIDATES)
    restored.shrink(FEWER)
    restored.load_state_dict(table.state_dict())
    assert torch.equal(restored.dense(), table.dense())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3))
def test_kept_indices_follow_the_logits(rows, candidates, seeds):
    """However often it shrinks: the kept indices cut anything that runs along the logits."""
    names = [f"r{i}" for i in range(rows)], [f"c{i}" for i in range(candidates)]
    table = ChoiceTable("t", "level", *names)
    with torch.no_grad():
        table.logits.copy_(torch.arange(float(rows * candidates)))
    alongside = table.logits.detach().clone()
    for seed in seeds:
        left = table.alive & (np.random.default_rng(seed).random((rows, candidates)) < 0.7)
        alongside = alongside[table.shrink(left)]
        assert torch.equal(alongside, table.logits)
        # Logits were numbered by their place.
        assert table.logits.tolist() == np.flatnonzero(left).tolist()
        assert np.array_equal(torch.isfinite(table.dense()).numpy(), left)


def test_a_choice_that_is_emptied_is_named():
    before = {"depth": mask("11"), "width": mask("11", "11", "00")}
    check_choosable(before, {"depth": mask("01"), "width": mask("10", "01", "00")})
    with pytest.raises(SearchFailedError, match=r"width, row 1: the last candidate of a choice would be removed"):
        check_choosable(before, {"depth": mask("01"), "width": mask("10", "00", "00")})


def test_one_hot_takes_the_greatest_of_the_live_and_the_first_of_equals():
    alive = {"a": mask("111", "011", "000", "101"), "b": mask("10")}
    weights = {"a": np.array([[1, 3, 2], [9, 1, 1], [1, 2, 3], [-5, 0, -9.0]]), "b": np.array([[0.0, 1.0]])}
    found = one_hot(weights, alive)
    assert np.array_equal(found["a"], mask("010", "010", "000", "100"))
    assert np.array_equal(found["b"], mask("10"))
    assert alive["a"][0].all()


def test_alive_of_all_tables(table):
    found = alive_of({"x": table})
    found["x"][:] = False
    assert table.alive.all()
