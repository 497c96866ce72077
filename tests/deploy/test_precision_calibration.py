"""Ranges of activations: the three methods, what they see, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.contracts import CONTRACTS
from deploy.precision import activations
from deploy.precision.activations import largest_magnitudes, observe
from deploy.precision.calibration import MIOU_PICTURES, Calibration, calibrate
from deploy.precision.conversion import magnitudes
from deploy.precision.samples import Batches, Samples
from deploy.precision.source import Source
from deploy.precision.thresholds import (
    BINS,
    LEVELS,
    METHODS,
    PERCENTILE,
    Histogram,
    entropy_bins,
    percentile_bins,
)
from searchkit.data import Dataset, Sample
from searchkit.data.streets import Streets
from searchkit.errors import UsageError, VerificationError
from searchkit.label_sets import generic_labels
from searchkit.sizes import Size

SIZE = Size(8, 12)


def model(weights=(2, 0, 0, -3)):
    """`x` 1 x 2 x 8 x 12 in, a 1x1 convolution `a`, its ReLU `y` out."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["a"], name="c"), helper.make_node("Relu", ["a"], ["y"], name="r")],
        "hand-made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, *SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(weights, np.float32).reshape(2, 2, 1, 1), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return proto.SerializeToString()


def batches(count=3):
    return [np.random.default_rng(i).normal(0, 1 + i, (1, 2, *SIZE)).astype(np.float32) for i in range(count)]


def tensors(batch):
    """All activations of `model`, by hand."""
    a = batch * np.array([2, -3], np.float32).reshape(1, 2, 1, 1)
    return {"x": batch, "a": a, "y": np.maximum(a, 0)}


def histogram(values, pieces=1):
    found = Histogram(float(np.abs(values).max()))
    for piece in np.array_split(values, pieces):
        found.add(piece)
    return found


# Histograms.


def test_counts_are_those_of_numpy_with_zeros_apart():
    values = np.concatenate([np.random.default_rng(0).normal(size=5000), np.zeros(300)]).astype(np.float32)
    found = histogram(values)
    largest = float(np.abs(values).max())
    wanted, _ = np.histogram(np.abs(values[values != 0]), bins=BINS, range=(0, largest))
    assert found.zeros == 300
    assert found.counts.sum() == 5000
    # A value within rounding of an edge may be on either side of it.
    assert np.abs(found.counts - wanted).sum() <= 4
    assert found.counts[-1] == wanted[-1] >= 1


def test_values_come_in_pieces_of_any_shape():
    values = np.random.default_rng(1).normal(size=4096).astype(np.float32)
    whole, parts = histogram(values), histogram(values.reshape(2, 8, 16, 16), pieces=2)
    assert (whole.counts == parts.counts).all()
    assert whole.largest == parts.largest


def test_the_largest_value_is_in_the_last_bin():
    for largest in (1e-30, 0.1, 3.0, 1e30):
        found = Histogram(float(np.float32(largest)))
        found.add(np.array([largest, -largest], np.float32))
        assert found.counts[-1] == 2


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_zeros_has_no_range(method):
    found = Histogram(0.0)
    found.add(np.zeros((2, 3), np.float32))
    assert found.threshold(method) == 0
    assert found.zeros == 6


# Each method.


def test_minmax_keeps_all():
    values = np.array([-7.5, 0, 3, 1e-3], np.float32)
    assert histogram(values).threshold("minmax") == 7.5


def test_percentile_against_numpy():
    values = np.random.default_rng(2).laplace(size=200_000).astype(np.float32)
    found = histogram(values)
    wanted = np.percentile(np.abs(values), PERCENTILE)
    assert PERCENTILE == 99.99
    assert wanted <= found.threshold("percentile") <= wanted + 2 * found.width
    assert found.threshold("percentile") < found.largest


def test_a_percentile_by_hand():
    counts = np.array([5, 0, 3, 1, 1])
    assert [percentile_bins(counts, 0, p) for p in (10, 50, 51, 80, 81, 90, 91, 100)] == [1, 1, 3, 3, 4, 4, 5, 5]
    # 90 zeros are values too: 94 % are reached within the first bin.
    assert [percentile_bins(counts, 90, p) for p in (50, 90, 95, 96, 98, 99, 100)] == [1, 1, 1, 3, 3, 4, 5]


def divergence(counts, bins, levels):
    """Kullback-Leibler divergence of `bins` bins quantised to `levels` from the saturated ones, bin by bin."""
    if not any(counts[:bins]):
        return math.inf
    p = [float(c) for c in counts[:bins]]
    p[-1] += float(sum(counts[bins:]))
    q = [0.0] * bins
    width = bins // levels
    for level in range(levels):
        start = level * width
        stop = bins if level == levels - 1 else start + width
        there = [i for i in range(start, stop) if p[i]]
        for i in there:
            q[i] = max(sum(float(counts[j]) for j in there) / len(there), 1e-4)
    total, quantised = sum(p), sum(q)
    return sum(pi / total * math.log((pi / total) / (qi / quantised)) for pi, qi in zip(p, q, strict=True) if pi)


def plain_entropy_bins(counts, levels):
    """The same search, without any vector."""
    found = {bins: divergence(counts, bins, levels) for bins in range(levels, len(counts) + 1)}
    return min(found, key=lambda bins: (found[bins], bins))


@pytest.mark.parametrize("seed", range(4))
def test_entropy_against_a_plain_search(seed):
    generator = np.random.default_rng(seed)
    draw = (generator.laplace, generator.normal, generator.exponential, generator.standard_cauchy)[seed]
    values = np.clip(np.abs(draw(size=3000)), 0, 40)
    counts, _ = np.histogram(values, bins=96)
    assert entropy_bins(counts, 8) == plain_entropy_bins(counts, 8)


def test_entropy_leaves_a_lone_outlier_out():
    """10,000 values around 1 and a single one of 100: min-max would leave the many two of its levels.

    All shorter ranges end in a gap, where nothing but the outlier comes.
    """
    values = np.append(np.random.default_rng(3).normal(0, 0.3, 10_000), 100.0).astype(np.float32)
    found = histogram(values)
    assert found.threshold("minmax") == 100
    assert entropy_bins(found.counts, LEVELS) == LEVELS


def test_entropy_keeps_many_of_the_largest():
    """As many at 10 as below 1: to saturate half of the values costs more than coarse levels do."""
    values = np.append(np.random.default_rng(3).uniform(0.1, 1, 500), np.full(500, 10.0)).astype(np.float32)
    assert histogram(values).threshold("entropy") == 10


def test_entropy_loses_nothing_with_a_level_a_bin():
    counts = np.random.default_rng(0).integers(1, 100, 64)
    assert entropy_bins(counts, 64) == 64
    assert entropy_bins(counts, 8) == plain_entropy_bins(counts, 8)


def test_entropy_never_saturates_everything():
    """All values in the last bin: a shorter range would hold none of them."""
    counts = np.zeros(64, np.int64)
    counts[-1] = 50
    assert entropy_bins(counts, 8) == 64


# From a model and pictures.


def test_what_is_observed_is_what_flows():
    data, given = model(), batches()
    seen = {}
    for name, values in observe(data, ["y", "x", "a"], given):
        seen.setdefault(name, []).append(values)
    for name, found in seen.items():
        for values, batch in zip(found, given, strict=True):
            np.testing.assert_allclose(values, tensors(batch)[name], rtol=1e-6, atol=1e-6)
    assert set(seen) == {"x", "a", "y"}


def test_large_models_run_in_parts(monkeypatch):
    """Room for one tensor at a time: the same figures, the pictures gone through once a tensor."""
    data, given = model(), batches()
    whole = largest_magnitudes(data, ["x", "a", "y"], given)
    monkeypatch.setattr(activations, "_MAX_BYTES", 4 * 2 * SIZE.height * SIZE.width)
    sessions = []
    create = activations.create_session
    monkeypatch.setattr(activations, "create_session", lambda *a, **k: sessions.append(k) or create(*a, **k))
    assert largest_magnitudes(data, ["x", "a", "y"], given) == whole
    assert sessions == [{"device": "cpu", "optimise": False}] * 2


def test_the_largest_magnitude_is_over_all_batches():
    given = batches()
    found = largest_magnitudes(model(), ["a", "y"], given)
    for name in ("a", "y"):
        wanted = max(np.abs(tensors(batch)[name]).max() for batch in given)
        assert found[name] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_of_a_model_are_those_of_all_its_values(method):
    given = batches()
    found = calibrate(model(), ["x", "a", "y"], given, method)
    for name in ("x", "a", "y"):
        values = np.concatenate([tensors(batch)[name].ravel() for batch in given])
        assert found[name] == pytest.approx(histogram(values).threshold(method), rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_always_zero(method):
    assert calibrate(model((-1, 0, 0, -1)), ["y"], [np.ones((1, 2, *SIZE), np.float32)], method) == {"y": 0.0}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(method, value):
    """In the middle of the pictures: what comes after must not hide it."""
    bad = batches()
    bad[1][0, 0, 3, 4] = value
    with pytest.raises(VerificationError, match="computes no numbers") as caught:
        calibrate(model(), ["x", "a"], bad, method)
    assert caught.value.where == "activation x"


# Pictures.


class Numbered(Dataset):
    """Picture `index` is filled with that number; every reading is noted."""

    kind = "numbered"

    def __init__(self, **counts):
        self.counts, self.reads = counts, []
        self.labels = generic_labels(3)

    def splits(self):
        return tuple(self.counts)

    def count(self, split):
        return self.counts[split]

    def name(self, split, index):
        return f"{split}-{index}"

    def read(self, split, index):
        self.reads.append((split, index))
        return Sample(np.full((16, 24, 3), index, np.uint8), np.zeros((16, 24), np.uint8))

    def fingerprint(self, split):
        return f"of {split}"

    def check(self):
        return iter(())


def test_pictures_are_spread_over_the_split():
    samples = Calibration(Numbered(train=100, val=5), pictures=4).samples(SIZE)
    assert list(samples.indices) == [0, 25, 50, 75]
    assert [sample.image[0, 0, 0] for sample in samples] == [0, 25, 50, 75]
    assert {sample.image.shape for sample in samples} == {(*SIZE, 3)}
    # Labels stay as they are stored: mIoU is of the true ones.
    assert {sample.labels.shape for sample in samples} == {(16, 24)}
    assert samples.described() == {
        "dataset": "numbered",
        "split": "train",
        "fingerprint": "of train",
        "pictures": 4,
        "resolution": "8x12",
    }


def test_no_more_pictures_than_there_are():
    calibration = Calibration(Numbered(train=3), pictures=64)
    assert list(calibration.samples(SIZE).indices) == [0, 1, 2]
    assert list(calibration.samples(SIZE, 2).indices) == [0, 1]
    assert len(Calibration(Numbered(train=100), pictures=3).samples(SIZE, 50)) == 3


def test_ranges_come_from_train_or_the_first_split():
    assert Calibration(Numbered(test=1, train=2)).split == "train"
    assert Calibration(Numbered(test=1, other=2)).split == "test"


def test_miou_is_measured_on_val():
    samples = Calibration(Numbered(train=1, val=1000)).miou_samples(SIZE)
    assert (samples.split, len(samples), list(samples.indices)[:3]) == ("val", MIOU_PICTURES, [0, 5, 10])
    assert Calibration(Numbered(train=1)).miou_samples(SIZE) is None
    assert Calibration(Numbered(train=1, val=0)).miou_samples(SIZE) is None


def test_pictures_are_read_once_while_they_fit(monkeypatch):
    dataset = Numbered(train=4)
    samples = Samples(dataset, "train", range(4), SIZE)
    first, second = ([s.image.tobytes() for s in samples] for _ in range(2))
    assert first == second
    assert len(dataset.reads) == 4
    one = 3 * SIZE.height * SIZE.width + 16 * 24
    monkeypatch.setattr("deploy.precision.samples._MAX_BYTES", 2 * one)
    dataset = Numbered(train=4)
    samples = Samples(dataset, "train", range(4), SIZE)
    assert [s.image.tobytes() for s in samples] == [s.image.tobytes() for s in samples] == first
    assert [index for _, index in dataset.reads] == [0, 1, 2, 3, 2, 3]


def test_batches_are_encoded_and_told():
    told = []
    contract = CONTRACTS.load("raw")
    given = Batches(contract, Samples(Numbered(train=2), "train", range(2), SIZE), lambda *n: told.append(n))
    for _ in range(2):
        found = list(given)
        assert [batch.shape for batch in found] == [(1, 3, *SIZE)] * 2
        np.testing.assert_array_equal(found[1], contract.encode(np.full((*SIZE, 3), 1, np.uint8)))
    assert told == [(1, 2), (2, 2)] * 2


def test_progress_is_told_by_name():
    told = []
    calibration = Calibration(Numbered(train=2), progress=lambda *n: told.append(n))
    calibration.tell("calibrating")(1, 2)
    assert told == [("calibrating", 1, 2)]
    assert Calibration(Numbered(train=2)).tell("calibrating")(1, 2) is None


def test_magnitudes_see_noise_as_well():
    """Dark pictures alone would say that no activation grows."""
    contract, size = CONTRACTS.load("raw"), Size(8, 12)
    data = onnx.load_from_string(model())
    data.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size]))
    weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    data.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    source = Source(data.SerializeToString(), contract, size, 3, False)
    dataset = Numbered(train=20)
    found = magnitudes(source, Calibration(dataset))
    assert set(found) == {"x", "a", "y"}
    # Pictures 0 to 17 of 255 are below -1.5 after normalisation; noise reaches white.
    assert found["y"] > 2
    assert len(dataset.reads) == 8
    assert magnitudes(source, None)["y"] > 2


# What is refused.


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "entropie"}, "entropy"),
        ({"method": ""}, "calibration method"),
        ({"rest": "fp8"}, "rest of an int8 model"),
        ({"pictures": 0}, "no picture to calibrate on"),
        ({"pictures": -1}, "no picture to calibrate on"),
        ({"max_miou_drop": -0.1}, "out of range"),
        ({"max_miou_drop": 100.1}, "out of range"),
        ({"max_miou_drop": float("nan")}, "out of range"),
        ({"max_miou_drop": float("inf")}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, text):
    with pytest.raises(UsageError, match=text):
        Calibration(Streets(SIZE), **settings)


@pytest.mark.parametrize("drop", [0, 0.5, 100, None])
def test_settings_that_make_sense(drop):
    assert Calibration(Streets(SIZE), max_miou_drop=drop).max_miou_drop == drop


def test_an_empty_split_is_refused():
    with pytest.raises(UsageError, match="no picture to calibrate on") as caught:
        Calibration(Numbered(train=0, val=3)).samples(SIZE)
    assert caught.value.where == "numbered, split train"
