"""What a converted model is worth: mIoU, what stands against measuring it, and noise of the logits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.contracts import CONTRACTS
from deploy.precision import quality
from deploy.precision.calibration import Calibration
from deploy.precision.conversion import MAX_FP16_DROP, convert
from deploy.precision.quality import Meter, centred_logits, mean_iou, signal_to_noise_db
from deploy.precision.samples import Samples
from deploy.precision.source import Source
from searchkit.data import Dataset, Sample
from searchkit.errors import UsageError
from searchkit.label_sets import generic_labels
from searchkit.sizes import Size

SIZE = Size(8, 12)
RAW = CONTRACTS.load("raw")


def model(rows):
    """A 1x1 convolution: each row the weights of a class over red, green and blue."""
    weights = np.array(rows, np.float32).reshape(-1, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"], name="c")],
        "hand-made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(rows), *SIZE])],
        [numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return proto.SerializeToString()


#: The class is the strongest colour.
COLOUR = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
#: Blue is taken for red.
NO_BLUE = [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


class Stripes(Dataset):
    """Pure red, green and blue columns, a third each; the labels at twice the size, a row of them ignored."""

    kind = "stripes"

    def __init__(self, classes=3, splits=("train", "val"), wrong=False):
        self._splits, self._wrong = splits, wrong
        self.labels = generic_labels(classes)

    def splits(self):
        return self._splits

    def count(self, split):
        return 2

    def name(self, split, index):
        return f"{split}-{index}"

    def read(self, split, index):
        columns = np.repeat([0, 1, 2], 4)
        image = np.zeros((*SIZE, 3), np.uint8)
        image[:, np.arange(12), columns] = 255
        labels = np.tile(np.repeat(columns, 2), (16, 1)).astype(np.uint8)
        if self._wrong:
            labels[:8] = 0
        labels[0] = 255
        return Sample(image, labels)

    def fingerprint(self, split):
        return "f" * 64

    def check(self):
        return iter(())


def source(rows=COLOUR, *, trained=True):
    return Source(model(rows), RAW, SIZE, len(rows), trained)


def measured(rows, dataset=None, told=None):
    samples = Samples(dataset or Stripes(), "val", range(2), SIZE)
    return mean_iou(model(rows), RAW, samples, len(rows), lambda *n: told.append(n) if told is not None else None)


def test_a_perfect_model_has_one():
    told = []
    assert measured(COLOUR, told=told) == 1
    assert told == [(1, 2), (2, 2)]


def test_a_miou_by_hand():
    """Blue columns become red: red 1/2, green 1, blue 0. Ignored pixels count nowhere."""
    assert measured(NO_BLUE) == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_a_miou_against_wrong_labels_by_hand():
    """7 of 15 counted rows are labelled red throughout: 8 columns of them are no longer green or blue."""
    found = measured(COLOUR, Stripes(wrong=True))
    unit = 8
    red = 15 * unit / (15 * unit + 7 * 2 * unit)
    other = 8 * unit / (15 * unit)
    assert found == pytest.approx((red + 2 * other) / 3)


def test_labels_keep_their_own_size():
    """16 x 24 labels against a model of 8 x 12: the prediction is enlarged, the truth is not touched."""
    assert measured(COLOUR) == 1
    assert Stripes().read("val", 0).labels.shape == (16, 24)


def test_a_meter_measures_float32_once(monkeypatch):
    sessions = []
    create = quality.create_session
    monkeypatch.setattr(quality, "create_session", lambda *a, **k: sessions.append(k) or create(*a, **k))
    meter = Meter(source(), Calibration(Stripes()))
    assert meter.unmeasured == ""
    assert sessions == []
    assert meter.reference == meter.reference == 1
    assert sessions == [{"device": "cpu"}]
    found = meter.of(model(NO_BLUE))
    assert found < 1
    assert meter.drop_points(found) == pytest.approx(100 * (1 - found))
    assert meter.drop_points(1.0) == 0
    assert len(sessions) == 2


def test_the_record_of_a_meter():
    meter = Meter(source(), Calibration(Stripes()))
    tree = meter.tree(0.75, 0.5)
    assert json.loads(json.dumps(tree)) == tree
    assert tree == {
        "dataset": "stripes",
        "split": "val",
        "fingerprint": "f" * 64,
        "pictures": 2,
        "resolution": "8x12",
        "fp32": 1.0,
        "converted": 0.75,
        "drop_points": 25.0,
        "limit_points": 0.5,
    }


@pytest.mark.parametrize(
    ("dataset", "trained", "why"),
    [
        (Stripes(), False, "the weights are not trained"),
        (Stripes(classes=19), True, "stripes has 19 classes, the network 3"),
        (Stripes(splits=("train",)), True, "stripes has no split val"),
    ],
)
def test_what_stands_against_measuring(dataset, trained, why):
    assert Meter(source(trained=trained), Calibration(dataset)).unmeasured == why
    with pytest.raises(UsageError) as caught:
        Meter(source(trained=trained), Calibration(dataset, max_miou_drop=0.5))
    assert why in str(caught.value)
    assert caught.value.got == 0.5


def test_fp16_is_measured_where_there_is_a_calibration():
    found = convert(source(), "fp16", Calibration(Stripes()))
    miou = found.record["miou"]
    assert (miou["fp32"], miou["converted"], miou["drop_points"]) == (1, 1, 0)
    assert miou["limit_points"] == MAX_FP16_DROP == 0.1
    assert found.record["miou_unmeasured"] == ""
    assert convert(source(), "fp16", Calibration(Stripes(), max_miou_drop=0.3)).record["miou"]["limit_points"] == 0.3


def test_fp16_without_a_calibration_says_nothing_of_miou():
    record = convert(source(), "fp16", None).record
    assert "miou" not in record
    assert (record["precision"], record["kept"]) == ("fp16", [])


def test_fp16_that_cannot_be_measured_says_why():
    record = convert(source(trained=False), "fp16", Calibration(Stripes())).record
    assert (record["miou"], record["miou_unmeasured"]) == (None, "the weights are not trained")


# Noise.


def test_what_all_classes_share_decides_nothing():
    batch = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    (found,) = centred_logits(model(COLOUR), [batch])
    np.testing.assert_allclose(found, batch.astype(np.float64) - batch.mean(axis=1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float64
    shifted = [[row[0] + 5, row[1], row[2]] for row in COLOUR]
    (same,) = centred_logits(model(shifted), [batch])
    np.testing.assert_allclose(same, found, atol=1e-5)


def test_noise_in_decibels_by_hand():
    reference = [np.array([3.0, 4.0]), np.array([0.0, 5.0])]
    assert signal_to_noise_db(reference, [r * 1.1 for r in reference]) == pytest.approx(20)
    # 50 of energy over 0.5.
    assert signal_to_noise_db(reference, [reference[0], np.array([0.5, 5.5])]) == pytest.approx(20)


def test_noise_that_is_none_or_all():
    ones, zeros = [np.ones(3)], [np.zeros(3)]
    assert signal_to_noise_db(ones, ones) == math.inf
    assert signal_to_noise_db(zeros, zeros) == math.inf
    assert signal_to_noise_db(zeros, ones) == -math.inf


def test_as_many_answers_as_references():
    with pytest.raises(ValueError, match="zip"):
        signal_to_noise_db([np.ones(2)] * 2, [np.ones(2)])
