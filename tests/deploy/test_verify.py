"""What `verify` lets pass, and that it sees every way of being another function."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy import verify as verification
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.limits import LIMITS, MAX_ABS_ERROR, MIN_CLASSES
from deploy.verify import Comparison, Report, verify
from searchkit.errors import UsageError, VerificationError
from searchkit.networks import resolve
from searchkit.sizes import Size

SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def made(tiny_network):
    """`made(io)`: the tiny network under a tensor contract, exported once."""
    models = {}

    def make(io):
        if io not in models:
            models[io] = Deployable(tiny_network(), SIZE, io)
        return models[io]

    return make


@pytest.fixture
def model(made):
    return made("raw")


def changed(model, change):
    """The exported model after `change` was applied to its graph."""
    proto = onnx.load_from_string(model.onnx)
    change(proto.graph)
    return proto.SerializeToString()


def change_values(name_part, change):
    def apply(graph):
        tensor = next(t for t in reversed(graph.initializer) if name_part in t.name)
        values = numpy_helper.to_array(tensor).copy()
        change(values)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return apply


@pytest.mark.parametrize("io", CONTRACTS.names())
def test_an_honest_export_passes(made, io):
    report = verify(made(io), made(io).onnx)
    assert report.passed
    assert report.problems == []
    assert [c.optimiser for c in report.comparisons] == [False, True]
    for comparison in report.comparisons:
        assert 0 <= comparison.mean_abs_error <= comparison.max_abs_error <= MAX_ABS_ERROR == 1e-4
        assert comparison.masked_agreement == 1
        assert comparison.masked_share > 0.9
        assert comparison.label_agreement > 0.999
        assert MIN_CLASSES <= comparison.classes_in_reference <= 5
    tree = report.to_tree()
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert (tree["schema"], tree["passed"], tree["pictures"]) == (1, True, 2)


@pytest.mark.parametrize("name", ["ssr", "erfnet"])
def test_published_networks_pass(exported, name):
    assert verify(exported(name), exported(name).onnx).passed


def problems_of(model, data):
    report = verify(model, data)
    assert not report.passed
    assert len(report.comparisons) == 2, "both states of the optimiser are held against PyTorch"
    return "; ".join(report.problems)


def test_one_changed_weight_is_seen(model):
    def change(values):
        values.flat[0] += 0.01

    problems = problems_of(model, changed(model, change_values("head.conv.weight", change)))
    assert "optimiser off: max abs error" in problems
    assert "optimiser on: max abs error" in problems
    assert "exceeds 0.0001" in problems


def test_two_exchanged_classes_are_seen(model):
    def change(values):
        values[[1, 3]] = values[[3, 1]]

    problems = problems_of(model, changed(model, change_values("head.conv.weight", change)))
    assert "of clear pixels, not on all" in problems


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_seen(model, value):
    def change(values):
        values.flat[0] = value

    assert "max abs error" in problems_of(model, changed(model, change_values("head.conv.weight", change)))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_network_that_answers_with_nan_agrees_with_nothing_not_even_itself(tiny_network):
    model = Deployable(tiny_network(), SIZE, "raw")
    with torch.no_grad():
        model.module.head.conv.weight.fill_(float("nan"))
    assert "max abs error nan exceeds" in problems_of(model, model.onnx)


@pytest.mark.parametrize("io", ["logits", "labels"])
def test_the_wrong_kind_of_resize_is_seen(made, io):
    def change(graph):
        (resize,) = (node for node in graph.node if node.op_type == "Resize")
        (mode,) = (a for a in resize.attribute if a.name == "coordinate_transformation_mode")
        assert mode.s in (b"half_pixel", b"pytorch_half_pixel")
        mode.s = b"align_corners"

    problems = problems_of(made(io), changed(made(io), change))
    assert "max abs error" in problems
    assert "labels agree on" in problems


def test_labels_are_compared_behind_the_arg_max_as_well(made):
    """Right logits, wrong labels: arg-min in place of arg-max, beside an arg-max that nothing reads."""

    def change(graph):
        (best,) = (node for node in graph.node if node.op_type == "ArgMax")
        idle = copy.deepcopy(best)
        idle.name = idle.output[0] = "idle"
        graph.node.insert(list(graph.node).index(best), idle)
        best.op_type = "ArgMin"

    problems = problems_of(made("labels"), changed(made("labels"), change))
    assert "max abs error" not in problems
    assert "labels agree on" in problems


def test_a_network_with_one_class_everywhere_proves_nothing(tiny_network):
    model = Deployable(tiny_network(), SIZE, "raw")
    with torch.no_grad():
        model.module.head.conv.weight.zero_()
        model.module.head.conv.bias.copy_(torch.tensor([0.0, 1, 0, 0, 0]))
    report = verify(model, model.onnx)
    assert report.comparisons[0].max_abs_error <= MAX_ABS_ERROR
    assert report.comparisons[0].masked_agreement == 1
    (problem,) = report.problems
    assert problem.startswith("the PyTorch network predicts one class everywhere, so agreement means nothing")


def test_a_network_whose_pixels_are_all_ties_proves_nothing(tiny_network):
    model = Deployable(tiny_network(), SIZE, "raw")
    with torch.no_grad():
        model.module.head.conv.weight.mul_(1e-6)
        model.module.head.conv.bias.zero_()
    assert "no pixel has a margin over 0.001" in problems_of(model, model.onnx)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_model_is_refused(model, share):
    with pytest.raises(VerificationError, match=r"ONNX Runtime cannot (open|run) the exported model") as caught:
        verify(model, model.onnx[: int(share * len(model.onnx))])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_model_that_opens_and_cannot_run_is_refused(model):
    def change(graph):
        """The batch is said to be 2, and the verifier has one picture a time."""
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        del graph.value_info[:]
        graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2

    with pytest.raises(VerificationError, match="ONNX Runtime cannot run the exported model") as caught:
        verify(model, changed(model, change))
    assert "\n" not in str(caught.value)


def test_another_shape_is_refused(model):
    def change(graph):
        graph.node.append(onnx.helper.make_node("Concat", ["logits", "logits"], ["twice"], axis=0))
        graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, None))

    with pytest.raises(VerificationError, match="answers in another form") as caught:
        verify(model, changed(model, change))
    assert "(2, 5, 8, 12)" in str(caught.value)
    assert "(1, 5, 8, 12)" in str(caught.value)


def test_another_type_is_refused(made):
    model = made("labels")

    def change(graph):
        name = graph.output[0].name
        graph.node.append(onnx.helper.make_node("Cast", [name], ["wide"], to=onnx.TensorProto.INT32))
        graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("wide", onnx.TensorProto.INT32, None))

    with pytest.raises(VerificationError, match="answers in another form") as caught:
        verify(model, changed(model, change))
    assert "got 'int32 (1, 64, 96)'; allowed: uint8 (1, 64, 96)" in str(caught.value)


def test_both_states_of_the_optimiser_are_run(model, monkeypatch):
    asked = []
    create = verification.create_session

    def spy(data, **options):
        asked.append(options["optimise"])
        return create(data, **options)

    monkeypatch.setattr(verification, "create_session", spy)
    verify(model, model.onnx)
    assert asked == [False, False, True, True]


def test_one_picture_of_ones_own(model):
    picture = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    report = verify(model, model.onnx, pictures=[picture])
    assert report.pictures == 1
    assert report.passed
    with pytest.raises(UsageError, match="no picture to compare on"):
        verify(model, model.onnx, pictures=[])


GOOD = {
    "optimiser": True,
    "max_abs_error": 1e-5,
    "mean_abs_error": 1e-6,
    "label_agreement": 1.0,
    "masked_agreement": 1.0,
    "masked_share": 0.9,
    "classes_in_reference": 2,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_abs_error": 1.01e-4}, "max abs error 0.000101 exceeds 0.0001"),
        ({"max_abs_error": float("nan")}, "max abs error nan"),
        ({"masked_agreement": 0.9999999}, "of clear pixels, not on all"),
        ({"masked_share": 0.0}, "no label could be compared"),
        ({"classes_in_reference": 1}, "one class everywhere"),
    ],
)
def test_each_limit(change, says):
    assert Comparison(**GOOD).problems() == []
    assert Comparison(**GOOD | {"max_abs_error": 1e-4, "label_agreement": 0.5}).problems() == []
    (problem,) = Comparison(**GOOD | change).problems()
    assert says in problem


COMPARED = (Comparison(**GOOD), Comparison(**GOOD | {"optimiser": False}))
MIOU = {"dataset": "streets", "drop_points": 0.1, "limit_points": 0.1}


@pytest.mark.parametrize(("precision", "agreement"), [("fp16", 0.999), ("int8", 0.99)])
def test_lower_precisions_are_held_to_labels_rather_than_to_numbers(precision, agreement):
    limits = LIMITS[precision]
    far = GOOD | {"max_abs_error": 3.0, "masked_agreement": agreement}
    assert Comparison(**far).problems(limits) == []
    assert len(Comparison(**far).problems()) == 2
    (problem,) = Comparison(**far | {"masked_agreement": agreement - 1e-6}).problems(limits)
    assert f"not on {agreement:.1%}" in problem
    (problem,) = Comparison(**far | {"max_abs_error": float("nan")}).problems(limits)
    assert "max abs error is nan" in problem


@pytest.mark.parametrize(
    ("true", "rounding", "passes"),
    [
        (None, None, False),
        (9e-5, 1e-9, True),  # nearer to float64 than the limit asks: the rest is PyTorch's own
        (1.1e-4, 4e-5, False),
        (2.9e-4, 1.5e-4, True),  # no worse than twice what PyTorch does
        (3.1e-4, 1.5e-4, False),
        (float("nan"), 1.0, False),
        (1e-4, float("nan"), True),
        (2e-4, float("nan"), False),
    ],
)
def test_what_is_over_the_limit_is_held_against_float64(true, rounding, passes):
    found = Comparison(**GOOD | {"max_abs_error": 3e-4, "float64_max_abs_error": true}).problems(rounding=rounding)
    assert (not found) == passes
    if not passes and true is not None:
        assert f"(against float64: {true:.3g}; PyTorch in float32: {rounding:.3g})" in found[0]


@pytest.mark.parametrize(
    ("true", "pytorch", "passes"),
    [
        (None, None, False),
        (0.999, None, False),
        (1.0, 1.0, True),  # the pixels that differ are PyTorch's own
        (1 - 1.9e-5, 1 - 1e-5, True),  # no more of them than twice as many as in PyTorch
        (1 - 3e-5, 1 - 1e-5, False),
        (0.5, 1.0, False),
        (float("nan"), 0.5, False),
        (0.5, float("nan"), False),
    ],
)
def test_clear_pixels_that_differ_are_held_against_float64(true, pytorch, passes):
    comparison = Comparison(**GOOD | {"masked_agreement": 0.9999, "float64_masked_agreement": true})
    found = comparison.problems(rounding_agreement=pytorch)
    assert (not found) == passes
    report = Report((comparison, comparison), 2, optimiser_agreement=0.9999, rounding_agreement=pytorch)
    assert report.passed == passes
    one_is_wrong = Report((comparison, Comparison(**GOOD)), 2, optimiser_agreement=0.9999, rounding_agreement=pytorch)
    assert not one_is_wrong.passed


@pytest.mark.slow
def test_unpooling_jumps_where_rounding_moves_a_maximum():
    """ENet here with its seeded weights: PyTorch in float32 labels 16 clear pixels otherwise than in float64."""
    model = Deployable(resolve("enet"), Size(512, 1024), "labels")
    report = verify(model, model.onnx)
    assert report.passed, report.problems
    assert min(c.masked_agreement for c in report.comparisons) < 1
    assert 1 - 1e-4 < report.rounding_agreement < 1
    assert report.to_tree()["pytorch_float64_masked_agreement"] == report.rounding_agreement
    assert all(1 - c.float64_masked_agreement <= 2 * (1 - report.rounding_agreement) for c in report.comparisons)


@pytest.mark.parametrize("io", ["raw", "labels"])
def test_large_logits_are_no_error_and_do_not_hide_one(tiny_network, io):
    """Logits of some thousands, whose float32 is coarser than 1e-4: PyTorch is as far from the truth as the export."""
    model = Deployable(tiny_network(), SIZE, io)
    with torch.no_grad():
        last = [layer for layer in model.built.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
        last.weight.mul_(1e4)
    report = verify(model, model.onnx)
    assert report.comparisons[0].max_abs_error > 1e-4
    assert report.rounding > 1e-4 / 2
    assert report.passed, report.problems
    assert report.to_tree()["pytorch_float64_max_abs_error"] == report.rounding
    wrong = verify(model, changed(model, change_values("weight", lambda values: values.__imul__(1.0001))))
    assert not wrong.passed
    assert "against float64" in wrong.problems[0]


def test_float64_is_not_asked_where_float32_will_do(model, monkeypatch):
    monkeypatch.setattr("deploy.verify.exact", lambda *_: pytest.fail("there is no need"))
    report = verify(model, model.onnx)
    assert report.rounding is None
    assert report.comparisons[0].float64_max_abs_error is None


def test_a_float_output_is_held_as_its_logits_are():
    (problem,) = Comparison(**GOOD | {"output_max_abs_error": 2e-4}).problems()
    assert "max abs error of the output 0.0002 exceeds 0.0001" in problem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimiser_agreement": 0.9999}, "optimiser off and on agrees on 99.990000% of clear pixels, not on 100.0%"),
        ({"optimiser_agreement": float("nan")}, "optimiser off and on"),
        ({"miou": MIOU | {"drop_points": 0.11}}, "fp32 costs 0.11 points of mIoU on streets, more than 0.1"),
        ({"miou": MIOU | {"drop_points": float("nan")}}, "costs nan points"),
        ({"miou": MIOU, "other_model": True}, "the mIoU on record was measured on another model"),
    ],
)
def test_what_a_report_does_not_let_pass(change, says):
    assert Report(COMPARED, 2, miou=MIOU).passed
    report = Report(COMPARED, 2, **change)
    (problem,) = report.problems
    assert says in problem
    assert report.to_tree()["passed"] is False


def test_a_problem_of_both_states_is_said_once():
    alike = tuple(Comparison(**GOOD | {"classes_in_reference": 1}) for _ in range(2))
    assert len(Report(alike, 2).problems) == 1
