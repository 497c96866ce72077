"""Distillation: the divergence of Eq. 4, and trainings that have a teacher."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from searchkit import cli, console
from searchkit.data import streets
from searchkit.errors import InputFileError, UsageError
from searchkit.genotype import parse
from searchkit.label_sets import CITYSCAPES_19, generic_labels
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.training.distillation import check_teacher, divergence, find_teacher, load_teacher
from searchkit.training.recipe import Distillation, load_preset, parse_recipe
from searchkit.training.run_folder import RunFolder
from searchkit.training.train import Job, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(32, 64)
PAPER = Distillation()
RELEASE = Distillation(mean="elements", direction="teacher||student")


def genotype(width: int, classes: int = 19) -> bytes:
    layer = {"operator": "conv", "width": width, "stride": 1}
    tree = {
        "schema": 1,
        "space": "fasterseg",
        "classes": classes,
        "stem_width": 1,
        "head_width": width,
        "shared": [],
        "branches": [[layer]],
        "provenance": {"name": f"tiny{width}"},
    }
    return json.dumps(tree).encode()


def network(width: int, classes: int = 19):
    return from_genotype(parse(genotype(width, classes), where="test"))


def logits(seed: int, *, height: int = 6) -> torch.Tensor:
    return 3 * torch.randn(2, 5, height, 8, generator=torch.Generator().manual_seed(seed))


# The divergence


def test_divergence_by_hand():
    """Student 1/4, 3/4 and teacher 1/2, 1/2 at one pixel; equal at the other."""
    student = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    teacher = torch.zeros(1, 2, 1, 2)
    of_student = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    of_teacher = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(student, teacher, PAPER).item() == pytest.approx(of_student / 2, rel=1e-6)
    turned = Distillation(direction="teacher||student")
    assert divergence(student, teacher, turned).item() == pytest.approx(of_teacher / 2, rel=1e-6)
    assert divergence(student, teacher, RELEASE).item() == pytest.approx(of_teacher / 4, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_both_directions_are_pytorchs(temperature):
    student, teacher = logits(0), logits(1)
    of_student, of_teacher = (F.log_softmax(x / temperature, 1) for x in (student, teacher))
    for direction, terms in (
        ("student||teacher", F.kl_div(of_teacher, of_student, reduction="none", log_target=True)),
        ("teacher||student", F.kl_div(of_student, of_teacher, reduction="none", log_target=True)),
    ):
        for mean, expected in (("elements", terms.mean()), ("pixels", terms.sum(1).mean())):
            how = Distillation(temperature=temperature, mean=mean, direction=direction)
            assert divergence(student, teacher, how).item() == pytest.approx(temperature**2 * expected.item(), rel=1e-5)


def test_the_mean_over_elements_is_weaker_by_the_classes():
    student, teacher = logits(0), logits(1)
    weak = divergence(student, teacher, Distillation(mean="elements"))
    assert divergence(student, teacher, PAPER).item() == pytest.approx(5 * weak.item(), rel=1e-6)


@pytest.mark.parametrize("how", [PAPER, RELEASE])
def test_only_the_student_learns(how):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    divergence(student, teacher, how).backward()
    assert teacher.grad is None
    before = divergence(student, teacher, how).item()
    assert divergence(student - 0.1 * student.grad, teacher, how).item() < before
    same = logits(0)
    assert divergence(same, same, how).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_is_resized_to_the_student():
    student, teacher = logits(0, height=12), logits(1)
    resized = F.interpolate(teacher, size=(12, 8), mode="bilinear", align_corners=False)
    expected = divergence(student, resized, PAPER)
    assert divergence(student, teacher, PAPER).item() == pytest.approx(expected.item(), rel=1e-6)


def test_recipes():
    assert PAPER.weight == PAPER.temperature == 1
    assert load_preset("fasterseg").distillation == RELEASE
    # The release clips gradients in its search alone.
    assert [stage.clip_norm for stage in load_preset("fasterseg").stages] == [None]
    assert load_preset("ssr").distillation == PAPER
    stages = [stage.model_dump(mode="json") for stage in load_preset("smoke").stages]
    for wrong in ({"mean": "all"}, {"direction": "both"}, {"weight": 0}, {"temperature": 0}, {"strength": 1}):
        with pytest.raises(InputFileError, match="distillation"):
            parse_recipe({"stages": stages, "distillation": wrong}, where="test")


# Which network and weights


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(5)]


def job(samples, *, width: int = 1, steps: int = 3, teacher=None, **distillation) -> Job:
    stage = {
        "loss_at": "full",
        "batch": 2,
        "steps": steps,
        "loss": {"type": "cross_entropy"},
        "optimiser": {"name": "sgd", "lr": 0.01},
        "schedule": {"type": "poly"},
    }
    recipe = parse_recipe({"validate_every": 2, "stages": [stage], "distillation": distillation}, where="test")
    device = torch.device("cpu")
    return Job(network(width), recipe, SIZE, 0, samples, samples[:1], "f" * 64, device, teacher=teacher)


@pytest.fixture(scope="module")
def teacher_run(samples, tmp_path_factory):
    """A folder of a training, as the command leaves it."""
    path = tmp_path_factory.mktemp("teacher")
    (path / "config.json").write_text("{}")
    assert Trainer(job(samples, width=2), RunFolder(path, labels=CITYSCAPES_19)).run().finished
    return path


def test_a_folder_or_weights_name_their_network(teacher_run, tmp_path):
    weights = teacher_run / "weights.safetensors"
    for argument in (teacher_run, weights):
        found, file = find_teacher(str(argument), None)
        assert found.digest == network(2).digest
        assert file == weights
    best = teacher_run / "best.safetensors"
    assert find_teacher(str(best), None) == (found, best)
    (tmp_path / "tiny.json").write_bytes(genotype(3))
    assert find_teacher(str(tmp_path / "tiny.json"), best) == (network(3), best)


def test_a_teacher_is_frozen_and_evaluates(teacher_run):
    teacher = load_teacher(*find_teacher(str(teacher_run), None), torch.device("cpu"))
    assert not any(layer.training for layer in teacher.module.modules())
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert set(teacher.to_tree()) == {"digest", "weights"}
    assert teacher.digest == network(2).digest
    stored = load_file(teacher_run / "weights.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in teacher.module.state_dict().items())


def test_what_is_no_teacher(teacher_run, tmp_path):
    for argument, words in (
        ("nowhere/run", "no such file"),
        ("nowhere", "unknown network"),
        ("x" * 5000, "unknown network"),
        ("ssr", "needs its weights"),
        (str(tmp_path), "no network.json"),
    ):
        with pytest.raises((UsageError, InputFileError), match=words):
            find_teacher(argument, None)
    with pytest.raises(InputFileError, match="does not exist"):
        find_teacher(str(tmp_path / "missing.safetensors"), None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"has no weights\.safetensors.*that has ended\.$"):
        find_teacher(str(tmp_path), None)
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(UsageError, match=r"or best\.safetensors in this one"):
        find_teacher(str(tmp_path), None)
    (tmp_path / "teacher.json").touch()
    with pytest.raises(UsageError, match=r"a search finds a teacher.*Train .*teacher\.json first"):
        find_teacher(str(tmp_path), None)
    with pytest.raises(InputFileError, match="not a safetensors file"):
        find_teacher(str(tmp_path / "best.safetensors"), None)
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(teacher_run / "weights.safetensors"), bare)
    with pytest.raises(InputFileError, match="do not say what network"):
        find_teacher(str(bare), None)
    save_file({}, bare, metadata={"network": "[1"})
    with pytest.raises(InputFileError, match="network"):
        find_teacher(str(bare), None)
    with pytest.raises(InputFileError, match="tensors missing"):
        load_teacher(network(2), bare, torch.device("cpu"))


def test_classes_must_be_the_same(teacher_run, tmp_path):
    found, weights = find_teacher(str(teacher_run), None)
    check_teacher(found, weights, CITYSCAPES_19)
    with pytest.raises(UsageError, match=r"another number of classes.*got 19.*allowed: 11"):
        check_teacher(found, weights, generic_labels(11))
    names = ("road", "pavement", *CITYSCAPES_19.names[2:])
    with pytest.raises(UsageError, match=r"class 1: .*other classes.*got 'sidewalk'.*allowed: pavement"):
        check_teacher(found, weights, replace(CITYSCAPES_19, names=names))
    for labels, error in ((None, None), ("[1", InputFileError), ('["road"]', InputFileError), ("7", InputFileError)):
        other = tmp_path / "other.safetensors"
        save_file({}, other, metadata={"labels": labels} if labels else {"digest": "x"})
        if error is None:
            check_teacher(found, other, CITYSCAPES_19)
            continue
        with pytest.raises(error, match=r"labels|names of its classes"):
            check_teacher(found, other, CITYSCAPES_19)


# Trainings


def run_files(path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


class Killed(BaseException):
    pass


def test_resumed_to_the_same_bytes(samples, teacher_run, tmp_path):
    teacher = load_teacher(*find_teacher(str(teacher_run), None), torch.device("cpu")).module
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    with_teacher = job(samples, teacher=teacher, steps=5)

    def kill(report) -> None:
        if report.total_step == 3:
            raise Killed

    assert Trainer(with_teacher, RunFolder(tmp_path / "whole")).run().finished
    with pytest.raises(Killed):
        Trainer(with_teacher, RunFolder(tmp_path / "killed"), listener=kill).run()
    trainer = Trainer(with_teacher, RunFolder(tmp_path / "killed"))
    trainer.resume()
    assert trainer.position.total_step == 2
    assert trainer.run().finished
    whole = run_files(tmp_path / "whole")
    assert run_files(tmp_path / "killed") == whole
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    for more in ({}, {"teacher": teacher, "weight": 2.0}, {"teacher": teacher, "mean": "elements"}):
        Trainer(job(samples, steps=5, **more), RunFolder(tmp_path / f"other{len(more)}{more.get('weight')}")).run()
        other = run_files(tmp_path / f"other{len(more)}{more.get('weight')}")
        assert other["last.safetensors"] != whole["last.safetensors"]


def test_the_loss_has_the_teachers_share(samples, teacher_run, tmp_path):
    teacher = load_teacher(*find_teacher(str(teacher_run), None), torch.device("cpu")).module
    losses = {}
    for weight in (None, 1.0, 3.0):
        more = {} if weight is None else {"teacher": teacher, "weight": weight}
        seen = []
        Trainer(job(samples, steps=1, **more), RunFolder(tmp_path / str(weight)), listener=seen.append).run()
        losses[weight] = seen[0].loss
    share = losses[1.0] - losses[None]
    assert share > 0
    assert losses[3.0] - losses[None] == pytest.approx(3 * share, rel=1e-4)


def test_the_command(teacher_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(streets.SPLITS, "train", (0, 4))
    monkeypatch.setitem(streets.SPLITS, "val", (1, 2))
    (tmp_path / "student.json").write_bytes(genotype(1))
    base = ["train", str(tmp_path / "student.json"), "--data", "streets", "--preset", "smoke", "--resolution", "32x64"]
    base += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "run")]
    with_teacher = [*base, "--teacher", str(teacher_run)]
    assert console.run(cli.app, with_teacher) == 0
    weights = teacher_run / "weights.safetensors"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    teacher = load_teacher(network(2), weights, torch.device("cpu"))
    assert config["teacher"] == teacher.to_tree()
    assert config["recipe"]["distillation"]["mean"] == "pixels"
    for arguments, code in (
        ([*with_teacher, "--resume"], 0),
        ([*base, "--teacher", str(weights), "--resume"], 0),
        ([*base, "--resume"], 2),
        ([*base, "--resume", "--teacher", str(tmp_path / "run")], 2),
    ):
        assert console.run(cli.app, arguments) == code
        assert ("another teacher" in " ".join(capsys.readouterr().err.split())) == (code == 2)
    # What a distilled student leaves is as good a teacher as any.
    assert find_teacher(str(tmp_path / "run"), None)[0].digest == network(1).digest


def test_weights_without_a_teacher_are_refused(tmp_path, capsys):
    (tmp_path / "student.json").write_bytes(genotype(1))
    base = ["train", str(tmp_path / "student.json"), "--data", "streets", "--preset", "smoke", "--resolution", "32x64"]
    base += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "run")]
    assert console.run(cli.app, [*base, "--teacher-weights", "w.safetensors"]) == 2
    assert "add --teacher" in " ".join(capsys.readouterr().err.lower().split())
    assert console.run(cli.app, [*base, "--teacher", str(tmp_path / "nowhere")]) == 2
    assert "no such file" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
