"""The golden pair: what is kept, what a runtime may differ by, and what is no such pair."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save

from deploy.backends import SessionInfo
from deploy.deployable import Deployable
from deploy.golden import MIN_AGREEMENT, Golden, check_golden, make_golden
from searchkit.errors import DamagedArtifactError
from searchkit.sizes import Size

SIZE = Size(64, 96)
INFO = SessionInfo("x", "1", "x", "cpu")


@pytest.fixture(scope="module")
def made(tiny_network):
    """`made(io)`: the tiny network under a contract, and its golden pair."""
    found = {}

    def make(io):
        if io not in found:
            model = Deployable(tiny_network(), SIZE, io)
            found[io] = model, make_golden(model)
        return found[io]

    return make


def test_what_is_kept(made):
    model, golden = made("labels")
    assert (golden.image.dtype, golden.image.shape) == (np.uint8, (*SIZE, 3))
    assert np.array_equal(golden.input, model.contract.encode(golden.image))
    assert np.array_equal(golden.output[0], golden.labels)
    assert len(np.unique(golden.labels)) > 1


@pytest.mark.parametrize("io", ["labels", "raw", "isaac-ros", "autoware"])
def test_it_comes_back_from_its_bytes(made, io):
    model, golden = made(io)
    data = golden.to_bytes()
    again = Golden.from_bytes(data, model, where="x")
    for field in dataclasses.fields(Golden):
        one, other = getattr(golden, field.name), getattr(again, field.name)
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
    assert make_golden(model).to_bytes() == data, "the same model, the same bytes"


def changed(golden, **tensors):
    found = {field.name: getattr(golden, field.name) for field in dataclasses.fields(Golden)} | tensors
    return save({name: np.ascontiguousarray(tensor) for name, tensor in found.items() if tensor is not None})


def picture(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"extra": picture(1)}, "not a golden pair"),
        ({"labels": None}, "not a golden pair"),
        ({"image": picture(64, 97, 3)}, "the golden image is not one of this model"),
        ({"image": picture(64, 96)}, "the golden image is not one of this model"),
        ({"image": picture(64, 96, 3, dtype=np.float32)}, "the golden image is not one of this model"),
        ({"labels": picture(96, 64)}, "the golden labels is not one of this model"),
        ({"labels": picture(64, 96, dtype=np.float64)}, "the golden labels is not one of this model"),
        ({"input": picture(1, 64, 96, 4)}, "the golden input is not one of this model"),
        ({"input": picture(2, 64, 96, 3)}, "the golden input is not one of this model"),
        ({"input": picture(1, 64, 96, 3, dtype=np.float64)}, "the golden input is not one of this model"),
    ],
)
def test_another_pair_is_refused(made, tensors, says):
    model, golden = made("labels")
    with pytest.raises(DamagedArtifactError, match=says):
        Golden.from_bytes(changed(golden, **tensors), model, where="x")


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(8), b"\xff" * 64])
def test_what_is_no_such_file_is_refused(made, data):
    model, _ = made("labels")
    with pytest.raises(DamagedArtifactError, match="x: not a safetensors file"):
        Golden.from_bytes(data, model, where="x")


def test_the_right_answer_passes(made):
    for io in ("labels", "raw"):
        model, golden = made(io)
        found = check_golden(golden, model, golden.output, INFO)
        assert (found.problems, found.agreement, found.needed) == ((), 1.0, MIN_AGREEMENT["fp32"])
        assert found.max_abs_error == (None if io == "labels" else 0.0)
        assert found.classes == len(np.unique(golden.labels))


def flipped(labels, share):
    """Another label in the given share of pixels."""
    found = labels.copy().ravel()
    count = round(share * found.size)
    found[:count] = (found[:count] + 1) % 5
    return found.reshape(labels.shape)


@pytest.mark.parametrize("precision", sorted(MIN_AGREEMENT))
def test_how_many_labels_may_differ_depends_on_the_precision(made, precision):
    model, golden = made("labels")

    class InPrecision:
        contract, size = model.contract, model.size

    InPrecision.precision = "fp32" if precision == "bf16" else precision
    info = dataclasses.replace(INFO, options={"precision": precision})
    least = 1 - MIN_AGREEMENT[precision]
    for share, passes in ((least * 0.9, True), (least * 1.1, False)):
        found = check_golden(golden, InPrecision, flipped(golden.output, share), info)
        assert (found.problems == ()) is passes
        assert found.agreement == pytest.approx(1 - share, abs=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_an_output_that_is_no_number_fails(made, value):
    model, golden = made("raw")
    output = golden.output.copy()
    output[0, 0, 0, 0] = value
    assert "the output holds NaN or infinity" in check_golden(golden, model, output, INFO).problems


def test_one_class_everywhere_fails(made):
    model, golden = made("labels")
    found = check_golden(golden, model, np.zeros_like(golden.output), INFO)
    assert "answers with one class everywhere" in found.problems
    assert found.classes == 1


def test_another_form_fails(made):
    model, golden = made("labels")
    for output in (golden.output[:, :-1], golden.output.astype(np.int32)):
        (problem,) = check_golden(golden, model, output, INFO).problems
        assert "not uint8 (1, 64, 96)" in problem


def test_a_picture_that_becomes_another_input_fails(made):
    model, golden = made("labels")
    other = dataclasses.replace(golden, input=255 - golden.input)
    assert "another input tensor" in "; ".join(check_golden(other, model, golden.output, INFO).problems)
