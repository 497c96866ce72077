from pathlib import Path

import pytest

from searchkit.errors import InputFileError, UsageError
from searchkit.sizes import Size
from searchkit.training.recipe import check_crops, load_preset, load_recipe, parse_recipe, presets

STAGE = {
    "loss_at": "full",
    "batch": 2,
    "steps": 3,
    "loss": {"type": "cross_entropy"},
    "optimiser": {"name": "adam", "lr": 1e-3},
    "schedule": {"type": "poly"},
}


def test_every_preset_is_a_recipe():
    assert presets() == ["fasterseg", "smoke", "ssr", "streets-cpu"]
    for name in presets():
        assert load_preset(name).stages


def test_ssr_is_the_papers():
    recipe = load_preset("ssr")
    assert [(s.loss_at, s.epochs, s.optimiser.lr) for s in recipe.stages] == [
        ("eighth", 300, 5e-4),
        ("full", 300, 5e-4),
    ]
    assert recipe.stages[0].augmentation.scale == (0.375, 0.875)
    assert recipe.stages[0].loss.type == "ohem"


def test_fasterseg_is_the_releases():
    (stage,) = load_preset("fasterseg").stages
    assert (stage.steps, stage.batch, stage.optimiser.lr, stage.optimiser.name) == (600_000, 12, 0.01, "sgd")
    assert (stage.schedule.gamma, stage.schedule.every) == (0.992, 1000)
    assert stage.augmentation.crop == (512, 1024)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="ssr"):
        load_preset("srs")


def test_common_gives_way_to_the_stage():
    tree = {"common": STAGE, "stages": [{}, {"steps": 9}]}
    assert [s.steps for s in parse_recipe(tree, where="r").stages] == [3, 9]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"btach": 2}, r"stages\[0\].btach: unknown field.*batch"),
        ({"batch": "2"}, r"stages\[0\].batch: wrong value"),
        ({"batch": 0}, r"stages\[0\].batch: wrong value"),
        ({"epochs": 2}, "either steps or epochs"),
        ({"steps": None}, "either steps or epochs"),
        ({"optimiser": {"name": "lion", "lr": 1e-3}}, "optimiser.name"),
        ({"optimiser": {"name": "sgd", "lr": float("nan")}}, "r: "),
        ({"loss": {"type": "dice"}}, "loss"),
        ({"augmentation": {"scale": [2.0, 1.0]}}, "smaller factor"),
    ],
)
def test_what_is_no_recipe_is_refused(change, words):
    with pytest.raises(InputFileError, match=words):
        parse_recipe({"stages": [STAGE | change]}, where="r")


def test_missing_field_is_named():
    with pytest.raises(InputFileError, match=r"stages\[0\].batch: missing"):
        parse_recipe({"stages": [{k: v for k, v in STAGE.items() if k != "batch"}]}, where="r")


def test_a_file_that_is_no_toml(tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text("stages = [")
    with pytest.raises(InputFileError, match="not a TOML file"):
        load_recipe(path)


def test_a_date_is_refused(tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text("validate_every = 2020-01-01\nstages = []\n")
    with pytest.raises(InputFileError, match="neither text"):
        load_recipe(path)


def test_epochs_round_up():
    stage = parse_recipe({"stages": [STAGE | {"steps": None, "epochs": 3, "batch": 4}]}, where="r").stages[0]
    assert stage.length(5) == 4


def test_a_crop_larger_than_its_pictures():
    recipe = load_preset("fasterseg")
    check_crops(recipe, Size(1024, 2048))
    with pytest.raises(UsageError, match="larger than its pictures"):
        check_crops(recipe, Size(128, 256))
    check_crops(load_preset("ssr"), Size(128, 256))
