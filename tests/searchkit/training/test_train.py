import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from searchkit import cli, console
from searchkit.data import Sample, streets
from searchkit.errors import TrainingFailedError, UsageError
from searchkit.genotype import parse
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.training import checkpoint, history
from searchkit.training.optimisation import learning_rate
from searchkit.training.recipe import parse_recipe
from searchkit.training.run_folder import RunFolder, begin, check_same
from searchkit.training.train import Job, Trainer
from searchkit.weights import load_weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(32, 64)
GENOTYPE = {
    "schema": 1,
    "space": "ssr",
    "classes": 19,
    "pool": "average",
    "mid_norm": True,
    "stem": 8,
    "stages": [
        {"channels": 12, "layers": [{"dilation": 1, "spatial": 1, "mid": 8, "out": 8}]},
        {"channels": 16, "layers": [{"dilation": 2, "spatial": 2, "mid": 8, "out": 12}]},
    ],
    "head": {"type": "aggregation", "low": 8, "bins": [1, 2], "bin_channels": 4, "context": 8, "fuse": 8},
    "provenance": {"name": "tiny"},
}
STAGE = {
    "batch": 2,
    "steps": 5,
    "loss": {"type": "ohem"},
    "optimiser": {"name": "adam", "lr": 5e-3, "weight_decay": 1e-4},
    "schedule": {"type": "poly", "warmup_steps": 1},
    "augmentation": {"scale": [0.75, 1.25], "jitter": 0.2},
    "clip_norm": 5.0,
}
RECIPE = {
    "validate_every": 4,
    "ema_decay": 0.9,
    "common": STAGE,
    "stages": [{"loss_at": "eighth"}, {"loss_at": "full", "optimiser": {"name": "sgd", "lr": 1e-2}}],
}
STEPS = 10


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [streets.draw(0, index, SIZE) for index in range(5)]


def network():
    return from_genotype(parse(json.dumps(GENOTYPE).encode(), where="test"))


def job(samples, **more) -> Job:
    changes = {"recipe": more.pop("recipe", RECIPE)}
    return Job(
        network=network(),
        recipe=parse_recipe(changes["recipe"], where="test"),
        resolution=SIZE,
        seed=more.pop("seed", 3),
        train=samples,
        validation=samples[:2],
        identity="f" * 64,
        device=torch.device("cpu"),
        **more,
    )


def files(path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    result = Trainer(job(samples), RunFolder(path)).run()
    assert result.finished
    assert result.total_steps == STEPS
    return files(path)


def killed_at(step: int):
    def listener(report) -> None:
        if report.total_step == step:
            raise Killed

    return listener


def test_a_run_leaves_its_files(undisturbed):
    weights = {"best.safetensors", "last.safetensors", "weights.safetensors"}
    assert weights | {"history.jsonl", "plots.svg", "validation.png"} < set(undisturbed)
    rows = [json.loads(line) for line in undisturbed["history.jsonl"].splitlines()]
    assert [row["step"] for row in rows if "miou" in row] == [4, 5, 9, 10]
    assert [row["step"] for row in rows if "loss" in row] == [5, 10]


def test_workers_change_no_byte(samples, undisturbed, tmp_path):
    Trainer(job(samples, workers=2), RunFolder(tmp_path)).run()
    assert files(tmp_path) == undisturbed


def test_another_seed_changes_the_weights(samples, undisturbed, tmp_path):
    Trainer(job(samples, seed=4), RunFolder(tmp_path)).run()
    assert files(tmp_path)["last.safetensors"] != undisturbed["last.safetensors"]


@pytest.mark.parametrize("kills", [(1,), (4,), (5,), (7,), (10,), (3, 3), (5, 9), (2, 6)])
def test_killed_and_resumed_ends_in_the_same_bytes(samples, undisturbed, tmp_path, kills):
    for count, step in enumerate(kills):
        trainer = Trainer(job(samples), RunFolder(tmp_path), listener=killed_at(step))
        if count:
            trainer.resume()
        with pytest.raises(Killed):
            trainer.run()
    trainer = Trainer(job(samples), RunFolder(tmp_path))
    trainer.resume()
    trainer.run()
    assert files(tmp_path) == undisturbed


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopped_at_any_step_and_resumed_ends_in_the_same_bytes(samples, undisturbed, tmp_path, step):
    seen = []
    stopped = Trainer(job(samples), RunFolder(tmp_path), listener=seen.append, stopping=lambda: len(seen) == step)
    result = stopped.run()
    assert (result.finished, result.total_steps) == (False, step)
    trainer = Trainer(job(samples), RunFolder(tmp_path))
    trainer.resume()
    assert trainer.position.total_step == step
    trainer.run()
    assert files(tmp_path) == undisturbed


@pytest.mark.parametrize("write", [2, 5, 8, 11])
def test_killed_while_a_checkpoint_is_written(samples, undisturbed, tmp_path, monkeypatch, write):
    calls, real = [], checkpoint.write_bytes

    def failing(path, data):
        calls.append(path)
        if len(calls) == write:
            raise Killed
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_bytes", failing)
        with pytest.raises(Killed):
            Trainer(job(samples), RunFolder(tmp_path)).run()
    trainer = Trainer(job(samples), RunFolder(tmp_path))
    trainer.resume()
    trainer.run()
    assert files(tmp_path) == undisturbed


def test_a_finished_run_stays_as_it_is(samples, undisturbed, tmp_path):
    Trainer(job(samples), RunFolder(tmp_path)).run()
    again = Trainer(job(samples), RunFolder(tmp_path))
    again.resume()
    assert again.run().finished
    assert files(tmp_path) == undisturbed


def test_another_runs_checkpoint_is_refused(samples, tmp_path):
    Trainer(job(samples), RunFolder(tmp_path), stopping=lambda: True).run()
    from dataclasses import replace

    with pytest.raises(UsageError, match="another run"):
        Trainer(replace(job(samples), identity="0" * 64), RunFolder(tmp_path)).resume()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_stops_before_the_weights_move(samples, tmp_path, value, where):
    trainer = Trainer(job(samples), RunFolder(tmp_path))
    real, calls, before = trainer._loss, [], {}

    def poisoned(*arguments):
        loss = real(*arguments)
        calls.append(loss)
        if len(calls) < 3:
            return loss
        before.update({name: p.detach().clone() for name, p in trainer.model.named_parameters()})
        if where == "loss":
            return loss * value
        loss.register_hook(lambda gradient: gradient * value)
        return loss

    trainer._loss = poisoned
    with pytest.raises(TrainingFailedError, match=f"the {where} is no number at step 3") as failed:
        trainer.run()
    assert failed.value.exit_code == 6
    assert before
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    assert checkpoint.read_position(tmp_path / "checkpoint").total_step == 0


def test_it_learns(samples, tmp_path):
    stage = STAGE | {"loss_at": "full", "steps": 60, "batch": 4, "loss": {"type": "cross_entropy"}, "augmentation": {}}
    stage["optimiser"] = {"name": "adam", "lr": 1e-2}
    trainer = Trainer(job(samples, recipe={"stages": [stage]}), RunFolder(tmp_path))
    first = trainer.validate().pixel_accuracy()
    trainer.run()
    losses = [row["loss"] for row in history.read(tmp_path / "history.jsonl") if "loss" in row]
    assert losses[-1] < losses[0] / 2
    assert trainer.validate().pixel_accuracy() > max(0.6, first)


@pytest.mark.parametrize("half", [False, True])
def test_weights_load_into_their_network_and_no_other(samples, tmp_path, half):
    Trainer(job(samples), RunFolder(tmp_path, half=half)).run()
    found = network()
    loaded = load_weights(found.build(), tmp_path / "weights.safetensors", digest=found.digest)
    assert loaded.trained
    from searchkit.errors import InputFileError

    with pytest.raises(InputFileError, match="weights of another network"):
        load_weights(found.build(), tmp_path / "weights.safetensors", digest="0" * 64)


def test_bfloat16_channels_last_and_a_teacher(samples, tmp_path):
    teacher = network().build().eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    with_both = job(samples, recipe=RECIPE | {"amp": "bf16", "channels_last": True}, teacher=teacher)
    trainer = Trainer(with_both, RunFolder(tmp_path))
    assert trainer.run().finished
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_learning_rates():
    recipe = parse_recipe(RECIPE, where="test")
    stage = recipe.stages[0]
    rates = [learning_rate(stage, step, 5) for step in range(5)]
    assert rates[0] == pytest.approx(2.5e-3)
    assert rates[1:] == pytest.approx([5e-3 * (1 - step / 5) ** 0.9 for step in range(1, 5)])
    falling = stage.model_copy(update={"schedule": stage.schedule.model_copy(update={"warmup_steps": 0}), "steps": 5})
    assert learning_rate(falling, 0, 5) == 5e-3


def test_exponential_steps_once_an_epoch():
    schedule = {"type": "exponential", "gamma": 0.5, "every": 2}
    stage = parse_recipe(RECIPE | {"common": STAGE | {"schedule": schedule}}, where="t").stages[0]
    assert [learning_rate(stage, s, 5) for s in range(5)] == pytest.approx([5e-3, 5e-3, 2.5e-3, 2.5e-3, 1.25e-3])


def test_a_config_that_differs_is_named(tmp_path):
    begin(tmp_path / "run", {"seed": 1, "recipe": {"a": 1}})
    check_same(tmp_path / "run", {"seed": 1, "recipe": {"a": 1}})
    with pytest.raises(UsageError, match="another seed"):
        check_same(tmp_path / "run", {"seed": 2, "recipe": {"a": 1}})
    with pytest.raises(UsageError, match="--resume"):
        begin(tmp_path / "run", {})


def test_what_a_run_leaves_that_was_killed_at_once_is_no_run(tmp_path):
    (tmp_path / ".config.json.4000000.0123456789abcdef.tmp").touch()
    begin(tmp_path, {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    for name in (".config.json.mine", ".other.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        with pytest.raises(UsageError, match="not empty"):
            begin(tmp_path / name, {})


def genotype_file(tmp_path, **changes):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(GENOTYPE | changes))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--device", "cuda:9"], 7, "no such GPU"),
        (["--device", "tpu"], 2, "unknown device"),
        (["--resolution", "33x64"], 2, "does not take this size"),
        (["--preset", "smok"], 2, "Did you mean smoke"),
        (["--preset", "fasterseg", "--resolution", "128x256"], 2, "larger than its pictures"),
        (["--data", "street"], 2, "Did you mean streets"),
        (["--data", "cityscapes:/nowhere"], None, "nowhere"),
        (["--teacher", "ssr"], 2, "--teacher-weights"),
        (["--teacher", "OTHER", "--teacher-weights", "w.safetensors"], 2, "another number of classes"),
        (["--resume"], 2, "no run to resume"),
        (["--recipe", "missing.toml"], 3, "does not exist"),
        (["--json", "nowhere/x.json"], 4, "folder does not exist"),
    ],
)
def test_refusals_come_before_anything_is_written(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = genotype_file(tmp_path)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(GENOTYPE | {"classes": 11}))
    arguments = [str(other) if word == "OTHER" else word for word in arguments]
    base = ["train", tiny, "--data", "streets", "--preset", "smoke", "--resolution", "32x64", "-o", "run"]
    if "--recipe" in arguments:
        base[4:6] = []
    found = console.run(cli.app, [*base, *arguments])
    assert found == code or (code is None and found in (2, 3, 4))
    assert words in " ".join(capsys.readouterr().err.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.json", "tiny.json"]


@pytest.fixture
def few_streets(monkeypatch):
    monkeypatch.setitem(streets.SPLITS, "train", (0, 4))
    monkeypatch.setitem(streets.SPLITS, "val", (1, 2))


def test_the_command(tmp_path, monkeypatch, capsys, few_streets):
    base = ["train", genotype_file(tmp_path), "--data", "streets", "--preset", "smoke", "--resolution", "32x64"]
    base += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "run")]
    assert console.run(cli.app, [*base, "--json", str(tmp_path / "r.json")]) == 0
    tree = json.loads((tmp_path / "r.json").read_text())
    assert tree["finished"]
    assert tree["steps"] == 6
    assert "weights.safetensors" in capsys.readouterr().out
    assert console.run(cli.app, base) == 2
    assert "--resume" in capsys.readouterr().err
    assert console.run(cli.app, [*base, "--resume"]) == 0
    assert console.run(cli.app, [*base, "--resume", "--seed", "9"]) == 2
    assert "another seed" in " ".join(capsys.readouterr().err.split())


RUN_FEW = """
import sys
from searchkit import cli, console
from searchkit.data import streets
streets.SPLITS.update(train=(0, 4), val=(1, 2))
sys.exit(console.run(cli.app, sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state(tmp_path, number, code):
    recipe = tmp_path / "long.toml"
    recipe.write_text(
        'validate_every = 100000\n[[stages]]\nloss_at = "full"\nbatch = 2\nsteps = 100000\n'
        'loss = { type = "cross_entropy" }\noptimiser = { name = "adam", lr = 1e-3 }\nschedule = { type = "poly" }\n'
    )
    run = tmp_path / "run"
    words = ["train", genotype_file(tmp_path), "--data", "streets", "--recipe", str(recipe), "--resolution", "32x64"]
    words += ["--cache", str(tmp_path / "cache"), "-o", str(run)]
    process = subprocess.Popen([sys.executable, "-c", RUN_FEW, *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "history.jsonl").exists():
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert "--resume" in text
    assert checkpoint.read_position(run / "checkpoint").total_step >= 20


def test_importing_the_command_imports_no_torch():
    check = "import sys, searchkit.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_samples_are_never_changed(samples, tmp_path):
    before = [np.copy(sample.image) for sample in samples]
    Trainer(job(samples), RunFolder(tmp_path)).run()
    assert all(np.array_equal(a, sample.image) for a, sample in zip(before, samples, strict=True))
