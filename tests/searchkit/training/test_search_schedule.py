"""Phases of a search: how many steps, which batches and rates, when decisions; counted by hand."""

import pytest

from searchkit.errors import InputFileError, UsageError
from searchkit.training.distributed import World
from searchkit.training.search_recipe import load_search_recipe, parse_search_recipe
from searchkit.training.search_schedule import SearchSchedule, check_batches

#: Three epochs of pretraining with batch 3, then four of search with batch 2.
TWO = {"batch": 2, "epochs": 7, "warmup_epochs": 3, "pretraining": {"batch": 3}}


def parse(**fields):
    return parse_search_recipe(TWO | fields, where="test")


def schedule(pictures, **fields):
    return SearchSchedule.of(parse(**fields), pictures)


def spans(found):
    return [(phase.recipe.batch, phase.first, phase.steps, phase.taken) for phase in found.phases]


@pytest.mark.parametrize(
    ("fields", "pictures", "expected", "decisions"),
    [
        # The weights have 10 of 20 pictures: 30 in batches of 3, then 40 in batches of 2; an epoch is 5 steps.
        ({}, 20, [(3, 0, 10, 0), (2, 10, 20, 30)], (15, 20, 25, 30)),
        # 11 of 21: 33 in batches of 3, then 44; an epoch is 6 steps, with one picture of the next.
        ({}, 21, [(3, 0, 11, 0), (2, 11, 22, 33)], (17, 23, 29, 33)),
        # 4 of 7: 12 pictures are 4 steps, 16 are 8.
        ({}, 7, [(3, 0, 4, 0), (2, 4, 8, 12)], (6, 8, 10, 12)),
        # 5 of 10: 15 are 5 steps, 20 are 10.
        ({"split": "same"}, 5, [(3, 0, 5, 0), (2, 5, 10, 15)], (8, 11, 14, 15)),
        # 4 of 8 in batches of 5: 12 are three steps, the third of which has 3 pictures of the fourth pass.
        ({"pretraining": {"batch": 5}}, 8, [(5, 0, 3, 0), (2, 3, 8, 15)], (5, 7, 9, 11)),
        ({"decide_every": 4}, 20, [(3, 0, 10, 0), (2, 10, 20, 30)], (14, 18, 22, 26, 30)),
        # In steps, whatever the pictures.
        (
            {"epochs": None, "warmup_epochs": 0, "steps": 9, "warmup_steps": 4, "decide_every": 2},
            50,
            [(3, 0, 4, 0), (2, 4, 5, 12)],
            (6, 8, 9),
        ),
        # 4 steps of pretraining take 12 of the 70 pictures of seven epochs.
        ({"warmup_epochs": 0, "warmup_steps": 4}, 20, [(3, 0, 4, 0), (2, 4, 29, 12)], (9, 14, 19, 24, 29, 33)),
        # All of it is pretraining.
        ({"warmup_epochs": 7}, 20, [(3, 0, 24, 0)], (24,)),
        ({"warmup_epochs": 9}, 20, [(3, 0, 24, 0)], (24,)),
        ({"warmup_epochs": 0, "warmup_steps": 50}, 20, [(3, 0, 24, 0)], (24,)),
        # Nothing but phases of their own.
        ({"pretraining": {}}, 20, [(2, 0, 15, 0), (2, 15, 20, 30)], (20, 25, 30, 35)),
    ],
)
def test_phases(fields, pictures, expected, decisions):
    found = schedule(pictures, **fields)
    assert spans(found) == expected
    assert found.steps == sum(steps for _, _, steps, _ in expected) == parse(**fields).length(pictures)
    assert found.decisions == decisions
    assert found.changes == tuple(first for _, first, _, _ in expected[1:])


def test_without_the_table_all_is_one_phase():
    recipe = parse_search_recipe({"batch": 2, "epochs": 7, "warmup_epochs": 3}, where="test")
    found = SearchSchedule.of(recipe, 20)
    assert spans(found) == [(2, 0, 35, 0)]
    assert (found.warmup, found.changes, found.decisions) == (15, (), (20, 25, 30, 35))
    assert recipe.in_pretraining() is recipe
    # The rate falls from the first step of all to the last.
    assert found.rate(20) == pytest.approx(3e-4 * (1 - 20 / 35) ** 0.9)


def test_where_it_stops():
    found = schedule(20)
    assert [found.stop(step) for step in (0, 9, 10, 14, 15, 29)] == [10, 10, 15, 15, 20, 30]
    # The warm-up ends at the same step with and without the table.
    plain = SearchSchedule.of(parse_search_recipe({"batch": 2, "steps": 9, "warmup_steps": 3}, where="test"), 40)
    assert [plain.stop(step) for step in (0, 3)] == [3, 9]


def test_each_phase_has_its_rates():
    exponential = {"type": "exponential", "gamma": 0.5, "every": 4}
    found = schedule(
        20,
        weights={"optimiser": {"name": "sgd", "lr": 0.01}, "schedule": exponential | {"every": 5}},
        pretraining={"batch": 3, "lr": 0.02, "schedule": exponential},
    )
    early = [0.02] * 4 + [0.01] * 4 + [0.005] * 2
    late = [0.01] * 5 + [0.005] * 5 + [0.0025] * 5 + [0.00125] * 5
    assert [found.rate(step) for step in range(30)] == pytest.approx(early + late)


def test_a_schedule_that_is_left_out_is_the_searchs_from_its_beginning():
    found = schedule(
        20,
        weights={"optimiser": {"name": "sgd", "lr": 0.1}, "schedule": {"type": "cosine", "last_lr": 0.05}},
        pretraining={"lr": 0.3},
    )
    # 15 steps from 0.3 to 0.05, then 20 from 0.1 to 0.05.
    at = {step: found.rate(step) for step in (0, 7, 14, 15, 34)}
    assert at == pytest.approx({0: 0.3, 7: 0.175, 14: 0.05, 15: 0.1, 34: 0.05})


def test_what_pretraining_changes():
    recipe = parse(
        augmentation={"crop": [64, 96], "scale": [0.5, 2.0], "flip": False},
        weights={"optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.5}, "clip_norm": 3.0},
        pretraining={"crop": [32, 64], "lr": 0.2},
    )
    early = recipe.in_pretraining()
    assert early.batch == recipe.batch == 2
    assert (early.augmentation.crop, early.augmentation.scale, early.augmentation.flip) == ((32, 64), (0.5, 2.0), False)
    assert (early.weights.optimiser.lr, early.weights.optimiser.momentum, early.weights.clip_norm) == (0.2, 0.5, 3.0)
    assert early.weights.schedule == recipe.weights.schedule
    assert early.in_pretraining() == early


def test_a_recipe_without_the_table_is_known_by_what_it_was():
    assert "pretraining" not in parse_search_recipe({"batch": 2, "steps": 9}, where="test").to_tree()
    recipe = parse()
    assert recipe.to_tree()["pretraining"] == {"batch": 3, "crop": None, "lr": None, "schedule": None}
    assert parse_search_recipe(recipe.to_tree(), where="again") == recipe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"warmup_epochs": 0}, "set warmup_epochs or warmup_steps"),
        ({"pretraining": {"batch": 0}}, "pretraining.batch"),
        ({"pretraining": {"crop": [64]}}, "pretraining.crop"),
        ({"pretraining": {"crop": [8, 64]}}, "pretraining.crop"),
        ({"pretraining": {"lr": 0.0}}, "pretraining.lr"),
        ({"pretraining": {"crops": [64, 64]}}, "Did you mean crop"),
        ({"pretraining": {"epochs": 3}}, "pretraining.epochs"),
        ({"pretraining": {"schedule": {"type": "cosine", "last_lr": 0.1}}}, "greater than the lr"),
        (
            {
                "weights": {
                    "optimiser": {"name": "sgd", "lr": 0.1},
                    "schedule": {"type": "cosine", "last_lr": 0.05},
                },
                "pretraining": {"lr": 0.01},
            },
            "last_lr = 0.05 is greater than the lr that it starts from, 0.01",
        ),
    ],
)
def test_refusals(fields, words):
    with pytest.raises(InputFileError) as error:
        parse(**fields)
    assert words in str(error.value)


def test_both_batches_must_be_shared_out():
    check_batches(parse(batch=2, pretraining={"batch": 4}), World(0, 2))
    with pytest.raises(UsageError, match=r"pretraining.batch.*got 3.*multiple of 2"):
        check_batches(parse(), World(0, 2))
    with pytest.raises(UsageError, match=r"^batch: .*got 2.*multiple of 3"):
        check_batches(parse(), World(0, 3))


def test_fastersegs_two_phases():
    """Appendix F and the release: 20 epochs with batch 3, 30 with batch 2, of 1488 of Cityscapes' 2975 pictures."""
    recipe = parse_search_recipe(load_search_recipe("fasterseg"), where="fasterseg")
    found = SearchSchedule.of(recipe, 2975)
    assert spans(found) == [(3, 0, 9920, 0), (2, 9920, 22320, 29760)]
    assert [phase.recipe.augmentation.crop for phase in found.phases] == [(256, 512), (224, 448)]
    assert len(found.decisions) == 30
    assert found.decisions[0] == 9920 + 744
    rates = [found.rate(step) for step in (0, 495, 496, 9919, 9920, 10663, 10664, 32239)]
    expected = [0.02, 0.02, 0.02 * 0.978, 0.02 * 0.978**19, 0.01, 0.01, 0.01 * 0.978, 0.01 * 0.978**29]
    assert rates == pytest.approx(expected)
    optimiser = recipe.weights.optimiser
    assert (optimiser.name, optimiser.momentum, optimiser.weight_decay) == ("sgd", 0.9, 5e-4)
    architecture = recipe.architecture
    assert (architecture.lr, architecture.betas, architecture.weight_decay) == (3e-4, (0.5, 0.999), 0.0)
    # The release clips the weights' gradients alone.
    assert (recipe.weights.clip_norm, architecture.clip_norm) == (5.0, None)


def test_lgcnets_rate_falls_by_a_cosine():
    """Section IV-A."""
    recipe = parse_search_recipe(load_search_recipe("lgcnet"), where="lgcnet")
    found = SearchSchedule.of(recipe, 2975)
    assert found.steps == -(-200 * 2975 // 16)
    assert (found.rate(0), found.rate(found.steps - 1)) == (pytest.approx(0.025), 0.001)
    assert (found.rate(1), found.rate(found.steps // 2)) == (pytest.approx(0.025), pytest.approx(0.013, rel=1e-3))
    assert recipe.split == "same"
    assert (recipe.architecture.lr, recipe.architecture.weight_decay) == (1e-3, 1e-4)


def test_dcnas_learns_as_auto_deeplab():
    recipe = parse_search_recipe(load_search_recipe("dcnas"), where="dcnas")
    found = SearchSchedule.of(recipe, 2975)
    assert (found.steps, found.warmup, len(found.decisions)) == (80 * 744, 40 * 744, 40)
    assert (found.rate(0), found.rate(found.steps - 1)) == (pytest.approx(0.025), 0.001)
