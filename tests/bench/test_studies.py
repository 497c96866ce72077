"""Studies: that each runs, resumes to the same rows, and tells no more than its rows; coefficients by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from bench.cli import app
from bench.studies import DIMENSIONS, STUDIES, Row, StudyRecipe
from bench.studies._coefficients import bootstrap_interval, kendall, mean_interval, pearson
from bench.studies._record import begin, read_record, resumed, run_missing
from bench.studies._tables import Column, percent, shown, table
from bench.studies._workbench import Workbench
from searchkit.console import run
from searchkit.errors import SearchFailedError

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT = sorted((Path(__file__).parents[2] / "bench" / "results").glob("studies-*.json"))
TIMES = {"search_cpu_s", "search_wall_s", "retrain_cpu_s", "total_cpu_s", "cpu_s"}


@pytest.fixture(scope="module")
def bench():
    return Workbench(replace(StudyRecipe(networks=2, supernet_steps=4).quick(), steps=4))


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def rows_of(path):
    return [without_times(asdict(row)) for row in read_record(path).rows]


def studied(name, path, *more):
    return run(app, ["study", name, "--quick", "--steps", "4", "--json", str(path), *more])


def test_coefficients_by_hand():
    one, other = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    # Deviations -1.5 -0.5 0.5 1.5 and -1.5 0.5 -0.5 1.5: product 4.0, squares 5.0 each.
    assert pearson(one, other) == pytest.approx(0.8)
    # Five pairs agree, one does not.
    assert kendall(one, other) == pytest.approx(4 / 6)
    assert kendall(one, other[::-1]) == pytest.approx(-4 / 6)
    # Pairs 1-2: tied in x; 1-3 and 2-3: concordant; so 2 / sqrt(2 x 3).
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert pearson([1, 1, 1], [1, 2, 3]) is None
    assert kendall([1, 1, 1], [1, 2, 3]) is None
    assert bootstrap_interval(pearson, [1, 1, 1], [1, 2, 3]) is None


def test_the_bootstrap_holds_the_coefficient_and_is_the_same_each_time():
    one = [float(i) for i in range(20)]
    other = [value + (-1) ** i * 4 for i, value in enumerate(one)]
    low, high = bootstrap_interval(pearson, one, other)
    assert low < pearson(one, other) < high < 1
    assert bootstrap_interval(pearson, one, other) == (low, high)
    assert bootstrap_interval(pearson, one, one) == pytest.approx((1.0, 1.0))


def test_t_intervals_by_hand():
    assert mean_interval([4.0]) == (4.0, None)
    # Deviation 1, so 4.303 / sqrt(3).
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    assert shown([0.1, 0.2, 0.3], 100, 1) == "20.0 ± 24.8"
    assert shown([2.0, 2.0]) == "2.0"
    assert shown([]) == "-"


def test_tables_are_derived_from_rows():
    rows = [
        Row("a", 0, {"miou": 0.10, "n": 3}, 1.0),
        Row("b", 0, {"miou": 0.12, "n": None}, 1.0),
        Row("a", 1, {"miou": 0.20, "n": 5}, 1.0),
        Row("b", 1, {}, 1.0, failed="the loss is no number"),
    ]
    columns = (percent("mIoU, %", "miou"), percent("less a", "miou", less="a"), Column("n", lambda v: v.get("n")))
    assert table(rows, ("a", "b", "c"), columns).splitlines() == [
        "| arm | mIoU, % | less a | n |",
        "| --- | --- | --- | --- |",
        "| a | 15.0 ± 63.5 | 0.0 | 4.0 ± 12.7 |",
        "| b | 12.0 (1 of 2) | 2.0 (1 of 2) | - |",
        "",
        "Means over seeds ± half of the 95 % t interval.",
        "b, seed 1, failed: the loss is no number",
    ]


def test_entropies_are_read_behind_decisions():
    from bench.studies.gap import entropy_at

    entropies = [[0, 4.0], [10, 3.5], [10, 3.0], [20, 2.0]]
    assert [entropy_at(entropies, step) for step in (0, 9, 10, 15, 99)] == [4.0, 4.0, 3.0, 3.0, 2.0]
    assert entropy_at([], 5) is None
    study, recipe = STUDIES.load("gap"), StudyRecipe(steps=20)
    rows = [Row("darts", 0, {"entropies": entropies, "miou_supernet": 0.25, "miou_inherited": 0.2}, 1.0)]
    first, second = (line for line in study.tables(rows, recipe).splitlines() if line.startswith("| darts"))
    assert "| 25.0 | 20.0 | 5.0 |" in first
    assert second == "| darts | 4.00 | 4.00 | 4.00 | 3.00 | 3.00 | 2.00 |"


def test_the_correlation_of_rows():
    """Three networks; stand-alone means 0.2, 0.3, 0.4; the supernet of seed 0 ranks them so, that of seed 1 the other
    way round."""
    study, recipe = STUDIES.load("correlation"), StudyRecipe(networks=3)
    alone = {0: (0.1, 0.3, 0.5), 1: (0.3, 0.3, 0.3)}
    rows = [
        Row(f"network {n}", seed, {"miou": miou, "conv_macs": n}, 1.0)
        for seed, values in alone.items()
        for n, miou in enumerate(values)
    ]
    for seed, values in ((0, [0.0, 0.1, 0.2]), (1, [0.3, 0.2, 0.1])):
        rows.append(Row("random path", seed, {"as_is": values, "recalibrated": values}, 1.0))
    lines = study.tables(rows, recipe).splitlines()
    found = {tuple(cell.strip() for cell in line.split("|")[1:4]): line for line in lines if line.startswith("|")}
    path = "random path, BatchNorm as is", "mean over seeds"
    assert "| 0.00 ± 12.71 (-1.00 to 1.00) | 0.00 ± 12.71 (-1.00 to 1.00) |" in found[*path, "2 seeds"]
    # All networks of seed 1 are equal: there is nothing to correlate.
    assert found["stand-alone, another seed", "one seed", "1 pairs"].endswith("| - | - |")
    first = {row.seed: row for row in rows if row.arm == "random path"}[0]
    lines = study.tables([*(row for row in rows if row.seed == 0 and row.arm != first.arm), first], recipe).splitlines()
    (alone,) = [line for line in lines if line.startswith("| random path, BatchNorm as is")]
    assert alone.endswith("| 0 | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |")
    assert not any("another seed" in line for line in lines)
    lines = study.tables(rows, recipe).splitlines()
    assert "1.00" in found["MACs", "mean over seeds", ""]
    assert "stand-alone mIoU in %: 10.0 to 50.0 (seed 0), 30.0 to 30.0 (seed 1)." in lines[-1]
    assert "not complete" in study.tables(rows[1:3], recipe)


def test_each_study_has_a_summary_and_is_listed(capsys):
    assert run(app, ["study"]) == 0
    listed = capsys.readouterr().out
    assert {"correlation", "dcnas-correlation", "dimensions", "gap", "losses", "random-search"} <= set(STUDIES.names())
    for name in STUDIES.names():
        assert f"{name} " in listed
        assert STUDIES.summary(name) in listed
        recipe = STUDIES.load(name).recipe
        assert len(set(STUDIES.load(name).arms(recipe))) == len(STUDIES.load(name).arms(recipe)) > 1


def test_what_a_recipe_says(bench):
    tree = StudyRecipe().to_tree()
    assert tree["resolution"] == "64x128"
    assert tree["scaled_from"]["architecture_lr"] == 2e-3
    assert tree["warmup_steps"] == tree["steps"] // 10
    # Depth is decided from the start where it is not searched.
    supernet = bench.supernet("Di")
    assert [len(table.candidates) for name, table in supernet.tables.items()] == [1, 1, 5, 1, 1, 1, 1]
    assert bench.supernet("all").undecided() == supernet_choices(bench)
    for name in DIMENSIONS:
        assert bench.supernet(name).undecided() > 0


def supernet_choices(bench):
    layers = sum(stage[-1] for stage in bench.recipe.depths)
    return 2 + layers + 2 * 10 * layers


def test_the_baseline_and_the_lot(bench):
    baseline = bench.baseline()
    layers = [layer for stage in baseline.stages for layer in stage.layers]
    assert [len(stage.layers) for stage in baseline.stages] == list(bench.recipe.fixed_depths)
    assert {(layer.dilation, layer.spatial) for layer in layers} == {(1, 1)}
    assert [layer.out for layer in layers] == [8, 12, 12]
    digests = [bench.drawn("all", number).digest for number in range(8)]
    assert digests == [bench.drawn("all", number).digest for number in range(8)]
    assert len(set(digests)) == 8


def test_what_is_inherited_is_what_the_supernet_computes(bench):
    """A drawn network with the supernet's weights answers as the supernet does under that network's weights."""
    from searchkit.supernet import weights_of

    supernet = bench.trained_supernet("all", "gumbel", 0).eval()
    assert all(not parameter.any() for parameter in supernet.architecture_parameters().values())
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    found = bench.inherited(supernet, 5, 0)
    assert all(torch.equal(tensor, supernet.state_dict()[name]) for name, tensor in before.items())
    _, alive = bench._lot(bench.supernet("all"), 5)

    class Alone(torch.nn.Module):
        def forward(self, images):
            return supernet(images, weights_of(alive))

    alone = Alone().eval()
    supernet.eval()
    assert found["as_is"] == pytest.approx(bench.miou(alone, "val"), abs=1e-3)
    assert found["recalibrated"] is not None


def test_a_search_is_told_as_it_went(bench):
    found = bench.search("Di", "pdarts", 0).values
    assert found["entropies"][0] == [0, pytest.approx(3 * math.log(5), rel=1e-6)]
    assert found["entropy_before_last_decision"] > found["entropy_end"] == 0
    assert found["discrete_step"] == 4
    assert found["undecided_at_end"] == 0
    # All was decided at once, in the end: the supernet is measured as it was before.
    assert found["miou_supernet"] != found["miou_inherited"]
    early = bench.search("Di", "sgas", 0).values
    assert early["discrete_step"] < 4
    # The supernet was the network.
    assert early["miou_supernet"] == early["miou_inherited"]
    kept = bench.search("Di", "darts", 0).values
    assert kept["discrete_step"] is None
    assert kept["undecided_at_end"] == 3
    assert kept["entropy_end"] > 3


def test_a_limit_is_kept(bench):
    macs = bench.costs(bench.baseline())["conv_macs"]
    found = bench.search("Di+S", "ssr", 0, max_macs=int(0.9 * macs))
    assert found.values["conv_macs"] <= 0.9 * macs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["correlation", "dimensions", "gap", "losses", "random-search"])
def test_each_study_runs(name, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert studied(name, path, "--seeds", "0") == 0
    shown_text = capsys.readouterr().out
    record = read_record(path)
    study = STUDIES.load(name)
    assert [row.arm for row in record.rows] == list(study.arms(StudyRecipe(networks=3)))[: len(record.rows)]
    assert record.missing == []
    assert all(row.failed is None and row.values for row in record.rows)
    assert "these figures mean nothing" in shown_text
    assert study.tables(record.rows, replace(study.recipe.quick(), steps=4)).splitlines()[0] in shown_text
    tree = json.loads(path.read_text())
    assert (tree["schema"], tree["kind"], tree["study"]) == (1, "study", name)
    assert tree["quick"] is True
    assert tree["complete"] is True
    assert tree["recipe"]["steps"] == 4
    assert tree["machine"]["torch_threads"] == 1


@pytest.mark.slow
def test_a_study_that_was_interrupted_goes_on(tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    seeds = ("--seeds", "4,2")
    assert studied("random-search", whole, *seeds) == 0
    real, made = Workbench.train, []

    def train(self, *arguments, **more):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)

    monkeypatch.setattr(Workbench, "train", train)
    assert studied("random-search", parts, "--seeds", "4") == 130
    assert [(row["arm"], row["seed"]) for row in rows_of(parts)] == [("ssr", 4)]
    assert json.loads(parts.read_text())["complete"] is False
    assert studied("random-search", parts, *seeds) == 2
    assert "--resume" in capsys.readouterr().err
    assert studied("random-search", parts, *seeds, "--resume") == 0
    assert [(row["arm"], row["seed"]) for row in rows_of(parts)] == [
        ("ssr", 4),
        ("random", 4),
        ("ssr", 2),
        ("random", 2),
    ]
    assert rows_of(parts) == rows_of(whole)
    trained = len(made)
    assert studied("random-search", parts, *seeds, "--resume") == 0
    assert len(made) == trained


def test_a_search_that_fails_is_a_row(tmp_path):
    class Study:
        def arms(self, recipe):
            return ("good", "bad")

        def run(self, arm, seed, bench):
            if arm == "bad":
                raise SearchFailedError("the loss is no number")
            return {"seed": seed}

    told, path = [], tmp_path / "rows.json"
    record = begin("made-up", Study(), StudyRecipe(), (0, 1), {}, quick=True)
    run_missing(record, Study(), None, path, told.append)
    kept = read_record(path)
    assert [(row.arm, row.seed, row.values, row.failed) for row in kept.rows] == [
        ("good", 0, {"seed": 0}, None),
        ("bad", 0, {}, "the loss is no number."),
        ("good", 1, {"seed": 1}, None),
        ("bad", 1, {}, "the loss is no number."),
    ]
    assert told == ["1 of 4: good, seed 0", "2 of 4: bad, seed 0", "3 of 4: good, seed 1", "4 of 4: bad, seed 1"]


def test_rows_are_kept_one_by_one(tmp_path):
    """Interrupted in its fourth row, a study has three; going on, it makes the others and no more."""
    made = []

    class Study:
        def arms(self, recipe):
            return ("a", "b", "c")

        def run(self, arm, seed, bench):
            made.append((arm, seed))
            if len(made) == 4:
                raise KeyboardInterrupt
            return {"value": f"{arm}{seed}"}

    path = tmp_path / "rows.json"
    record = begin("made-up", Study(), StudyRecipe(), (0, 5), {"cores": 2}, quick=True)
    with pytest.raises(KeyboardInterrupt):
        run_missing(record, Study(), None, path, lambda _: None)
    assert [(row.arm, row.seed) for row in read_record(path).rows] == [("a", 0), ("b", 0), ("c", 0)]
    fresh = begin("made-up", Study(), StudyRecipe(), (0, 5), {"cores": 2}, quick=True)
    run_missing(resumed(fresh, path), Study(), None, path, lambda _: None)
    assert made[4:] == [("a", 5), ("b", 5), ("c", 5)]
    assert [row.values["value"] for row in read_record(path).rows] == ["a0", "b0", "c0", "a5", "b5", "c5"]
    assert json.loads(path.read_text())["complete"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gapp"], 2, "did you mean gap"),
        (["gap", "--seeds", "0,0"], 2, "different whole numbers"),
        (["gap", "--seeds", "a"], 2, "different whole numbers"),
        (["gap", "--resume"], 2, "give --json"),
        (["gap", "--json", "missing/rows.json"], 4, "missing"),
        (["gap", "--json", "old.json", "--resume", "--quick"], 3, "not the result of a study"),
    ],
)
def test_bad_input_is_refused(tmp_path, capsys, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("{}")
    assert run(app, ["study", *arguments]) == code
    assert said.lower() in capsys.readouterr().err.lower()


def test_rows_of_something_else_are_not_gone_on_with(tmp_path, capsys):
    path = tmp_path / "rows.json"
    study = STUDIES.load("gap")
    recipe = replace(study.recipe.quick(), steps=4)
    begin("gap", study, recipe, (0,), {"torch_threads": 7}, quick=True).save(path)
    before = path.read_bytes()
    for arguments, said in (
        (["--seeds", "1"], "differs in its seeds"),
        (["--steps", "5"], "differs in its recipe"),
        (["--seeds", "0"], "begun with another"),
    ):
        assert studied("gap", path, "--resume", "--seeds", "0", *arguments) == 2
        assert said in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_what_is_kept_is_complete(path):
    """Every arm with every seed, of the study's own recipe, and the file as it was saved."""
    record = read_record(path)
    study = STUDIES.load(record.study)
    assert path.stem == f"studies-{record.study}"
    assert not record.quick
    assert record.missing == []
    assert len(record.rows) == len(record.arms) * len(record.seeds)
    assert len(record.seeds) >= 3
    assert record.arms == study.arms(study.recipe)
    assert record.recipe == json.loads(json.dumps(study.recipe.to_tree()))
    assert json.loads(path.read_text()) == record.to_tree()
    assert study.tables(record.rows, study.recipe).count("\n|") >= 2
