"""Learning rates: figures worked out by hand, and what holds of all of them."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchkit.errors import InputFileError
from searchkit.training.optimisation import learning_rate
from searchkit.training.recipe import parse_recipe
from searchkit.training.search_recipe import Weights, parse_search_recipe


def weights(lr, **schedule):
    return Weights.model_validate({"optimiser": {"name": "sgd", "lr": lr}, "schedule": schedule})


def rates(lr, steps, **schedule):
    return [learning_rate(weights(lr, **schedule), step, steps) for step in range(steps)]


def test_half_a_cosine():
    """LGCNet's: 0.025 to 0.001. A third of the way the cosine is 1/2, half of it 0, two thirds -1/2."""
    found = rates(0.025, 7, type="cosine", last_lr=0.001)
    assert found[0] == pytest.approx(0.025, rel=1e-12)
    assert found[2] == pytest.approx(0.001 + 0.024 * 0.75, rel=1e-12)
    assert found[3] == pytest.approx(0.013, rel=1e-12)
    assert found[4] == pytest.approx(0.001 + 0.024 * 0.25, rel=1e-12)
    assert found[6] == 0.001


def test_behind_a_warm_up():
    """Three steps towards 0.4, which the fourth has; then half a cosine to 0 in four more."""
    found = rates(0.4, 8, type="cosine", warmup_steps=3)
    quarter = 0.2 * (1 + math.sqrt(0.5))
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, quarter, 0.2, 0.4 - quarter, 0.0], abs=1e-15)


@pytest.mark.parametrize(("steps", "expected"), [(1, [0.5]), (2, [0.5, 0.1]), (3, [0.5, 0.3, 0.1])])
def test_a_few_steps(steps, expected):
    assert rates(0.5, steps, type="cosine", last_lr=0.1) == pytest.approx(expected)


def test_a_warm_up_alone():
    assert rates(0.4, 2, type="cosine", warmup_steps=3) == pytest.approx([0.1, 0.2])
    # One step behind it has the rate that a fall starts with.
    assert rates(0.4, 4, type="cosine", last_lr=0.1, warmup_steps=3) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_others():
    assert rates(0.1, 4, type="poly", power=2.0) == pytest.approx([0.1, 0.05625, 0.025, 0.00625])
    assert rates(0.1, 5, type="exponential", gamma=0.5, every=2) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


@given(
    lr=st.floats(1e-6, 10),
    share=st.floats(0, 1),
    steps=st.integers(1, 300),
    warmup=st.integers(0, 50),
)
def test_it_rises_in_the_warm_up_and_then_falls_to_its_end(lr, share, steps, warmup):
    last = lr * share
    found = rates(lr, steps, type="cosine", last_lr=last, warmup_steps=warmup)
    up, down = found[:warmup], found[warmup:]
    assert all(before < after for before, after in pairwise(up))
    assert all(0 < rate < lr for rate in up)
    # To within the last digits: where both ends are the same there is nothing to fall.
    slack = 1e-12 * lr
    assert all(after <= before + slack for before, after in pairwise(down))
    if down:
        assert down[0] == pytest.approx(lr, rel=1e-12)
        assert all(last - slack <= rate <= lr + slack for rate in down)
    if len(down) > 1:
        assert down[-1] == last
        # What is before the middle lies as far from the one end as what is behind it from the other.
        assert [lr + last - rate for rate in reversed(down)] == pytest.approx(down, rel=1e-9, abs=1e-9 * lr)


STAGE = {
    "loss_at": "full",
    "batch": 2,
    "steps": 3,
    "loss": {"type": "cross_entropy"},
    "optimiser": {"name": "sgd", "lr": 0.01},
}
FALLS = "last_lr = 0.02 is greater than the lr that it starts from, 0.01"


def test_a_training_takes_it():
    stage = parse_recipe({"stages": [STAGE | {"schedule": {"type": "cosine", "last_lr": 0.01}}]}, where="r").stages[0]
    assert (stage.schedule.type, stage.schedule.last_lr, stage.schedule.warmup_steps) == ("cosine", 0.01, 0)
    with pytest.raises(InputFileError, match=FALLS) as error:
        parse_recipe({"stages": [STAGE | {"schedule": {"type": "cosine", "last_lr": 0.02}}]}, where="r")
    assert "stages[0]" in str(error.value)


def test_a_search_takes_it():
    tree = {"batch": 2, "steps": 3}
    rising = {"type": "cosine", "last_lr": 0.02}
    recipe = parse_search_recipe(
        tree | {"weights": {"optimiser": {"name": "sgd", "lr": 0.1}, "schedule": rising}}, where="r"
    )
    assert recipe.weights.schedule.last_lr == 0.02
    with pytest.raises(InputFileError, match=FALLS) as error:
        parse_search_recipe(
            tree | {"weights": {"optimiser": {"name": "sgd", "lr": 0.01}, "schedule": rising}}, where="r"
        )
    assert "weights" in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"type": "cosine", "last_lr": -0.1}, "greater than or equal to 0"),
        ({"type": "cosine", "last_lr": "0.1"}, "number"),
        ({"type": "cosine", "lowest": 0.1}, "unknown field"),
        ({"type": "cosine", "last_l": 0.1}, "last_lr"),
        ({"type": "cosine", "warmup_steps": -1}, "warmup_steps"),
        ({"type": "cosinus"}, "cosine"),
    ],
)
def test_what_is_no_cosine_is_refused(schedule, words):
    with pytest.raises(InputFileError) as error:
        parse_recipe({"stages": [STAGE | {"schedule": schedule}]}, where="r")
    assert words in str(error.value)
