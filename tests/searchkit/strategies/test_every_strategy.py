"""What every strategy that is found by its file name must keep, on every table of choices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchkit.choices import ChoiceTable, alive_of, check_choosable
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.strategies import STRATEGIES, Progress, Settings, Strategy, total_entropy

PUBLISHED = {"ssr", "entropy", "l1", "l2", "darts", "fairdarts", "pdarts", "sgas", "gumbel", "random"}
DECISIONS = 7


def levels_of(tables):
    return tuple(dict.fromkeys(table.level for table in tables.values()))


def made(name, tables, **values):
    found = STRATEGIES.load(name)
    return found(found.settings_type(**values), levels_of(tables))


def progress(decision, decisions=DECISIONS):
    return Progress(10 * (decision + 1), 10 * decisions, decision, decisions)


def anything(_alive):
    return True


def set_logits(tables, seed, scale):
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for table in tables.values():
            table.logits.copy_(torch.from_numpy(generator.uniform(-scale, scale, table.logits.numel())))


def random_mask(shape, seed, share):
    """A choice may be pointless; another keeps at least one."""
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < share
    mask[np.arange(shape[0]), generator.integers(shape[1], size=shape[0])] = True
    mask[generator.random(shape[0]) < 0.2] = False
    return mask


@st.composite
def table_sets(draw):
    tables = {}
    for index, level in enumerate(
        draw(st.lists(st.sampled_from(["depth", "channel", "path"]), min_size=1, max_size=3))
    ):
        shape = draw(st.integers(1, 5)), draw(st.integers(1, 6))
        table = ChoiceTable(f"t{index}", level, [f"r{i}" for i in range(shape[0])], [f"c{i}" for i in range(shape[1])])
        if draw(st.booleans()):
            table.shrink(random_mask(shape, draw(st.integers(0, 999)), draw(st.floats(0.1, 0.9))))
        tables[table.name] = table
    set_logits(tables, draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 0.5, 4.0, 30.0])))
    return tables


@pytest.fixture(params=STRATEGIES.names())
def name(request):
    return request.param


@pytest.fixture(params=["toy", "ssr", "dilation alone"])
def tables(request, toy_supernet):
    if request.param == "toy":
        return toy_supernet.tables
    return SSRSearchSpace(dimensions=("dilation",)).tables() if "alone" in request.param else SSRSearchSpace().tables()


def test_all_that_are_published_are_there():
    assert set(STRATEGIES.names()) >= PUBLISHED


def test_it_is_made_of_its_settings(name):
    found = STRATEGIES.load(name)
    assert issubclass(found, Strategy)
    assert issubclass(found.settings_type, Settings)
    assert all(field.description for field in found.settings_type.model_fields.values())
    assert "Source:" in __import__(found.__module__, fromlist=["_"]).__doc__ or name == "random"
    assert STRATEGIES.summary(name).endswith(".")


def test_everything_stays_on_the_device_of_the_tables(name):
    """The meta device refuses to be mixed with any other."""
    tables = SSRSearchSpace().tables()
    table = tables["operator"]
    table.shrink(random_mask(table.alive.shape, 0, 0.5))
    tables = {key: table.to("meta") for key, table in tables.items()}
    strategy = made(name, tables)
    found = [strategy.relax(t) for t in tables.values()] + [strategy.probabilities(t) for t in tables.values()]
    assert {t.device.type for t in [*found, strategy.regularize(tables)]} == {"meta"}


def test_nothing_is_preferred_at_the_start(name, tables):
    strategy = made(name, tables)
    for table in tables.values():
        assert torch.allclose(strategy.probabilities(table), torch.tensor(1 / len(table.candidates)), rtol=1e-6)
    loss = strategy.regularize(tables)
    assert loss.shape == ()
    assert loss.isfinite()


def check_weights(strategy, table):
    mask = torch.from_numpy(table.alive)
    p, relaxed = strategy.probabilities(table), strategy.relax(table)
    assert p.shape == relaxed.shape == mask.shape
    assert (p >= 0).all()
    assert (p[~mask] == 0).all()
    assert (relaxed[~mask] == 0).all()
    live = mask.any(dim=1)
    if strategy.sums_to_one:
        assert torch.allclose(p.sum(dim=1), live.float(), atol=1e-5)
    decided = mask & (mask.sum(dim=1, keepdim=True) == 1)
    assert (p[decided] == 1).all()
    assert (relaxed[decided] == 1).all()
    one_hot = ((relaxed == 0) | (relaxed == 1)).all() and (relaxed.sum(dim=1) == live).all()
    assert one_hot or torch.equal(relaxed, p)
    assert torch.equal(p, strategy.probabilities(table))


@pytest.mark.parametrize("name", STRATEGIES.names())
@settings(max_examples=40, deadline=None)
@given(tables=table_sets())
def test_weights_are_weights(name, tables):
    torch.manual_seed(0)
    strategy = made(name, tables)
    for table in tables.values():
        check_weights(strategy, table)


@pytest.mark.parametrize("name", STRATEGIES.names())
@settings(max_examples=40, deadline=None)
@given(tables=table_sets(), seed=st.integers(0, 99))
def test_gradients_are_finite_and_of_the_live_alone(name, tables, seed):
    torch.manual_seed(seed)
    strategy = made(name, tables)
    relaxed = [strategy.relax(table) for table in tables.values()]
    chances = [strategy.probabilities(table) for table in tables.values()]
    loss = sum((torch.rand_like(w) * w).sum() for w in relaxed + chances) + strategy.regularize(tables)
    assert loss.isfinite()
    loss.backward()
    for table in tables.values():
        assert table.logits.grad.shape == table.logits.shape
        assert table.logits.grad.isfinite().all()


def test_what_learns_has_gradients(name, tables):
    torch.manual_seed(0)
    set_logits(tables, 1, 1.0)
    strategy = made(name, tables)
    table = next(t for t in tables.values() if len(t.candidates) > 1)
    (strategy.relax(table) * torch.rand(table.alive.shape)).sum().backward()
    assert bool(table.logits.grad.abs().sum() > 0) == strategy.learns


@pytest.mark.parametrize("name", STRATEGIES.names())
@settings(max_examples=40, deadline=None)
@given(tables=table_sets(), seed=st.integers(0, 99))
def test_decisions_never_empty_a_choice_and_never_revive(name, tables, seed):
    torch.manual_seed(seed)
    strategy = made(name, tables)
    for decision in range(DECISIONS):
        before = alive_of(tables)
        after = strategy.decide(tables, progress(decision), anything)
        assert list(after) == list(before)
        check_choosable(before, after)
        for table in tables.values():
            table.shrink(after[table.name])
            check_weights(strategy, table)
        set_logits(tables, seed + decision, 2.0)
    if strategy.ends_discrete:
        assert all(table.undecided() == 0 for table in tables.values())


def test_a_decision_leaves_the_tables_alone(name, tables):
    torch.manual_seed(0)
    set_logits(tables, 2, 30.0)
    strategy, before = made(name, tables), {n: t.logits.detach().clone() for n, t in tables.items()}
    after = strategy.decide(tables, progress(DECISIONS - 1), anything)
    for table in tables.values():
        after[table.name][:] = False
        assert table.alive.all()
        assert torch.equal(table.logits, before[table.name])


def test_numbers_that_are_none_remove_nothing_of_their_choice_and_empty_none(name, toy_supernet):
    torch.manual_seed(0)
    tables = toy_supernet.tables
    with torch.no_grad():
        tables["kernel"].logits[0] = float("nan")
    strategy = made(name, tables)
    for decision in range(DECISIONS):
        check_choosable(alive_of(tables), strategy.decide(tables, progress(decision), anything))


def run(strategy, tables, decisions):
    """Weights and decisions of the given decision points; tables shrink on the way."""
    trace = []
    for decision in decisions:
        torch.manual_seed(decision)
        set_logits(tables, decision, 1.5)
        trace.append({n: strategy.relax(t).tolist() for n, t in tables.items()})
        after = strategy.decide(tables, progress(decision), anything)
        trace.append({n: mask.tolist() for n, mask in after.items()})
        for table in tables.values():
            table.shrink(after[table.name])
    return trace


@pytest.mark.parametrize("space", [SSRSearchSpace(depths=((1, 2), (1,)), width_steps=2)], ids=["small ssr"])
def test_state_goes_through_json(name, space):
    whole, resumed = space.tables(), space.tables()
    expected = run(made(name, whole), whole, range(DECISIONS))
    first = made(name, resumed)
    half = DECISIONS // 2 + 1
    found = run(first, resumed, range(half))
    second = made(name, resumed)
    second.load_state(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.state() == first.state()
    assert found + run(second, resumed, range(half, DECISIONS)) == expected


def test_a_state_of_another_kind_is_refused(name, tables):
    with pytest.raises(ValueError):
        made(name, tables).load_state({"colour": "red"})


def test_entropy_of_probabilities(name, tables):
    """At the start each choice has the entropy log n, whatever the strategy."""
    strategy = made(name, tables)
    found = sum(total_entropy(strategy.probabilities(t).detach().double().numpy()) for t in tables.values())
    assert found == pytest.approx(sum(len(t.rows) * np.log(len(t.candidates)) for t in tables.values()), rel=1e-6)


def test_total_entropy_by_hand():
    p = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.4]])
    assert total_entropy(p) == pytest.approx(np.log(2) + 1.5 * np.log(2))
    assert str(total_entropy(p[1:3])) == "0.0"
