"""What every backend and every tensor contract that is found by its file name must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deploy.backends import BACKENDS, Available, Backend, Session, SessionInfo
from deploy.contracts import CONTRACTS, Contract
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

SIZE = Size(64, 128)
# What `pip install 'searchkit[cpu,dev]'` brings: one that is missing is a failure.
REQUIRED = {"onnxruntime", "openvino", "pytorch"}
# It compiles a network for up to a minute, so it and all modes have tests of their own: `test_backend_modes.py`.
COMPILES = {"aoti"}


@pytest.fixture(scope="module")
def model(exported):
    return lambda io: exported("ssr-baseline1", io, size=tuple(SIZE))


@pytest.fixture(params=BACKENDS.names())
def backend(request):
    return BACKENDS.load(request.param)


@pytest.fixture(params=CONTRACTS.names())
def contract(request):
    return CONTRACTS.load(request.param)


@pytest.fixture(params=CONTRACTS.names())
def io(request):
    return request.param


@pytest.fixture(scope="module")
def picture():
    return streets.draw(3, 1, SIZE).image


def runs_here(backend):
    return isinstance(backend.probe(), Available) and backend.name not in COMPILES


def test_the_required_backends_run_here():
    assert set(BACKENDS.names()) >= REQUIRED
    assert {name for name in BACKENDS.names() if runs_here(BACKENDS.load(name))} >= REQUIRED


def test_a_probe_answers(backend):
    assert isinstance(backend, Backend)
    assert backend.name in BACKENDS.names()
    state = backend.probe()
    if isinstance(state, Available):
        assert state.version
        assert state.devices
        assert len(set(state.devices)) == len(state.devices)
    else:
        assert state.reason
        assert "pip " in state.install
    assert backend.probe() == state


def reference(model, picture):
    """PyTorch's output, and which pixels are clear in it."""
    batch = model.contract.encode(picture)
    with torch.inference_mode():
        output = model.module(torch.from_numpy(batch)).numpy()
        raw = model._built[0](torch.from_numpy(CONTRACTS.load("raw").encode(picture)))
    best = torch.nn.functional.interpolate(raw, size=SIZE, mode="bilinear").topk(2, dim=1).values
    return output, (best[:, 0] - best[:, 1]).numpy() > 1e-3


def test_every_session_gives_pytorchs_labels(backend, io, model, picture):
    if not runs_here(backend):
        assert backend.name not in REQUIRED
        return
    made = model(io)
    wanted, clear = reference(made, picture)
    for device in backend.probe().devices:
        with backend.open(made, device=device) as session:
            assert isinstance(session, Session)
            output = session.run(made.contract.encode(picture))
        assert (output.dtype, output.shape) == (wanted.dtype, wanted.shape)
        found, labels = (made.contract.labels(tensor, SIZE) for tensor in (output, wanted))
        assert len(np.unique(labels)) > 1
        assert clear.mean() > 0.9
        assert np.array_equal(found[clear], labels[clear])


def test_a_session_says_what_it_runs_on(backend, model):
    if not runs_here(backend):
        assert backend.name not in REQUIRED
        return
    state = backend.probe()
    with backend.open(model("raw"), threads=1) as session:
        info = session.info
    assert isinstance(info, SessionInfo)
    assert (info.backend, info.version) == (backend.name, state.version)
    assert info.provider
    assert info.device == state.devices[0]
    assert all(isinstance(value, str) for item in info.options.items() for value in item)


def test_a_session_answers_to_what_was_loaded_last(backend, model, picture):
    if not runs_here(backend):
        assert backend.name not in REQUIRED
        return
    made = model("raw")
    batch = made.contract.encode(picture)
    with backend.open(made) as session:
        first = session.run(batch)
        session.load(np.zeros_like(batch))
        session.execute()
        session.synchronize()
        assert not np.array_equal(session.output(), first)
        np.testing.assert_array_equal(session.run(batch), first)


@pytest.mark.parametrize("device", ["npu", "", "cuda:99", "CPU"])
def test_an_unknown_device_is_refused(backend, model, device):
    with pytest.raises(BackendUnavailableError) as caught:
        backend.open(model("raw"), device=device)
    assert caught.value.exit_code == 7
    assert backend.name in str(caught.value)


def test_modes_and_precisions_are_named(backend):
    assert backend.modes
    assert len(set(backend.modes)) == len(backend.modes)
    assert all(mode.isidentifier() for mode in backend.modes)
    assert backend.precisions
    assert set(backend.precisions) <= {"fp32", "fp16", "int8"}


def test_an_unknown_mode_is_refused_with_the_nearest(backend, model):
    with pytest.raises(UsageError, match=f"unknown mode of {backend.name}") as caught:
        backend.open(model("raw"), mode=f"{backend.modes[-1]}x")
    assert caught.value.exit_code == 2
    assert backend.modes[-1] in caught.value.fix


def test_a_contract_describes_its_tensors(contract, io, picture):
    contract = CONTRACTS.load(io)
    assert isinstance(contract, Contract)
    spec = contract.input_spec(SIZE)
    example, encoded = contract.example(SIZE), contract.encode(picture)
    assert tuple(example.shape) == encoded.shape == spec.shape
    assert str(example.dtype) == f"torch.{spec.dtype}"
    assert encoded.dtype.name == spec.dtype
    assert encoded.flags.c_contiguous
    assert len(spec.layout) == len(spec.shape)
    assert spec.meaning
    assert spec.colour_order in ("RGB", "BGR")
    low, high = spec.value_range
    assert low - 1e-6 <= encoded.min() <= encoded.max() <= high + 1e-6
    assert isinstance(contract.normalisation_in_graph, bool)
    assert contract.max_opset is None or contract.max_opset < 18
    assert contract.output_meaning()
    assert contract.output_name in ("logits", "probabilities", "labels")
    answer = contract.output_spec(SIZE, 5)
    assert (answer.name, answer.layout) == (contract.output_name, contract.output_layout)
    assert answer.dtype in ("uint8", "int32") if answer.name == "labels" else answer.dtype == "float32"
    assert (answer.value_range is None) == (answer.name == "logits")


def test_a_wrapped_network_keeps_the_contract(io, tiny_network, picture):
    made = Deployable(tiny_network(), SIZE, io)
    with torch.inference_mode():
        output = made.module(torch.from_numpy(made.contract.encode(picture))).numpy()
    spec = made.contract.output_spec(SIZE, 5)
    assert (output.dtype.name, output.ndim) == (spec.dtype, len(spec.layout))
    # -1 stands for a side that the network decides.
    assert all(wanted in (-1, side) for side, wanted in zip(output.shape, spec.shape, strict=True))
    labels = made.contract.labels(output, SIZE)
    assert labels.shape == (1, *SIZE)
    assert labels.dtype.kind in "ui"
    assert 0 <= labels.min() <= labels.max() < 5


def test_every_contract_takes_two_classes(contract):
    contract.check_classes(2)


def test_names_are_found_without_an_import():
    stacks = {"apollo", "autoware", "deepstream", "isaac-ros", "triton"}
    assert set(CONTRACTS.names()) >= {"labels", "logits", "raw", "softmax"} | stacks
    for registry in (BACKENDS, CONTRACTS):
        for name in registry.names():
            assert registry.summary(name), f"{name} has no docstring"
        with pytest.raises(UsageError, match="unknown"):
            registry.load("nonsense")
