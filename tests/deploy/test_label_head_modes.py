"""The modes that end in the native label head: the same labels as the graph's own end, by another way."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.backends import BACKENDS
from deploy.backends import onnxruntime as onnxruntime_backend
from deploy.deployable import Deployable
from deploy.native.label_head import label_head
from deploy.native.library import Missing
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

SIZE = Size(64, 96)
MODES = [("onnxruntime", "label_head"), ("openvino", "label_head"), ("openvino", "bf16_label_head")]
MISSING = Missing("there is no C++ compiler", "install g++, or set CXX")


@pytest.fixture(scope="module")
def model(tiny_network):
    return Deployable(tiny_network(), SIZE, "labels")


@pytest.fixture
def batch(model):
    return model.contract.encode(streets.draw(7, 3, SIZE).image)


def run(name, mode, model, batch):
    """The session's answer and what it says of itself."""
    with BACKENDS.load(name).open(model, mode=mode, threads=1) as session:
        return session.run(batch), session.info


def computes_in_bfloat16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_labels_are_those_of_the_mode_without(name, mode, model, batch):
    found, info = run(name, mode, model, batch)
    if mode == "bf16_label_head" and not computes_in_bfloat16():
        with pytest.raises(BackendUnavailableError, match="bfloat16"):
            run(name, mode, model, batch)
        return
    plain = {"label_head": BACKENDS.load(name).modes[0], "bf16_label_head": "bf16"}[mode]
    wanted, _ = run(name, plain, model, batch)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    # Two classes that float32 cannot tell apart may be either; in bf16, OpenVINO resizes in that, the head in float32.
    assert (found == wanted).mean() > (0.97 if "bf16" in mode else 0.9999)
    assert len(np.unique(found)) > 2
    assert info.options["mode"] == mode
    assert info.options["label_head"] in ("avx512", "avx2", "plain")


def test_openvino_behind_its_logits_is_the_label_head_of_them(model, batch):
    """Bit for bit: the same compiled graph gives the logits."""
    from deploy.headless import HeadlessModel

    headless = HeadlessModel(model)
    with BACKENDS.load("openvino").open(headless, mode="fp32", threads=1) as session:
        logits = session.run(batch)
    found, _ = run("openvino", "label_head", model, batch)
    assert np.array_equal(found[0], label_head(logits[0], SIZE, corners=headless.corners))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_answer_is_not_written_over_by_the_next(name, model, batch):
    with BACKENDS.load(name).open(model, mode="label_head", threads=1) as session:
        first = session.run(batch)
        kept = first.copy()
        session.run(np.ascontiguousarray(batch[:, ::-1]))
        assert np.array_equal(first, kept)


@pytest.mark.parametrize(("name", "mode"), MODES[:2])
def test_a_model_that_ends_otherwise_is_refused(name, mode, tiny_network):
    logits = Deployable(tiny_network(), SIZE, "logits")
    with pytest.raises(UsageError, match=r"needs? a model that ends in labels .*labels and triton"):
        BACKENDS.load(name).open(logits, mode=mode)


@pytest.mark.parametrize(("name", "mode"), MODES[:2])
def test_without_the_library_it_says_what_to_do(name, mode, model, monkeypatch):
    for module in (f"deploy.backends.{name}", "deploy.native.onnx_operator"):
        monkeypatch.setattr(f"{module}.native", lambda: MISSING)
    with pytest.raises(
        BackendUnavailableError, match=r"native label head is not available: there is no C\+\+ compiler"
    ):
        BACKENDS.load(name).open(model, mode=mode)


def test_the_default_for_labels(model, tiny_network, monkeypatch):
    """Nothing is compiled for it, and a model that cannot end so keeps its own end."""
    mode = onnxruntime_backend.mode_for_labels
    monkeypatch.setattr(onnxruntime_backend, "ready", lambda: True)
    assert mode(model.onnx, "cpu") == "label_head"
    assert mode(model.onnx, "cuda") == "default"
    assert mode(Deployable(tiny_network(), SIZE, "logits").onnx, "cpu") == "default"
    monkeypatch.setattr(onnxruntime_backend, "ready", lambda: False)
    assert mode(model.onnx, "cpu") == "default"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_end_in_it_too(precision, tiny_network, batch):
    from deploy.precision.calibration import Calibration

    calibration = Calibration(streets.Streets(SIZE), method="minmax", pictures=1) if precision == "int8" else None
    model = Deployable(tiny_network(), SIZE, "labels", precision=precision, calibration=calibration)
    found, _ = run("onnxruntime", "label_head", model, batch)
    wanted, _ = run("onnxruntime", "default", model, batch)
    assert (found == wanted).mean() > 0.9999
