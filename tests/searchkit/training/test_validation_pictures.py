"""The sheet of a validation, and what TensorBoard is told; TensorBoard itself need not be installed."""

from __future__ import annotations

import sys
import types
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from searchkit.data import Sample, streets
from searchkit.label_sets import CITYSCAPES_19, LabelSet, generic_labels
from searchkit.pictures import read_picture
from searchkit.sizes import Size
from searchkit.training import history
from searchkit.training.metrics import Confusion
from searchkit.training.plots import draw_plots
from searchkit.training.recipe import parse_recipe
from searchkit.training.run_folder import RunFolder
from searchkit.training.train import Job, Trainer
from searchkit.training.validation_pictures import ValidationPictures

SIZE = Size(32, 64)
RECIPE = {
    "validate_every": 2,
    "stages": [
        {
            "loss_at": "full",
            "batch": 2,
            "steps": 4,
            "loss": {"type": "cross_entropy"},
            "optimiser": {"name": "adam", "lr": 5e-3},
            "schedule": {"type": "poly"},
        }
    ],
}
LABELS = LabelSet("own", tuple(f"own {label}" for label in range(19)), CITYSCAPES_19.palette)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [streets.draw(0, index, SIZE) for index in range(4)]


@pytest.fixture
def trainer(samples, tiny_network):
    """`trainer(folder, listener=...)` trains a tiny network for four steps, with a validation after every second."""
    job = Job(
        network=tiny_network(classes=19),
        recipe=parse_recipe(RECIPE, where="test"),
        resolution=SIZE,
        seed=3,
        train=samples,
        validation=samples,
        identity="f" * 64,
        device=torch.device("cpu"),
    )
    return lambda folder, **more: Trainer(job, folder, **more)


def tile(sheet, row, column):
    """One tile of a sheet, of 512 x 256 px, back at 64 x 32: each pixel has become 8 x 8."""
    # Title 38 px, heads 29; a row is its name of 29, the tile of 256 and a margin of 14.
    top, left = 38 + 29 + row * (29 + 256 + 14) + 29, 14 + column * (512 + 14)
    return sheet[top + 4 : top + 256 : 8, left + 4 : left + 512 : 8]


def test_a_row_is_a_picture_its_truth_and_its_prediction(samples):
    pictures = ValidationPictures(2)
    predictions = [np.full((32, 64), label, np.uint8) for label in (3, 8)]
    for index in (1, 0):
        pictures.add(index, samples[index], predictions[index])
    truth = samples[0].labels.copy()
    truth[:5] = 255
    pictures.add(0, Sample(samples[0].image, truth), predictions[0])
    sheet = pictures.draw(CITYSCAPES_19, "step 7")
    assert sheet.shape[1] == 3 * 512 + 4 * 14
    for row, labels in enumerate((truth, samples[1].labels)):
        assert np.array_equal(tile(sheet, row, 0), samples[row].image)
        assert np.array_equal(tile(sheet, row, 1), CITYSCAPES_19.colour(labels))
        assert np.array_equal(tile(sheet, row, 2), CITYSCAPES_19.colour(predictions[row]))
    assert (tile(sheet, 0, 1)[:5] == 0).all()


def test_the_samples_are_the_same_few_every_time_and_spread(samples):
    for available, wanted in ((1, {0}), (3, {0, 1, 2}), (500, {0, 166, 333})):
        pictures = ValidationPictures(available)
        for index in range(available):
            pictures.add(index, samples[0], np.zeros((32, 64), np.uint8))
        assert set(pictures._seen) == wanted


def test_a_wide_legend_and_a_narrow_picture_fit(samples):
    labels = generic_labels(100)
    pictures = ValidationPictures(1)
    pictures.add(0, Sample(samples[0].image[:, :3], np.zeros((32, 3), np.uint8)), np.ones((32, 3), np.uint8))
    assert pictures.draw(labels, "t" * 400).shape[1] > 3 * 512 + 4 * 14


def test_a_run_draws_what_it_logs(trainer, samples, tmp_path):
    seen = []
    folder = RunFolder(tmp_path, labels=LABELS)
    run = trainer(folder, listener=lambda _: seen.append(sorted(p.name for p in tmp_path.glob("*.*g"))))
    run.run()
    rows = history.read(tmp_path / "history.jsonl")
    assert (tmp_path / "plots.svg").read_text() == draw_plots(rows, LABELS)
    assert "own 7" in (tmp_path / "plots.svg").read_text()
    # After two steps came a validation, at which both were drawn.
    assert seen == [[], [], ["plots.svg", "validation.png"], ["plots.svg", "validation.png"]]
    sheet = read_picture(tmp_path / "validation.png")
    predictions = {}
    run.validate(lambda index, _sample, prediction: predictions.setdefault(index, prediction))
    assert sorted(predictions) == [0, 1, 2, 3]
    for row, index in enumerate((0, 1, 2)):
        assert np.array_equal(tile(sheet, row, 0), samples[index].image)
        assert np.array_equal(tile(sheet, row, 2), CITYSCAPES_19.colour(predictions[index]))


def test_a_run_that_is_stopped_draws_what_it_has(trainer, tmp_path):
    trainer(RunFolder(tmp_path), stopping=lambda: True).run()
    assert ElementTree.fromstring((tmp_path / "plots.svg").read_text()) is not None
    assert not (tmp_path / "validation.png").exists()


def test_a_validation_without_a_labelled_pixel(samples, tmp_path):
    pictures, confusion = ValidationPictures(1), Confusion(19)
    pictures.add(0, Sample(samples[0].image, np.full((32, 64), 255, np.uint8)), np.zeros((32, 64), np.uint8))
    RunFolder(tmp_path).log_validation(5, 0, confusion, pictures)
    assert history.read(tmp_path / "history.jsonl") == [{"step": 5, "stage": 0, "miou": None, "iou": [None] * 19}]
    assert (tile(read_picture(tmp_path / "validation.png"), 0, 1) == 0).all()


class Writer:
    """Stands for TensorBoard's SummaryWriter, and takes only what that takes."""

    made: ClassVar[list] = []

    def __init__(self, log_dir=None, comment="", purge_step=None, max_queue=10, flush_secs=120, filename_suffix=""):
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars, self.pictures, self.closed = {}, {}, False
        Writer.made.append(self)

    def add_scalar(self, tag, scalar_value, global_step=None):
        assert isinstance(scalar_value, float)
        self.scalars[tag, global_step] = scalar_value

    def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
        assert dataformats == "HWC"
        assert img_tensor.dtype == np.uint8
        self.pictures[tag, global_step] = img_tensor

    def close(self):
        self.closed = True


@pytest.fixture
def tensorboard(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_tensorboard_is_told_everything(trainer, tmp_path, tensorboard):
    folder = RunFolder(tmp_path, tensorboard=True, labels=LABELS)
    trainer(folder).run()
    folder.close()
    (writer,) = tensorboard
    assert (writer.log_dir, writer.purge_step, writer.closed) == (str(tmp_path / "tensorboard"), None, True)
    expected = {}
    for row in history.read(tmp_path / "history.jsonl"):
        shares = {f"iou/own {label}": share for label, share in enumerate(row.pop("iou", []))}
        values = {name: value for name, value in (row | shares).items() if name not in ("step", "stage")}
        expected |= {(name, row["step"]): value for name, value in values.items() if value is not None}
    assert writer.scalars == expected
    names = {name for name, _ in writer.scalars}
    assert {"lr", "loss", "gradient_norm", "miou", "iou/own 0"} <= names
    assert sorted(writer.pictures) == [("validation", 2), ("validation", 4)]
    assert np.array_equal(writer.pictures["validation", 4], read_picture(tmp_path / "validation.png"))


def test_tensorboard_forgets_what_a_resumed_run_tells_again(trainer, tmp_path, tensorboard):
    steps = []
    stopped = trainer(RunFolder(tmp_path, tensorboard=True), listener=steps.append, stopping=lambda: len(steps) == 3)
    stopped.run()
    resumed = trainer(RunFolder(tmp_path, tensorboard=True))
    resumed.resume()
    resumed.run()
    assert [writer.purge_step for writer in tensorboard] == [None, 4]


def test_without_tensorboard_only_its_folder_is_missing(trainer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = RunFolder(tmp_path, tensorboard=True)
    assert trainer(folder).run().finished
    folder.close()
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "validation.png").exists()
