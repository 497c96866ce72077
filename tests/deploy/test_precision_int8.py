"""Int8 by its whole path: the model and its record, which layers stay float, and what float16 leaves of the rest."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime import create_session
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.precision.calibration import Calibration, calibrate
from deploy.precision.conversion import convert
from deploy.precision.int8 import fewest_kept
from deploy.precision.qdq import LARGEST, find_layers, range_sources
from deploy.precision.sensitivity import sensitivities
from deploy.precision.source import Source
from deploy.verify import verify
from searchkit.data import Dataset, Sample, streets
from searchkit.data.streets import Streets
from searchkit.errors import UsageError, VerificationError
from searchkit.files import sha256_bytes
from searchkit.label_sets import generic_labels
from searchkit.sizes import Size

SIZE = Size(16, 24)
FLOAT, HALF, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8
RAW = CONTRACTS.load("raw")


def network(nodes, constants):
    """A float32 model: `image` 1 x 3 x 16 x 24 in, `logits` out."""
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("image", FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("logits", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs, [output], name=f"{output}.node", **attributes)


def conv(source, weights, output):
    return node("Conv", [source, weights], output)


def picture(index=0):
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def batches(count=3):
    return [RAW.encode(picture(index)) for index in range(count)]


def run(data, batch, *, optimise=False):
    session = create_session(data, device="cpu", optimise=optimise)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


class Parts:
    """A model taken apart: nodes by kind, constants and types by name."""

    def __init__(self, data):
        self.proto = onnx.load_from_string(data)
        graph = self.proto.graph
        self.nodes = list(graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.types = {t.name: t.data_type for t in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        self.by_output = {name: n for n in self.nodes for name in n.output}

    def of(self, *operators):
        return [n for n in self.nodes if n.op_type in operators]


def outlier():
    """`decide` reads a tensor whose one channel is a thousand times the others, and needs those: int8 ruins it."""
    return network(
        [
            conv("image", "spread.weight", "a"),
            conv("a", "decide.weight", "b"),
            conv("b", "last.weight", "logits"),
        ],
        {
            "spread.weight": np.diag([1000, 1, 1]).astype(np.float32).reshape(3, 3, 1, 1),
            "decide.weight": np.array([[0, 1, -1], [0, -1, 1]], np.float32).reshape(2, 3, 1, 1),
            "last.weight": np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1),
        },
    )


def gentle():
    """Three channels of the same size through two convolutions: int8 costs little."""
    draw = np.random.default_rng(0).normal
    constants = {"v": draw(0, 0.3, (4, 3, 1, 1)).astype(np.float32), "w": draw(0, 0.3, (2, 4, 1, 1)).astype(np.float32)}
    return network([conv("image", "v", "a"), node("Relu", ["a"], "r"), conv("r", "w", "logits")], constants)


def single():
    """One convolution; its two classes are the second and the third colour, whichever is larger."""
    weights = np.array([[0, 1, 0], [0, 0, 1]], np.float32).reshape(2, 3, 1, 1)
    return network([conv("image", "only.weight", "logits")], {"only.weight": weights})


class Echo(Dataset):
    """Noise whose true labels are what a float32 model answers, so that its mIoU is 1."""

    kind = "echo"

    def __init__(self, data, classes=2, splits=("train", "val")):
        self._data, self._splits = data, splits
        self.labels = generic_labels(classes)

    def splits(self):
        return self._splits

    def count(self, split):
        return 4

    def name(self, split, index):
        return f"{split}-{index}"

    def read(self, split, index):
        image = picture(10 * self._splits.index(split) + index)
        labels = RAW.labels(run(self._data, RAW.encode(image)), SIZE)[0]
        return Sample(image, labels.astype(np.uint8))

    def fingerprint(self, split):
        return "0" * 64

    def check(self):
        return iter(())


def source(data, *, trained=True):
    return Source(data, RAW, SIZE, 2, trained)


def converted(data, *, trained=True, **settings):
    return convert(source(data, trained=trained), "int8", Calibration(Echo(data), **settings))


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def tiny_int8(request, tiny_network):
    """The tiny network in int8, made by the whole path, and the precision of its rest."""
    size = Size(64, 96)
    calibration = Calibration(Streets(size), method="minmax", pictures=2, rest=request.param)
    return Deployable(tiny_network(), size, "labels", precision="int8", calibration=calibration), request.param


def test_every_pair_is_symmetric_int8(tiny_int8):
    """What TensorRT's parser takes: zero-points that are written out, int8 and 0, and scales that are positive."""
    parts = Parts(tiny_int8[0].onnx)
    pairs = parts.of("QuantizeLinear", "DequantizeLinear")
    assert len(parts.of("QuantizeLinear")) > 3
    for pair in pairs:
        _, step, zero = pair.input
        assert parts.types[zero] == INT8
        assert not parts.constants[zero].any()
        assert (parts.constants[step] > 0).all()
        assert np.isfinite(parts.constants[step]).all()
        assert parts.constants[step].shape == parts.constants[zero].shape
        assert INT8 in (parts.types[pair.input[0]], parts.types[pair.output[0]])


def test_weights_have_a_scale_a_channel_and_biases_stay_float(tiny_int8):
    model, rest = tiny_int8
    parts, wanted = Parts(model.onnx), HALF if rest == "fp16" else FLOAT
    convolutions = parts.of("Conv")
    assert len(convolutions) == model.precision_record["layers"] > 3
    for convolution in convolutions:
        data, weights, *bias = (parts.by_output.get(name) for name in convolution.input)
        assert data.op_type == weights.op_type == "DequantizeLinear"
        assert parts.by_output[data.input[0]].op_type == "QuantizeLinear"
        assert parts.constants[data.input[1]].shape == ()
        integers = parts.constants[weights.input[0]]
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() == LARGEST
        assert parts.constants[weights.input[1]].shape == integers.shape[:1]
        assert {a.name: a.i for a in weights.attribute} == {"axis": 0}
        # A constant, from no node.
        assert bias == [None] * len(bias)
        assert [parts.types[name] for name in convolution.input] == [wanted] * len(convolution.input)
    assert TensorProto.INT32 not in parts.types.values()


def test_it_is_a_checked_model_with_every_type_written(tiny_int8):
    model, rest = tiny_int8
    parts = Parts(model.onnx)
    onnx.checker.check_model(parts.proto, full_check=True)
    assert all(name in parts.types for n in parts.nodes for name in n.output)
    (opset,) = (entry.version for entry in parts.proto.opset_import if entry.domain == "")
    assert opset == (19 if rest == "fp16" else 18)
    for side in ("input", "output"):
        reference = getattr(onnx.load_from_string(model.onnx_fp32).graph, side)
        assert list(getattr(parts.proto.graph, side)) == list(reference)


def test_float16_is_all_that_the_rest_computes_in(tiny_int8):
    model, rest = tiny_int8
    parts = Parts(model.onnx)
    scales = {parts.types[pair.input[1]] for pair in parts.of("QuantizeLinear", "DequantizeLinear")}
    assert scales == {HALF if rest == "fp16" else FLOAT}
    assert (HALF in parts.types.values()) is (rest == "fp16")
    # What decides the labels is float32 in both.
    (decision,) = parts.of("ArgMax")
    assert parts.types[decision.input[0]] == FLOAT


def test_the_optimiser_changes_nothing_that_counts(tiny_int8):
    model, _ = tiny_int8
    report = verify(model, model.onnx)
    assert report.problems == []
    assert report.precision == "int8"
    assert report.optimiser_agreement >= 0.999
    batch = model.contract.encode(streets.draw(0, 5, model.size).image)
    off, on = (run(model.onnx, batch, optimise=optimise) for optimise in (False, True))
    assert (off == on).mean() > 0.99
    assert len(np.unique(off)) > 1


def test_the_record_is_of_this_model(tiny_int8):
    model, rest = tiny_int8
    record = model.precision_record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["schema"], record["precision"], record["rest"], record["method"]) == (1, "int8", rest, "minmax")
    assert record["model_sha256"] == sha256_bytes(model.onnx)
    assert record["ranges"]["pictures"] == 2
    assert (record["kept"], record["kept_fp32"]) == ([], [])
    assert (record["miou"], record["miou_unmeasured"]) == (None, "the weights are not trained")
    assert len(record["sensitivity"]) == record["layers"]
    metadata = {entry.key: entry.value for entry in Parts(model.onnx).proto.metadata_props}
    assert metadata["searchkit.precision"] == "int8"


def test_tensorrt_rtx_takes_it(tiny_int8):
    from deploy.backends import BACKENDS

    assert len(BACKENDS.load("tensorrt-rtx").build(tiny_int8[0], ["sm75", "sm86"]).data) > 10_000


# Which layers hurt, and which are kept.


def test_the_worst_layer_comes_first():
    data = outlier()
    layers = find_layers(data)
    thresholds = calibrate(data, range_sources(data, layers), batches(), "minmax")
    told = []
    rows = sensitivities(data, layers, thresholds, batches(), lambda *counts: told.append(counts))
    assert rows[0].layer.name == "decide"
    figures = [row.signal_to_noise_db for row in rows]
    assert figures == sorted(figures)
    assert figures[0] < 5 < 30 < figures[1]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_worst_layer_stays_float_until_the_drop_holds():
    found = converted(outlier(), method="minmax", max_miou_drop=5)
    record, parts = found.record, Parts(found.model)
    assert record["kept"] == ["decide"]
    assert [row["layer"] for row in record["sensitivity"] if row["kept"]] == ["decide"]
    assert [entry["kept"] for entry in record["miou"]["tried"]] == [0, 1]
    assert record["miou"]["tried"][0]["miou"] < 0.6
    assert record["miou"]["fp32"] == 1
    assert record["miou"]["converted"] == record["miou"]["tried"][1]["miou"] >= 0.95
    assert record["miou"]["drop_points"] == pytest.approx(100 * (1 - record["miou"]["converted"]))
    assert record["miou"]["drop_points"] <= record["miou"]["limit_points"] == 5
    assert [n.input[0] for n in parts.of("QuantizeLinear")] == ["image", "b"]
    assert list(parts.by_output["b"].input) == ["a", "decide.weight"]


def test_nothing_is_kept_where_the_drop_holds_anyway():
    found = converted(outlier(), method="minmax", max_miou_drop=100)
    assert found.record["kept"] == []
    assert [entry["kept"] for entry in found.record["miou"]["tried"]] == [0]


def test_without_a_limit_one_percent_of_the_miou_may_go():
    record = converted(gentle(), method="minmax").record
    assert record["miou"]["limit_points"] == pytest.approx(1.0)
    assert record["miou"]["drop_points"] <= 1


def test_a_drop_that_cannot_be_held_is_refused():
    with pytest.raises(VerificationError) as caught:
        converted(single(), method="minmax", max_miou_drop=0)
    assert "even with a single layer in int8" in str(caught.value)
    assert caught.value.allowed == "0 points"
    assert float(caught.value.got.split()[0]) > 0


def test_a_drop_that_cannot_be_measured_is_refused():
    with pytest.raises(UsageError, match="the weights are not trained"):
        converted(outlier(), trained=False, max_miou_drop=1)


def test_a_network_without_weights_has_nothing_for_int8():
    data = network([node("Relu", ["image"], "logits")], {})
    with pytest.raises(VerificationError, match="no layer that int8 could serve"):
        converted(data, trained=False)


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_the_same_bytes_every_time(rest):
    first, second = (converted(outlier(), method="entropy", max_miou_drop=5, rest=rest) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("needed", range(13))
def test_the_fewest_are_found_in_few_tries(needed):
    asked = []

    def passes(kept):
        asked.append(kept)
        return kept >= needed

    assert fewest_kept(passes, 12) == needed
    assert len(asked) == len(set(asked)) <= 9
    assert asked[0] == 0


@pytest.mark.parametrize("most", [0, 1, 5])
def test_no_number_is_enough(most):
    assert fewest_kept(lambda kept: False, most) is None


def test_what_was_found_has_passed_even_where_more_would_hurt():
    assert fewest_kept(lambda kept: kept in (4, 9), 12) == 4


# The rest in float16.


def overflowing():
    """The sum behind `big` reaches 7e5, which float16 does not hold; int8 with a large step does."""
    return network(
        [
            conv("image", "first.weight", "a"),
            conv("a", "big.weight", "b"),
            conv("b", "small.weight", "c"),
            conv("c", "last.weight", "logits"),
        ],
        {
            "first.weight": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
            "big.weight": 3e4 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
            "small.weight": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) / 3e4,
            "last.weight": np.array([[0, 1, 0], [0, 0, 1]], np.float32).reshape(2, 3, 1, 1),
        },
    )


def test_what_overflows_stays_float32_and_is_recorded():
    data = overflowing()
    found = converted(data, method="minmax", rest="fp16", max_miou_drop=5)
    parts = Parts(found.model)
    spoiled = {row["node"] for row in found.record["kept_fp32"]}
    assert {"b.node", "c.node", "b.quantise", "b.dequantise"} <= spoiled
    assert "logits.node" not in spoiled
    assert all(row["why"] for row in found.record["kept_fp32"])
    assert [parts.types[name] for name in parts.by_output["b"].input] == [FLOAT, FLOAT]
    assert parts.types["b"] == FLOAT
    assert parts.types["a.fp16"] == HALF
    for batch in batches(2):
        wanted = run(data, batch)
        for optimise in (False, True):
            np.testing.assert_allclose(run(found.model, batch, optimise=optimise), wanted, atol=0.1)


def test_no_cast_stands_between_a_float32_layer_and_its_int8():
    """`b` is float32 for its output's sake; a Cast behind its DequantizeLinear would hide that it is int8."""
    parts = Parts(converted(overflowing(), method="minmax", rest="fp16", max_miou_drop=5).model)
    for output in ("b", "c"):
        assert {parts.by_output[name].op_type for name in parts.by_output[output].input} == {"DequantizeLinear"}


def test_kept_layers_are_float16():
    found = converted(outlier(), method="minmax", rest="fp16", max_miou_drop=5)
    parts = Parts(found.model)
    (decide,) = (n for n in parts.of("Conv") if n.name == "b.node")
    assert {parts.types[name] for name in (*decide.input, *decide.output)} == {HALF}
    assert "decide.weight.fp16" in decide.input


def test_a_consumer_of_old_opsets_gets_no_float16_scales():
    apollo = CONTRACTS.load("apollo")
    data = outlier()
    with pytest.raises(UsageError, match="needs opset 19"):
        convert(Source(data, apollo, SIZE, 2, False), "int8", Calibration(Echo(data), rest="fp16"))
