"""A search in two phases: what each sees, what it starts with, and that it can be cut off anywhere."""

import json

import pytest
import torch

from searchkit.cli import app
from searchkit.console import run
from searchkit.data import streets
from searchkit.errors import UsageError
from searchkit.sizes import Size
from searchkit.training import history, search_checkpoint
from searchkit.training.distributed import World
from searchkit.training.search import Searcher
from searchkit.training.search_folder import SearchFolder

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(32, 64)
#: Of 10 pictures the weights have 5: 4 steps of 3 are two passes and two pictures of the third.
RECIPE = {
    "batch": 2,
    "steps": 12,
    "warmup_steps": 4,
    "decide_every": 3,
    "stop_when_discrete": False,
    "augmentation": {"crop": [16, 48], "scale": [0.75, 1.25]},
    "weights": {
        "optimiser": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
        "schedule": {"type": "exponential", "gamma": 0.5, "every": 3},
    },
    "architecture": {"lr": 0.1, "clip_norm": "none"},
    "pretraining": {
        "batch": 3,
        "crop": [32, 32],
        "lr": 0.04,
        "schedule": {"type": "exponential", "gamma": 0.5, "every": 2},
    },
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def job(toy_supernet_type, search_job):
    """`job(recipe fields, other=changes)`."""
    samples = [streets.draw(0, index, SIZE) for index in range(10)]

    def make(changes=None, **more):
        recipe = RECIPE | (changes or {})
        return search_job(lambda: toy_supernet_type(19), recipe, samples, SIZE, strategy="pdarts", validation=2, **more)

    return make


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory, searched, files_of):
    path = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    searched(job(), path)
    return files_of(path)


@pytest.fixture
def seen(monkeypatch):
    """What the two updates of each step are given, and how many parameters the weights' optimiser remembers then."""
    found = {"_architecture_step": [], "_weight_step": [], "remembered": []}
    for name in ("_architecture_step", "_weight_step"):
        real = getattr(Searcher, name)

        def spy(self, images, labels, name=name, real=real):
            found[name].append(images)
            if name == "_weight_step":
                found["remembered"].append(len(self.optimisers.weights.state))
            assert labels.shape == images.shape[:1] + images.shape[2:]
            return real(self, images, labels)

        monkeypatch.setattr(Searcher, name, spy)
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["half", "same"])
def test_the_supernet_sees_the_batches_of_each_phase(job, seen, tmp_path, split, workers, searched):
    searched(job({"split": split}, workers=workers), tmp_path)
    early, late = (3, 3, 32, 32), (2, 3, 16, 48)
    assert [tuple(images.shape) for images in seen["_weight_step"]] == [early] * 4 + [late] * 8
    assert [tuple(images.shape) for images in seen["_architecture_step"]] == [late] * 8
    pairs = zip(seen["_architecture_step"], seen["_weight_step"][4:], strict=True)
    assert {torch.equal(first, second) for first, second in pairs} == {split == "same"}


def test_passes_through_the_pictures_run_on(job, seen, tmp_path, searched):
    """Whole pictures, none mirrored: of any five in a row from the start of a pass, none comes twice."""
    plain = {"augmentation": {"flip": False}, "pretraining": {"batch": 3}}
    searched(job(plain), tmp_path)
    order = [image.numpy().tobytes() for images in seen["_weight_step"] for image in images]
    assert len(order) == 4 * 3 + 8 * 2
    passes = [order[start : start + 5] for start in range(0, 25, 5)]
    assert all(set(each) == set(passes[0]) and len(set(each)) == 5 for each in passes)
    # The passes that hold the change and those behind it are in an order of their own.
    assert len({tuple(each) for each in passes}) > 1


def test_the_weights_optimiser_starts_afresh(job, seen, tmp_path, searched):
    searched(job(), tmp_path)
    remembered = seen["remembered"]
    assert [count > 0 for count in remembered] == [False, True, True, True, False, *[True] * 7]


def test_without_the_table_it_goes_on(job, seen, tmp_path, searched):
    searched(job({"pretraining": None}), tmp_path)
    assert [count > 0 for count in seen["remembered"]] == [False, *[True] * 11]
    assert {tuple(images.shape) for images in seen["_weight_step"]} == {(2, 3, 16, 48)}


def test_the_history_tells_the_phases_apart(undisturbed):
    rows = [json.loads(line) for line in undisturbed["history.jsonl"].splitlines()]
    told = {row["step"]: row["lr"] for row in rows if "loss" in row}
    assert told == pytest.approx({4: 0.02, 7: 0.02, 10: 0.01, 12: 0.005})
    assert [row["step"] for row in rows if "architecture_loss" in row] == [7, 10, 12]
    assert [row["step"] for row in rows if "decision" in row] == [7, 10, 12]


@pytest.mark.parametrize("kills", [(1,), (3,), (4,), (5,), (8,), (12,), (2, 6), (4, 4), (5, 5, 11)])
def test_killed_and_resumed_ends_in_the_same_bytes(job, undisturbed, tmp_path, kills, searched, files_of):
    for step in kills:

        def listener(report, step=step):
            if report.step == step:
                raise Killed

        with pytest.raises(Killed):
            searched(job(), tmp_path, listener=listener)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("step", range(1, 8))
def test_stopped_and_resumed_ends_in_the_same_bytes(job, undisturbed, tmp_path, step, searched, files_of):
    told = []
    (tmp_path / "config.json").write_text("{}")
    stopped = Searcher(job(), SearchFolder(tmp_path), listener=told.append, stopping=lambda: len(told) >= step)
    assert not stopped.run()
    assert stopped.position.step in (step, step + 1)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("where", ["_flush", "save", "_begin_phase"])
@pytest.mark.parametrize("behind", [False, True])
def test_killed_between_the_phases(job, undisturbed, tmp_path, monkeypatch, where, behind, searched, files_of):
    real = getattr(Searcher, where)

    def failing(self, *arguments):
        if self.position.step == 4:
            if behind:
                real(self, *arguments)
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Searcher, where, failing)
        with pytest.raises(Killed):
            searched(job(), tmp_path)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_a_kill_costs_nothing_of_the_pretraining(job, tmp_path, searched):
    def listener(report):
        if report.step == 6:
            raise Killed

    with pytest.raises(Killed):
        searched(job(), tmp_path, listener=listener)
    assert search_checkpoint.read_state(tmp_path / "checkpoint").position.step == 4


def test_it_can_end_within_the_pretraining(job, seen, tmp_path, searched):
    searched(job({"steps": 3}), tmp_path)
    assert [tuple(images.shape) for images in seen["_weight_step"]] == [(3, 3, 32, 32)] * 3
    assert not seen["_architecture_step"]
    assert [row["step"] for row in history.read(tmp_path / "history.jsonl") if "decision" in row] == [3]


def test_both_batches_are_shared_out(job, tmp_path):
    with pytest.raises(UsageError, match=r"pretraining\.batch"):
        Searcher(job(world=World(0, 2)), SearchFolder(tmp_path))


SMOKE = ["search", "fasterseg", "--data", "streets", "--preset", "smoke", "--set", "warmup_steps=2"]


def test_the_command_says_so_in_its_config(tmp_path, capsys):
    path = tmp_path / "run"
    table = 'pretraining={batch=3, crop=[32, 64], schedule={type="cosine", last_lr=1e-5}}'
    arguments = [*SMOKE, "--set", table, "--cache", str(tmp_path / "cache"), "-o", str(path)]
    assert run(app, arguments) == 0, capsys.readouterr().err
    recipe = json.loads((path / "config.json").read_text())["recipe"]
    assert recipe["pretraining"] == {
        "batch": 3,
        "crop": [32, 64],
        "lr": None,
        "schedule": {"type": "cosine", "last_lr": 1e-5, "warmup_steps": 0},
    }
    rates = [row["lr"] for row in history.read(path / "history.jsonl") if "loss" in row]
    # The last of two steps of pretraining, and of two of search, by poly 0.9.
    assert rates == pytest.approx([1e-5, 3e-4 * 0.5**0.9])
    assert run(app, [*arguments, "--resume", "--set", "pretraining.batch=2"]) == 2
    assert "recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["pretraining={batch=3}", "warmup_steps=0"], "set warmup_epochs or warmup_steps"),
        (["pretraining={crop=[33, 64]}"], "33x64"),
        (["pretraining={lr=0.1, steps=3}"], "pretraining.steps: unknown field"),
    ],
)
def test_the_command_refuses(tmp_path, capsys, settings, words):
    given = [each for setting in settings for each in ("--set", setting)]
    assert run(app, [*SMOKE, *given, "-o", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
