"""`searchkit decode`: published parameters and searches, to networks; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from searchkit import genotype
from searchkit.choices import one_hot
from searchkit.cli import app
from searchkit.console import run
from searchkit.footprint import count_params
from searchkit.genotype import Provenance
from searchkit.networks import resolve
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg.genotype import final_rate
from searchkit.training import history
from searchkit.training.run_folder import begin
from searchkit.training.search_decisions import as_arrays, trajectory
from searchkit.training.search_folder import CHOICES
from searchkit.training.search_request import SearchRequest, Words

PUBLISHED = Path(__file__).parent / "spaces" / "data" / "fasterseg_alphas.json"
REFERENCE = Size(1024, 2048)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def changed(folder):
    """`changed(change)` is a copy of the published file, changed by a function."""

    def make(change):
        tree = json.loads(PUBLISHED.read_text())
        result = change(tree)
        (folder / "p.json").write_text(result if isinstance(result, str) else json.dumps(tree))
        return "p.json"

    return make


def ends(network):
    return [final_rate((*network.shared, *branch)) for branch in network.branches]


def training_params(network):
    with torch.device("meta"):
        return count_params(SPACES.load("fasterseg").build(network, training_heads=True))


# Files


def test_the_authors_rule_gives_the_published_student(folder, capsys):
    words = ["decode", str(PUBLISHED), "--rule", "release", "-o", "s.json", "--resolution", "1024x2048"]
    assert run(app, words) == 0
    captured = capsys.readouterr()
    assert captured.out.split("; ") == [
        "s.json: 3.422 M parameters, 27.77 GMACs at 1024x2048",
        "--companion teacher writes its teacher\n",
    ]
    assert captured.err == ""
    student = genotype.load(folder / "s.json")
    assert student.digest == resolve("fasterseg").genotype.digest
    cost = student.cost(REFERENCE)
    assert (round(cost.conv_macs / 1e9, 4), round(cost.params / 1e3, 1)) == (27.7705, 3421.9)
    assert round(training_params(student) / 1e3, 1) == 4385.7
    assert student.name == "fasterseg-release"
    assert student.provenance.source.startswith("VITA-Group/FasterSeg")


def test_and_the_published_teacher(folder, capsys):
    words = ["decode", str(PUBLISHED), "--rule", "release", "--companion", "teacher", "-o", "t.json", "--json", "-"]
    assert run(app, words) == 0
    tree = json.loads(capsys.readouterr().out)
    teacher, shipped = genotype.load(folder / "t.json"), resolve("fasterseg-teacher").genotype
    assert teacher.digest == tree["digest"] == shipped.digest
    cost = shipped.cost(Size(512, 1024))
    assert (tree["params"], tree["conv_macs"], tree["resolution"]) == (cost.params, cost.conv_macs, "512x1024")
    assert tree["companions"] == ["teacher"]
    assert (teacher.stem_width, teacher.head_width) == (12, 12)
    assert teacher.cost(REFERENCE).conv_macs == 107_778_932_736
    assert training_params(teacher) == 23_524_137


def test_the_rule_is_joint_if_left_out(folder):
    assert run(app, ["decode", str(PUBLISHED), "-o", "a.json"]) == 0
    assert run(app, ["decode", str(PUBLISHED), "-o", "b.json", "--rule", "joint", "--space", "fasterseg"]) == 0
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    # As docs/reproduction.md has it.
    assert round(genotype.load(folder / "a.json").cost(REFERENCE).conv_macs / 1e9, 2) == 29.66


def test_the_students_measurements_decide_on_the_pair_of_both(folder, changed):
    def better(tree):
        tree["student"]["mIoU02"] = 2 * tree["student"]["mIoU12"]

    path = changed(better)
    for options in ([], ["--companion", "teacher"]):
        assert run(app, ["decode", path, "-o", "g.json", *options]) == 0
        assert ends(genotype.load(folder / "g.json")) == [32, 8]


def test_words_and_measurements_may_be_left_out(folder, changed):
    def bare(tree):
        del tree["teacher"], tree["source"], tree["layout"]
        for name in ("mIoU02", "mIoU12", "latency02", "latency12"):
            del tree["student"][name]

    assert len(json.loads(PUBLISHED.read_text())["layout"]) > 256
    assert run(app, ["decode", changed(bare), "-o", "g.json", "--rule", "release"]) == 0
    assert genotype.load(folder / "g.json").digest == resolve("fasterseg").genotype.digest
    long = changed(lambda tree: tree.update(source="ä" * 200))
    assert run(app, ["decode", long, "-o", "g.json"]) == 0
    assert genotype.load(folder / "g.json").provenance.source == "ä" * 128


def cut_layers(tree, layers):
    """The same, with fewer layers or, the last repeated, with more."""
    for name, table in tree["student"].items():
        if isinstance(table, list):
            rows = len(table) - 16 + layers
            tree["student"][name] = (table + [table[-1]] * max(0, rows))[:rows]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda tree: "\n", "not valid JSON"),
        (lambda tree: "[1, 2]", "p.json: not architecture parameters (got [1, 2])"),
        (lambda tree: "{}", "p.json: student: missing field"),
        (lambda tree: json.dumps(tree)[:-900], "not valid JSON"),
        (lambda tree: tree["student"]["alpha_1_0"][3].__setitem__(2, float("nan")), "alpha_1_0[3][2]: NaN is not JSON"),
        (
            lambda tree: tree["teacher"]["beta_0_1"][3].__setitem__(1, "1"),
            'teacher.beta_0_1[3][1]: not a number (got "1"',
        ),
        (lambda tree: tree["student"]["beta_1_1"][3].__setitem__(1, None), "student.beta_1_1[3][1]: not a number"),
        (lambda tree: tree["student"]["beta_1_1"][3].__setitem__(1, True), "student.beta_1_1[3][1]: not a number"),
        (
            lambda tree: tree["student"]["alpha_1_1"][4].pop(),
            "student.alpha_1_1[4]: a row of another length (allowed: 5",
        ),
        (lambda tree: tree["student"]["alpha_1_1"].pop(), "student: alpha: architecture parameters of a wrong shape"),
        (
            lambda tree: [row.pop() for row in tree["student"]["beta_1_2"]],
            "student: beta: architecture parameters of a",
        ),
        (
            lambda tree: [row.pop() for row in tree["student"]["ratio_1_2"]],
            "student: ratio: architecture parameters of a",
        ),
        (lambda tree: tree["student"].update(alpha_1_0=[]), "student.alpha_1_0: not a table"),
        (lambda tree: tree["student"].update(alpha_1_0=[[]]), "student.alpha_1_0: not a table"),
        (lambda tree: tree["student"].update(alpha_1_0={}), "student.alpha_1_0: not a table"),
        (lambda tree: tree["student"].pop("beta_1_2"), "student: beta_N_2: not the parameters of one network"),
        (lambda tree: tree["student"].update(alpha_7_0=[[0]]), "student: alpha_N_0: not the parameters of one network"),
        (lambda tree: tree["student"].update(gamma=1), "student.gamma: unknown field"),
        (lambda tree: tree["student"].update(mIoU02="much"), "student.mIoU02: not a number"),
        (lambda tree: tree["student"].update(latency02=0), "student.latency02: no latency (got 0"),
        (lambda tree: tree["student"].pop("latency02"), "student.latency02: missing field"),
        (lambda tree: tree.update(teacher=[]), "teacher: not a network's tables"),
        (lambda tree: tree.update(teacher=tree["student"]), "teacher: ratio: another number of widths"),
        (lambda tree: tree.update(source=3), "source: not words"),
        (lambda tree: tree.update(techer={}), "techer: unknown field"),
        (lambda tree: cut_layers(tree, 4), "student: alpha: too few layers for the release's decoder"),
        (lambda tree: cut_layers(tree, 65), "student: alpha: too many layers (got 65; allowed: 3 to 64)"),
    ],
)
def test_what_is_not_the_format(folder, capsys, changed, change, wanted):
    assert run(app, ["decode", changed(change), "-o", "g.json", "--rule", "release"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: p.json: ")
    assert captured.err.count("\n") == 1
    assert wanted in captured.err
    assert captured.out == ""
    assert not (folder / "g.json").exists()


@pytest.mark.parametrize("layers", [5, 64])
def test_other_numbers_of_layers(folder, changed, layers):
    for rule in ("joint", "release"):
        assert run(app, ["decode", changed(lambda tree: cut_layers(tree, layers)), "-o", "g.json", "--rule", rule]) == 0
        assert ends(genotype.load(folder / "g.json")) == [32, 16]


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        ((str(PUBLISHED), "--rule", "authors"), 2, "--rule: unknown rule (got 'authors'; allowed: joint, release)"),
        ((str(PUBLISHED), "--space", "fastseg"), 2, "Did you mean"),
        ((str(PUBLISHED), "--space", "ssr"), 2, "reads no files of architecture parameters"),
        ((str(PUBLISHED), "--companion", "tutor"), 2, "unknown companion (got 'tutor'; allowed: teacher)"),
        ((str(PUBLISHED), "--resolution", "1023x2048"), 2, "1023"),
        (("nowhere.json",), 3, "nowhere.json"),
        ((".",), 2, "not the folder of a search"),
        ((".", "--rule", "joint"), 2, "Leave it out"),
        ((str(PUBLISHED), "-o", "nowhere/g.json"), 4, "nowhere"),
    ],
)
def test_refusals(folder, capsys, words, code, wanted):
    assert run(app, ["decode", *(() if "-o" in words else ("-o", "g.json")), *words]) == code
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert wanted in message
    assert not list(folder.iterdir())


# Searches


@pytest.fixture
def searching(folder):
    """`searching(space)` is the supernet of a search as it is somewhere on its way, whose folder is `run`."""

    def make(space, *settings):
        request = SearchRequest.parse(Words(space, "streets", 0, preset="smoke", settings=settings))
        begin(folder / "run", request.config())
        supernet, rng = request.supernet(), np.random.default_rng(0)
        rows = [{"step": 0, "probabilities": trajectory(supernet, drawn(supernet, rng))}]
        shrunk = supernet.closed(halved(supernet, rng))
        supernet.shrink(shrunk)
        probabilities = drawn(supernet, rng)
        rows.append({"step": 7, "probabilities": trajectory(supernet, probabilities)})
        for row in rows:
            history.append(folder / "run" / CHOICES, row)
        return supernet, probabilities

    return make


def drawn(supernet, rng):
    """Probabilities with few digits, so that writing them down changes nothing."""
    return as_arrays(
        {
            name: torch.from_numpy(np.where(table.alive, rng.integers(1, 10**5, table.alive.shape) / 10**6, 0.0))
            for name, table in supernet.tables.items()
        }
    )


def halved(supernet, rng):
    """One candidate less in every other choice that has candidates to spare."""
    alive = supernet.alive()
    for name, mask in alive.items():
        for row in range(0, len(mask), 2):
            if mask[row].sum() > supernet.tables[name].keeps:
                mask[row, rng.choice(np.flatnonzero(mask[row]))] = False
    return alive


@pytest.mark.parametrize("space", [name for name in SPACES.names() if (SPACES.folder(name) / "presets").is_dir()])
def test_a_search_that_is_not_over(folder, searching, space):
    supernet, probabilities = searching(space)
    assert supernet.undecided()
    assert run(app, ["decode", "run", "-o", "g.json"]) == 0
    found = genotype.load(folder / "g.json")
    assert (found.space, found.provenance.data, found.provenance.seed) == (space, "streets", 0)
    assert "step 7" in found.provenance.description
    preferences = supernet.weighed(probabilities, lambda weights: None, lambda alive: 1.0)
    if all(table.keeps == 1 for table in supernet.tables.values()):
        decided = supernet.closed(one_hot(preferences, supernet.alive()))
        assert found.digest == supernet.derive(decided, Provenance()).digest
    # The search can go on: nothing of it has changed, and nothing has been added.
    assert sorted(path.name for path in (folder / "run").iterdir()) == [CHOICES, "config.json"]


def test_its_limits_hold(folder, searching):
    costs = []
    for settings in ((), ("budgets.params=0.05M",)):
        searching("fasterseg", *settings)
        assert run(app, ["decode", "run", "-o", "g.json"]) == 0
        costs.append(genotype.load(folder / "g.json").cost(Size(64, 64)).params)
        for path in (folder / "run").iterdir():
            path.unlink()
    assert costs[1] <= 50_000 < costs[0]


def test_its_teacher(folder, searching):
    searching("fasterseg")
    assert run(app, ["decode", "run", "-o", "t.json", "--companion", "teacher"]) == 0
    teacher = genotype.load(folder / "t.json")
    assert all(layer.operator != "skip" and layer.width == 2 for branch in teacher.branches for layer in branch)


@pytest.mark.parametrize(
    ("name", "content", "code", "wanted"),
    [
        (CHOICES, "", 2, "the search has not begun"),
        (CHOICES, '{"step": 1}\n', 5, "not the probabilities of this search"),
        (CHOICES, '{"step": 1, "probabilities": {"branches": {"pair": {"1+2": 1}}}}\n', 5, "not the probabilities"),
        (CHOICES, "[1\n", 5, "line 1"),
        ("config.json", "", 5, "not the config of a search"),
        ("config.json", "[]", 5, "not the config of a search"),
        ("config.json", '{"network": 1}', 2, "not the folder of a search"),
        ("config.json", '{"space": "fasterseg", "recipe": {}}', 5, "not the config of a search"),
    ],
)
def test_damaged_folders(folder, capsys, searching, name, content, code, wanted):
    searching("fasterseg")
    (folder / "run" / name).write_text(content)
    assert run(app, ["decode", "run", "-o", "g.json"]) == code
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert wanted in message
    assert not (folder / "g.json").exists()
