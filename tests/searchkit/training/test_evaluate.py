"""`searchkit evaluate`: the protocol, what it refuses, and that a bundle and its network are measured alike."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from PIL import Image

from deploy.deployable import Deployable
from deploy.export import export
from deploy.predictor import bundle_predictor, is_bundle_argument
from searchkit.cli import app
from searchkit.console import run
from searchkit.data import Dataset, Problem, Sample, open_dataset
from searchkit.errors import InputFileError, UsageError
from searchkit.label_sets import CITYSCAPES_19, LabelSet, generic_labels
from searchkit.networks import resolve
from searchkit.pictures import resize_picture
from searchkit.sizes import Size
from searchkit.training import evaluate as evaluation
from searchkit.training.evaluate import (
    PROTOCOLS,
    Evaluation,
    Predictor,
    Seen,
    Subject,
    evaluate,
    network_predictor,
    predict_labels,
    spread,
)
from searchkit.training.evaluation_pictures import Sheet, draw_confusion
from searchkit.training.metrics import Confusion
from searchkit.training.submission import Submission, file_name, label_ids

ROOT = Path(__file__).parents[3]
NETWORK, SIZE = "ssr-baseline1", Size(64, 128)
MAP_SIZE = Size(32, 48)


class Blocks(Dataset):
    """Three splits of block pictures whose first channel is the label."""

    def __init__(self, classes: int = 4, size: Size = MAP_SIZE) -> None:
        self.labels: LabelSet = generic_labels(classes)
        self._size = size

    def splits(self) -> tuple[str, ...]:
        return ("val", "empty", "unlabelled")

    def count(self, split: str) -> int:
        if split not in self.splits():
            raise UsageError("no such split", got=split)
        return 0 if split == "empty" else 7

    def name(self, split: str, index: int) -> str:
        return f"{split}/blocks_{index}"

    def read(self, split: str, index: int) -> Sample:
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, len(self.labels), (self._size.height // 8, self._size.width // 8))
        labels = np.kron(coarse, np.ones((8, 8), int)).astype(np.uint8)
        image = np.repeat(labels[..., None], 3, axis=2)
        labels[:2] = 255
        return Sample(image, np.full_like(labels, 255) if split == "unlabelled" else labels)

    def fingerprint(self, split: str) -> str:
        return "f" * 64

    def check(self) -> Iterator[Problem]:
        return iter(())


def subject(classes: int = 4, gives: str = "logits") -> Subject:
    return Subject("toy", "d" * 64, classes, "by hand", True, "numpy", gives)


def one_hot(image: np.ndarray) -> np.ndarray:
    """Logits that are right for `Blocks`."""
    return (np.arange(4)[:, None, None] == image[None, ..., 0]).astype(np.float32)


def measured(predict, size: Size = MAP_SIZE, split: str = "val", *, gives: str = "logits", **more) -> Evaluation:
    predictor = Predictor(predict, subject(gives=gives), size)
    return evaluate(predictor, Blocks(), split, dataset_name="blocks", **more)


# --- the protocol


def test_a_perfect_network_has_one_everywhere():
    found = measured(one_hot)
    assert found.confusion.iou() == [1.0] * 4
    assert found.boundary.iou() == [1.0] * 4
    assert found.confusion.pixels() == 7 * 30 * 48
    assert (found.count, found.available, found.protocol) == (7, 7, "logits")


def test_logits_are_resized_to_the_labels_before_arg_max():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 5, 7)).astype(np.float32)
    found = measured(lambda _image: logits, Size(16, 24), limit=1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=(32, 48), mode="bilinear", align_corners=False
    )[0].argmax(0)
    whole = Confusion(4)
    whole.add(Blocks().read("val", 0).labels, expected.numpy())
    assert (found.confusion.matrix == whole.matrix).all()


def test_the_other_protocol_resizes_the_map():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 5, 7)).astype(np.float32)
    found = measured(lambda _image: logits, Size(16, 24), limit=1, protocol="labels")
    at_input = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size=(16, 24), mode="bilinear")
    expected = np.kron(at_input[0].argmax(0).numpy(), np.ones((2, 2), int))
    whole = Confusion(4)
    whole.add(Blocks().read("val", 0).labels, expected)
    assert (found.confusion.matrix == whole.matrix).all()
    assert found.protocol == "labels"
    other = measured(lambda _image: logits, Size(16, 24), limit=1)
    assert (found.confusion.matrix != other.confusion.matrix).any()


def test_the_picture_reaches_the_network_at_its_own_size():
    shapes = []

    def predict(image: np.ndarray) -> np.ndarray:
        shapes.append((image.shape, image.dtype))
        assert (image == resize_picture(Blocks().read("val", 0).image, Size(16, 24))).all()
        return np.zeros((4, 2, 3), np.float32)

    measured(predict, Size(16, 24), limit=1)
    assert shapes == [((16, 24, 3), np.uint8)]


def test_labels_are_taken_as_they_are():
    found = measured(lambda image: image[..., 0], gives="labels")
    assert found.protocol == "labels"
    assert found.confusion.mean_iou() == 1.0


def test_results_say_what_was_measured():
    found = measured(one_hot, limit=3)
    tree = json.loads(json.dumps(found.to_tree(), allow_nan=False))
    assert tree["network"]["digest"] == "d" * 64
    assert tree["network"]["weights"] == "by hand"
    assert tree["dataset"] == {
        "name": "blocks",
        "split": "val",
        "fingerprint": "f" * 64,
        "count": 3,
        "available": 7,
    }
    assert tree["resolution"] == "32x48"
    assert tree["protocol"] == {"name": "logits", "text": PROTOCOLS["logits"]}
    assert tree["mean_iou"] == tree["mean_boundary_iou"] == 1.0
    assert [row["name"] for row in tree["classes"]] == [f"class {label}" for label in range(4)]
    assert [row["name"] for row in tree["samples"]] == ["val/blocks_0", "val/blocks_2", "val/blocks_4"]
    assert Confusion.from_tree(tree["confusion"]).mean_iou() == 1.0


def test_a_split_without_labels_has_no_figures_and_no_crash():
    tree = measured(one_hot, split="unlabelled").to_tree()
    assert tree["mean_iou"] is None
    assert tree["pixel_accuracy"] is None
    assert {row["iou"] for row in tree["classes"]} == {None}


def test_watch_sees_every_sample_once_in_order():
    seen: list[Seen] = []
    measured(one_hot, watch=seen.append, limit=4)
    assert [(one.position, one.total, one.index) for one in seen] == [(0, 4, 0), (1, 4, 1), (2, 4, 3), (3, 4, 5)]
    assert all((one.prediction[2:] == one.sample.labels[2:]).all() and one.mean_iou == 1.0 for one in seen)


@pytest.mark.parametrize(
    ("available", "limit", "indices"),
    [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (10, 3, [0, 3, 6]), (500, 2, [0, 250]), (3, 1, [0])],
)
def test_limits_are_spread_over_the_split(available: int, limit: int | None, indices: list[int]):
    assert spread(available, limit) == indices


# --- refusals


def test_another_number_of_classes_is_refused_before_any_picture():
    predictor = Predictor(lambda _image: pytest.fail("ran"), subject(classes=5), Size(32, 48))
    with pytest.raises(UsageError, match=r"differ in their number of classes .got '4 classes .generic4.*5 classes"):
        evaluate(predictor, Blocks(), "val", dataset_name="blocks")


def test_missing_and_empty_splits_are_refused():
    with pytest.raises(UsageError, match="no such split"):
        measured(one_hot, split="nowhere")
    with pytest.raises(UsageError, match="split is empty"):
        measured(one_hot, split="empty")


@pytest.mark.parametrize(
    ("answer", "gives"),
    [
        (np.zeros((5, 32, 48), np.float32), "logits"),
        (np.zeros((4, 32, 48), np.int64), "logits"),
        (np.zeros((1, 4, 32, 48), np.float32), "logits"),
        (np.zeros((32, 48), np.float32), "labels"),
        (np.zeros((31, 48), np.uint8), "labels"),
        (np.full((32, 48), 256), "labels"),
        (np.full((32, 48), -1), "labels"),
    ],
)
def test_answers_of_the_wrong_kind_are_refused(answer: np.ndarray, gives: str):
    with pytest.raises(UsageError, match="not an answer of this network"):
        measured(lambda _image: answer, gives=gives)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_refused(value: float):
    logits = np.zeros((4, 8, 8), np.float32)
    logits[1, 2, 3] = value
    with pytest.raises(InputFileError, match="NaN or infinity"):
        measured(lambda _image: logits)


def test_labels_that_are_no_class_are_refused():
    with pytest.raises(UsageError, match=r"prediction: label out of range .got 4"):
        measured(lambda image: np.full(image.shape[:2], 4, np.uint8), gives="labels")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"protocol": "magic"}, "unknown protocol"),
        ({"limit": 0}, "nothing to evaluate"),
        ({"boundary_ratio": 0}, "ratio"),
    ],
)
def test_wrong_options_are_refused(options: dict, problem: str):
    with pytest.raises(UsageError, match=problem):
        measured(one_hot, **options)


def test_labels_cannot_follow_the_protocol_for_logits():
    with pytest.raises(UsageError, match="cannot be resized as logits"):
        measured(lambda image: image[..., 0], gives="labels", protocol="logits")


@pytest.mark.parametrize("device", ["tpu", "cuda:9"])
def test_unknown_devices_are_refused(device: str):
    with pytest.raises(UsageError, match="unknown device"):
        network_predictor(resolve(NETWORK), SIZE, device=device)


def test_a_size_that_the_network_does_not_take_is_refused():
    with pytest.raises(UsageError, match="does not take this size"):
        network_predictor(resolve(NETWORK), Size(63, 128))


# --- a network and its bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for io in ("raw", "labels"):
        export(Deployable(resolve(NETWORK), SIZE, io), folder / io)
    return {io: folder / io for io in ("raw", "labels")}


@pytest.mark.parametrize(("io", "protocol"), [("raw", "logits"), ("raw", "labels"), ("labels", "labels")])
def test_a_bundle_is_measured_as_its_network(bundles: dict[str, Path], io: str, protocol: str):
    dataset = open_dataset("streets", size=Size(128, 256))
    network = network_predictor(resolve(NETWORK), SIZE)
    bundle = bundle_predictor(bundles[io])
    image = dataset.read("val", 3).image
    maps = [predict_labels(predictor, image, Size(128, 256), protocol) for predictor in (network, bundle)]
    assert (maps[0] == maps[1]).all()
    assert len(np.unique(maps[0])) >= 10
    results = [
        evaluate(predictor, dataset, "val", dataset_name="streets", limit=2, protocol=protocol)
        for predictor in (network, bundle)
    ]
    assert (results[0].confusion.matrix == results[1].confusion.matrix).all()
    assert results[0].boundary.to_tree() == results[1].boundary.to_tree()
    assert results[0].subject.digest == results[1].subject.digest == resolve(NETWORK).digest
    assert results[0].subject.weights == results[1].subject.weights
    assert results[0].subject.runtime == "pytorch cpu"
    assert results[1].subject.runtime == f"onnxruntime cpu, bundle of contract {io}"


def test_a_labels_bundle_follows_the_labels_protocol(bundles: dict[str, Path]):
    assert bundle_predictor(bundles["labels"]).subject.gives == "labels"
    assert bundle_predictor(bundles["raw"]).subject.gives == "logits"
    assert is_bundle_argument(str(bundles["raw"]))
    assert not is_bundle_argument(NETWORK)


def test_weights_from_a_file_are_measured_and_named(tmp_path: Path):
    from safetensors.torch import save_file

    from searchkit.weights import seed_weights

    network = resolve(NETWORK)
    module = network.build()
    seed_weights(module, seed=3, size_rule=network.size_rule)
    save_file(module.state_dict(), tmp_path / "w.safetensors", metadata={"digest": network.digest})
    dataset = open_dataset("streets", size=SIZE)
    results = [
        evaluate(network_predictor(network, SIZE, **how), dataset, "val", dataset_name="streets", limit=1)
        for how in ({"weights": tmp_path / "w.safetensors"}, {"seed": 3}, {"seed": 0})
    ]
    matrices = [result.confusion.matrix for result in results]
    assert (matrices[0] == matrices[1]).all()
    assert (matrices[0] != matrices[2]).any()
    assert [result.subject.trained for result in results] == [True, False, False]
    assert "SHA-256" in results[0].subject.weights


# --- the command

FLAGS = ["--data", "streets", "--data-size", "64x128", "--resolution", "64x128", "--limit", "3"]


def command(*words: object) -> int:
    return run(app, ["evaluate", *map(str, words)])


def test_the_command_prints_a_table_and_writes_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = {name: tmp_path / f"{name}.png" for name in ("confusion", "sheet")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    submission = tmp_path / "submission"
    assert command(NETWORK, *FLAGS, "--json", tmp_path / "a.json", *options, "--submission", submission) == 0
    printed = capsys.readouterr()
    tree = json.loads((tmp_path / "a.json").read_text())
    assert "untrained" in printed.err
    rows = re.findall(r"^(\S.*?) {2,}(\S+) +(\S+) +(\S+) *$", printed.out, re.MULTILINE)
    found = {name: values for name, *values in rows}
    for row in tree["classes"]:
        expected = [row["iou"], row["boundary_iou"], row["share_of_pixels"]]
        assert found[row["name"]] == ["-" if value is None else f"{100 * value:.2f}" for value in expected]
    assert f"{100 * tree['mean_iou']:.2f}" in printed.out
    assert PROTOCOLS["logits"] in printed.out
    assert tree["network"]["digest"][:12] in printed.out
    assert "3 of 500 pictures" in printed.out
    names = sorted(path.name for path in submission.iterdir())
    assert names == sorted(file_name(row["name"]) for row in tree["samples"])
    written = np.asarray(Image.open(submission / names[0]))
    assert written.shape == (64, 128)
    assert set(np.unique(written)) <= set(label_ids(np.arange(19, dtype=np.uint8)).tolist())
    for path in files.values():
        with Image.open(path) as picture:
            assert min(picture.size) > 400


def test_the_command_is_deterministic(tmp_path: Path):
    for name in ("a", "b"):
        assert command(NETWORK, *FLAGS, "--json", tmp_path / name) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_command_takes_a_bundle_at_its_own_size(bundles: dict[str, Path], tmp_path: Path):
    flags = ["--data", "streets", "--data-size", "64x128", "--limit", "1"]
    assert command(bundles["labels"], *flags, "--json", tmp_path / "bundle") == 0
    assert command(NETWORK, *flags, "--resolution", SIZE, "--protocol", "labels", "--json", tmp_path / "network") == 0
    trees = [json.loads((tmp_path / name).read_text()) for name in ("bundle", "network")]
    assert trees[0]["resolution"] == "64x128"
    assert trees[0]["confusion"] == trees[1]["confusion"]


def test_threads_reach_torch_and_are_put_back(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    seen: list[int] = []
    real = evaluation.network_predictor

    def recording(*arguments, **options) -> Predictor:
        predictor = real(*arguments, **options)

        def predict(image: np.ndarray) -> np.ndarray:
            seen.append(torch.get_num_threads())
            return predictor.predict(image)

        return dataclasses.replace(predictor, predict=predict)

    monkeypatch.setattr(evaluation, "network_predictor", recording)
    assert command(NETWORK, *FLAGS, "--threads", before + 2) == 0
    assert seen == [before + 2] * 3
    assert torch.get_num_threads() == before
    assert command(NETWORK, *FLAGS) == 0
    assert seen[3:] == [before] * 3
    with pytest.raises(ZeroDivisionError), evaluation.torch_threads(before + 2):
        _ = 1 / 0
    assert torch.get_num_threads() == before


def test_threads_reach_onnx_runtime(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    real = onnxruntime.InferenceSession

    def recording(model: bytes, options: onnxruntime.SessionOptions, **more) -> onnxruntime.InferenceSession:
        seen.append(options.intra_op_num_threads)
        return real(model, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recording)
    flags = ["--data", "streets", "--data-size", "64x128", "--limit", "1"]
    before = torch.get_num_threads()
    assert command(bundles["labels"], *flags, "--threads", "3") == 0
    assert command(bundles["labels"], *flags) == 0
    assert seen == [3, 0]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([NETWORK, *FLAGS, "--threads", "0"], "--threads"),
        ([NETWORK, *FLAGS, "--split", "nowhere"], "no such split"),
        (["nowhere", *FLAGS], "unknown network"),
        ([NETWORK, "--data", "nowhere"], "unknown data set"),
        ([NETWORK, *FLAGS, "--resolution", "63x128"], "does not take this size"),
        ([NETWORK, *FLAGS, "--sheet", "a.jpg"], "pictures are written as PNG"),
        ([NETWORK, *FLAGS, "--protocol", "magic"], "unknown protocol"),
        (["BUNDLE", *FLAGS, "--weights", "w.safetensors"], "a bundle holds its own weights"),
        (["BUNDLE", *FLAGS[:4], "--resolution", "128x256"], "a bundle takes one size"),
        (["BUNDLE", *FLAGS, "--protocol", "logits"], "cannot be resized as logits"),
    ],
)
def test_the_command_refuses(
    words: list[str], problem: str, bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    assert command(*(bundles["labels"] if word == "BUNDLE" else word for word in words)) == 2
    assert problem in capsys.readouterr().err


def test_the_command_refuses_another_number_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "ten.json").write_text(resolve(NETWORK).with_classes(10).to_json())
    assert command(tmp_path / "ten.json", *FLAGS) == 2
    assert "differ in their number of classes" in capsys.readouterr().err


def test_help_and_refusals_do_not_wait_for_torch():
    code = "import sys, searchkit.cli; sys.exit(len({'torch', 'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    refused = (
        "import sys; from searchkit.cli import app; from searchkit.console import run; "
        "code = run(app, ['evaluate', 'ssr', '--data', 'streets', '--split', 'nowhere']); "
        "sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", refused], env=environment, capture_output=True)
    assert done.returncode == 2, done.stderr


# --- Cityscapes' folder, the server's folder


def test_a_submission_scores_the_same_by_the_official_script(tmp_path: Path):
    stems = [f"{city}_{n:06}_000019" for city in ("aachen", "ulm") for n in range(2)]
    rng = np.random.default_rng(1)
    for stem in stems:
        city = stem.split("_")[0]
        for kind, name in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            folder = tmp_path / "tree" / kind / "val" / city
            folder.mkdir(parents=True, exist_ok=True)
            blocks = np.kron(rng.integers(0, 34, (8, 16)), np.ones((8, 8), int)).astype(np.uint8)
            picture = np.repeat(blocks[..., None], 3, axis=2) if kind == "leftImg8bit" else blocks
            Image.fromarray(picture).save(folder / f"{stem}_{name}.png")
    dataset = open_dataset(f"cityscapes:{tmp_path / 'tree'}")
    submission = Submission(tmp_path / "results", dataset.labels)
    predictor = Predictor(
        lambda image: rng.standard_normal((19, 4, 8)).astype(np.float32) + 3 * (image[0, 0, 0] == 7),
        subject(classes=19),
        Size(32, 64),
    )
    found = evaluate(
        predictor,
        dataset,
        "val",
        dataset_name="cityscapes",
        watch=lambda seen: submission.add(seen.name, seen.prediction),
    )
    args = copy.copy(evalPixelLevelSemanticLabeling.args)
    args.evalInstLevelScore = args.JSONOutput = args.colorized = False
    args.quiet, args.predictionPath, args.predictionWalk = True, str(tmp_path / "results"), None
    truths = sorted(str(path) for path in (tmp_path / "tree").rglob("*_gtFine_labelIds.png"))
    scores = evalPixelLevelSemanticLabeling.evaluateImgLists(
        [evalPixelLevelSemanticLabeling.getPrediction(args, truth) for truth in truths], truths, args
    )
    assert len(truths) == found.count == 4
    for name, iou in zip(CITYSCAPES_19.names, found.confusion.iou(), strict=True):
        assert math.isnan(scores["classScores"][name]) if iou is None else abs(scores["classScores"][name] - iou) < 1e-9
    assert abs(scores["averageScoreClasses"] - found.confusion.mean_iou()) < 1e-9
    assert found.confusion.mean_iou() > 0


def test_submissions_that_the_server_would_misread_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="only Cityscapes' classes"):
        Submission(tmp_path / "a", generic_labels(11))
    (tmp_path / "old.png").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        Submission(tmp_path, CITYSCAPES_19)
    submission = Submission(tmp_path / "new", CITYSCAPES_19)
    submission.add("ulm/ulm_000000_000019", np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match="two samples have one name"):
        submission.add("other/ulm_000000_000019", np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match="label out of range"):
        submission.add("ulm/ulm_000001_000019", np.full((2, 2), 19, np.uint8))
    assert file_name("ulm/ulm_000000_000019_leftImg8bit") == "ulm_000000_000019_pred_labelIds.png"


# --- pictures


def test_the_sheet_keeps_the_worst_and_the_best():
    dataset = Blocks()
    sheet = Sheet(dataset.labels, count=2)
    for position, score in enumerate([0.5, 0.9, None, 0.1, 0.7, 0.3, 0.8]):
        sample = dataset.read("val", position)
        sheet.add(Seen(position, 7, position, f"s{position}", sample, sample.image[..., 0], score))
    assert sheet.positions() == ([3, 5], [1, 6])
    picture = sheet.draw()
    assert picture.dtype == np.uint8
    # 512 px a tile, four a row; errors are red nowhere, as every prediction is right.
    assert picture.shape[1] == 4 * 512 + 5 * 14
    assert not (picture == (214, 39, 40)).all(-1).any()


def test_the_sheet_shows_no_sample_twice_and_marks_errors():
    dataset = Blocks()
    sheet = Sheet(dataset.labels, count=3)
    sample = dataset.read("val", 0)
    for position in range(4):
        sheet.add(Seen(position, 4, position, f"s{position}", sample, 3 - sample.image[..., 0], 0.1 * position))
    assert sheet.positions() == ([0, 1, 2], [3])
    assert (sheet.draw() == (214, 39, 40)).all(-1).any()
    assert Sheet(dataset.labels).draw().size


def test_the_confusion_picture_colours_rows():
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 0, 0, 1]]), np.array([[0, 0, 0, 2, 1]]))
    picture = draw_confusion(confusion, ("road", "a class with a long name", "sky"))
    # Cells are 44 px, the margin 14; a corner of a cell holds no text. Depth is the root of the share.
    cells = picture[-14 - 3 * 44 :, -14 - 3 * 44 :]
    colours = [[tuple(map(int, cells[44 * row + 5, 44 * column + 5])) for column in range(3)] for row in range(3)]
    white, dark = (255, 255, 255), (8, 48, 107)
    most, quarter = (41, 76, 127), (132, 152, 181)
    assert colours == [[most, white, quarter], [white, dark, white], [white, white, white]]


def test_the_confusion_picture_is_as_wide_as_its_title():
    short, long = (draw_confusion(Confusion(2), ("a", "b"), title="t" * count).shape for count in (1, 200))
    assert long[1] > short[1] + 500
    assert long[0] == short[0]
