import pytest

from searchkit.errors import InputFileError, UsageError
from searchkit.spaces import SPACES
from searchkit.training.search_recipe import (
    changed,
    load_search_recipe,
    parse_search_recipe,
    presets,
    with_strategy,
)

SHORT = {"batch": 4, "steps": 10}


def parse(**fields):
    return parse_search_recipe(SHORT | fields, where="test")


@pytest.mark.parametrize(("space", "name"), [(space, name) for space in SPACES.names() for name in presets(space)])
def test_presets_are_whole(space, name):
    recipe = parse_search_recipe(load_search_recipe(space, preset=name), where=name)
    assert recipe.resolution is not None
    assert parse_search_recipe(recipe.to_tree(), where="again") == recipe


@pytest.mark.parametrize("space", SPACES.names())
def test_every_space_ships_the_same_three(space):
    assert presets(space) == ["demo", "paper", "smoke"]


def test_the_papers_recipe():
    """Section 5.2, "Details for Searching", and for what the text leaves open the released code."""
    recipe = parse_search_recipe(load_search_recipe("ssr"), where="ssr")
    assert (recipe.epochs, recipe.batch, recipe.resolution) == (200, 6, (512, 1024))
    weights, architecture = recipe.weights, recipe.architecture
    assert (weights.optimiser.name, weights.optimiser.lr, weights.optimiser.weight_decay) == ("adam", 3e-4, 1e-4)
    assert (weights.schedule.type, weights.schedule.power) == ("poly", 0.9)
    assert (architecture.lr, architecture.weight_decay, architecture.clip_norm) == (2e-3, 1e-3, 5.0)
    assert recipe.strategy.name == "ssr"
    # One half of 2975 pictures, and all of them.
    assert recipe.weight_pictures(2975) == 1488
    assert recipe.length(2975) == 200 * 1488 // 6
    whole = recipe.model_copy(update={"split": "same"})
    assert whole.length(2975) == -(-200 * 2975 // 6)
    assert len(recipe.decision_steps(2975)) == 200


@pytest.mark.parametrize(
    ("fields", "pictures", "expected"),
    [
        ({"decide_every": 4}, 8, (4, 8, 10)),
        ({"decide_every": 5}, 8, (5, 10)),
        ({"decide_every": 4, "warmup_steps": 4}, 8, (8, 10)),
        ({"decide_every": 4, "warmup_steps": 3}, 8, (4, 8, 10)),
        ({"decide_every": 50}, 8, (10,)),
        ({"warmup_steps": 50}, 8, (10,)),
        # An epoch of one half of 24 pictures is 3 steps.
        ({}, 24, (3, 6, 9, 10)),
        ({"split": "same"}, 24, (6, 10)),
        ({"warmup_epochs": 2}, 24, (9, 10)),
    ],
)
def test_decision_points(fields, pictures, expected):
    assert parse(**fields).decision_steps(pictures) == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"step": 3}, "steps"),
        ({"epochs": 3}, "either steps or epochs"),
        ({"warmup_steps": 1, "warmup_epochs": 1}, "either warmup_steps or warmup_epochs"),
        ({"split": "third"}, "half"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"batch": 2.0}, "integer"),
        ({"architecture": {"lr": 0.0}}, "architecture.lr"),
        ({"architecture": {"learning_rate": 0.1}}, "architecture.learning_rate"),
        ({"budgets": {"latency": "5ms"}}, "table"),
        ({"strategy": {"name": ""}}, "strategy.name"),
        ({"strategy": {"settings": []}}, "strategy.settings"),
    ],
)
def test_refusals_name_the_field(fields, words):
    with pytest.raises(InputFileError) as error:
        parse(**fields)
    assert words in str(error.value)


def test_settings_from_the_command_line():
    tree = changed(
        SHORT,
        [
            "steps=20",
            "space.depths=[[1, 2], [3]]",
            "strategy.threshold=0.2",
            "strategy.name=gumbel",
            "budgets.macs=7.8G",
            "split=same",
            "checkpointing=true",
        ],
    )
    recipe = parse_search_recipe(tree, where="test")
    assert recipe.steps == 20
    assert recipe.space == {"depths": [[1, 2], [3]]}
    assert (recipe.strategy.name, recipe.strategy.settings) == ("gumbel", {"threshold": 0.2})
    assert (recipe.budgets.macs, recipe.split, recipe.checkpointing) == ("7.8G", "same", True)
    assert SHORT == {"batch": 4, "steps": 10}


def test_a_whole_strategy_from_the_command_line():
    recipe = parse_search_recipe(changed(SHORT, ["strategy={name='ssr', settings={threshold=0.2}}"]), where="test")
    assert (recipe.strategy.name, recipe.strategy.settings) == ("ssr", {"threshold": 0.2})


@pytest.mark.parametrize("setting", ["steps", "=3", "a..b=3", "batch.size=3"])
def test_what_is_no_setting(setting):
    with pytest.raises(UsageError, match="--set"):
        changed(SHORT, [setting])


def test_another_strategy_takes_its_own_settings():
    tree = SHORT | {"strategy": {"name": "ssr", "settings": {"threshold": 0.3}}}
    assert with_strategy(tree, "ssr")["strategy"]["settings"] == {"threshold": 0.3}
    assert with_strategy(tree, "darts")["strategy"] == {"name": "darts"}
    assert with_strategy(SHORT, "ssr")["strategy"] == {}


def test_an_unknown_preset():
    with pytest.raises(UsageError, match="smoke"):
        load_search_recipe("ssr", preset="smok")
