"""Every mode of every backend: PyTorch's labels where it runs, a clear refusal where not, and nothing left behind."""

from __future__ import annotations

import gc
import math
import os
import re
import shutil
import threading
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.backends import BACKENDS
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from searchkit.blocks import resize
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError
from searchkit.sizes import Size

SIZE = Size(64, 128)
# They call a C++ compiler: what they have to prove, a tiny network proves in a fifth of the time.
COMPILED = {("pytorch", "compiled"), ("aoti", "default")}
PAIRS = [(name, mode) for name in BACKENDS.names() for mode in BACKENDS.load(name).modes]
MODES = [pytest.param(*pair, marks=pytest.mark.slow) if pair in COMPILED else pair for pair in PAIRS]
# `torch.compile` compiles at each opening, and keeps each library that it made until the process ends.
REOPENED = [mode for pair, mode in zip(PAIRS, MODES, strict=True) if pair != ("pytorch", "compiled")]


def flags():
    found = re.search(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return set(found[1].split()) if found else set()


def should_run(name, mode):
    """Whether it must run on the CPU here, found out without the backend; `tests/gpu` has those that need a GPU."""
    if (name, mode) in COMPILED:
        return shutil.which("g++") is not None
    if name == "openvino" and mode.startswith("bf16"):
        return bool({"avx512_bf16", "amx_bf16"} & flags())
    return name in ("pytorch", "onnxruntime", "openvino") and mode not in ("cuda_graph", "tensorrt")


def contract_of(name, mode):
    """Modes that end in the label head run models that give labels."""
    return "labels" if mode in BACKENDS.load(name).label_head_modes else "raw"


@pytest.fixture(scope="module")
def tiny(tiny_network):
    """`tiny(io)`: the tiny network under a contract, with one engine that is built once where a backend needs it."""

    class Built(Deployable):
        @cached_property
        def aoti_engine(self):
            backend = BACKENDS.load("aoti")
            return backend.build(self, backend.probe_build().devices[-1:]).data

        def engine(self, backend):
            return self.aoti_engine if backend == "aoti" and should_run("aoti", "default") else None

    return cache(lambda io: Built(tiny_network(), SIZE, io))


@pytest.fixture
def built(name, mode, tiny):
    return tiny(contract_of(name, mode))


@pytest.fixture
def model(name, mode, exported, built):
    if (name, mode) in COMPILED:
        return built
    return exported("ssr-baseline1", contract_of(name, mode), size=tuple(SIZE))


@pytest.fixture
def batch(built):
    return built.contract.encode(streets.draw(3, 1, SIZE).image)


def opened(model, name, mode, **settings):
    """A session on the CPU, or None where there rightly is none: then it must have been refused in so many words."""
    backend = BACKENDS.load(name)
    if should_run(name, mode):
        return backend.open(model, mode=mode, device="cpu", **settings)
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailableError, match=name) as caught:
            backend.open(model, mode=mode, **settings)
        assert caught.value.fix
    return None


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime", "openvino"])
def test_a_backend_says_truly_which_form_of_the_model_it_runs(name, tiny_network):
    made = Deployable(tiny_network(), SIZE, "raw")
    with BACKENDS.load(name).open(made):
        assert ("onnx" in vars(made)) == BACKENDS.load(name).runs_onnx
    assert not BACKENDS.load("aoti").runs_onnx


def reference(model, batch):
    with torch.inference_mode():
        return model.module(torch.from_numpy(batch)).numpy()


def margins(logits):
    best = np.sort(logits, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def bfloat16_estimate(model, logits):
    """The error of a logit, root mean square, if the network is computed in bfloat16.

    It has 8 bits of significand, so that rounding a layer's weights and map changes its result by some 2^-8 of its
    size. The roundings of L layers are independent of each other: together they make sqrt(L) of that.
    """
    layers = sum(isinstance(layer, torch.nn.Conv2d) for layer in model.module.modules())
    return 2**-8 * math.sqrt(layers) * rms(logits)


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_every_mode_gives_pytorchs_labels(name, mode, model, batch):
    session = opened(model, name, mode)
    if session is None:
        return
    with session:
        found = session.run(batch)
        info = session.info
    assert info.options["mode"] == mode
    if contract_of(name, mode) == "labels":
        hold_labels(found, model, mode)
        return
    wanted = reference(model, batch)
    if mode == "bf16":
        assert info.options["precision"] == "bf16"
        estimate = bfloat16_estimate(model, wanted)
        # Less exact than float32 by far, or it would be float32 under another name; at most twice the estimate; and
        # two logits that lie six times the estimate apart do not change places.
        assert 1e-3 < rms(found - wanted) <= 2 * estimate
        clear = margins(wanted) > 6 * estimate
    else:
        assert info.options["precision"] == "fp32"
        assert np.abs(found - wanted).max() <= 1e-4
        clear = margins(wanted) > 1e-3
    assert clear.mean() > 0.7
    assert len(np.unique(wanted.argmax(1)[clear])) > 1
    np.testing.assert_array_equal(found.argmax(1)[clear], wanted.argmax(1)[clear])


def hold_labels(found, model, mode):
    """Those of PyTorch's logits where these are clear, by the same estimates."""
    picture = CONTRACTS.load("raw").encode(streets.draw(3, 1, SIZE).image)
    with torch.inference_mode():
        logits = resize(model.built(torch.from_numpy(picture)), SIZE).numpy()
    clear = margins(logits) > (6 * bfloat16_estimate(model, logits) if mode.startswith("bf16") else 1e-3)
    wanted = logits.argmax(1)
    assert clear.mean() > 0.7
    assert len(np.unique(wanted[clear])) > 1
    np.testing.assert_array_equal(found[clear], wanted[clear])


def resources():
    """Threads, open files and mapped files of this process.

    Not the C library's resolvers, which come when any thread first asks for a host's name: OpenVINO's telemetry does,
    at a time of its own.
    """
    gc.collect()
    # Address, rights, offset, device, inode, path.
    mapped = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    paths = [fields[5] for fields in mapped if len(fields) == 6 and fields[5].startswith("/")]
    files = sum(not Path(path).name.startswith("libnss_") for path in paths)
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), files


@pytest.mark.parametrize(("name", "mode"), REOPENED)
def test_fifty_cycles_leave_nothing_behind(name, mode, built, batch):
    def cycle():
        session = opened(built, name, mode, threads=1)
        if session is None:
            return False
        with session:
            session.run(batch)
        return True

    if not cycle():
        return
    # The first ones start pools and load libraries that stay.
    for _ in range(4):
        cycle()
    before = resources()
    for _ in range(50):
        cycle()
    after = resources()
    assert all(late <= early for late, early in zip(after, before, strict=True)), (before, after)


@pytest.mark.parametrize(("name", "mode"), REOPENED)
def test_two_sessions_do_not_disturb_each_other(name, mode, model, batch):
    other = batch[:, :, ::-1].copy()
    one, two = (opened(model, name, mode, threads=threads) for threads in (1, 2))
    if one is None:
        return
    with two:
        with one:
            wanted = [one.run(batch), two.run(other)]
            for found in (in_turns(one, two), at_once(one, two)):
                np.testing.assert_array_equal(found[0], wanted[0])
                np.testing.assert_array_equal(found[1], wanted[1])
        np.testing.assert_array_equal(two.run(other), wanted[1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "mode"), REOPENED)
def test_views_and_read_only_arrays_are_inputs_too(name, mode, built, batch):
    session = opened(built, name, mode)
    if session is None:
        return
    frozen = np.frombuffer(batch.tobytes(), batch.dtype).reshape(batch.shape)
    with session:
        wanted = session.run(batch)
        np.testing.assert_array_equal(session.run(batch[:, :, ::-1].copy()[:, :, ::-1]), wanted)
        np.testing.assert_array_equal(session.run(frozen), wanted)


def in_turns(*sessions):
    """What each answers when they are started one after the other, and only then waited for."""
    for session in (*sessions, *sessions):
        session.execute()
    for session in sessions:
        session.synchronize()
    return [session.output() for session in sessions]


def at_once(*sessions):
    """What each answers when all run at the same time, each in a host thread of its own."""
    found = {}

    def run(session):
        for _ in range(3):
            session.execute()
        session.synchronize()
        found[session] = session.output()

    threads = [threading.Thread(target=run, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[session] for session in sessions]


@pytest.mark.parametrize(("name", "mode"), REOPENED)
def test_threads_of_a_session_are_not_those_of_the_process(name, mode, built, batch):
    before = torch.get_num_threads()
    session = opened(built, name, mode, threads=2)
    if session is None:
        return
    with session:
        assert torch.get_num_threads() == before
        session.run(batch)
        assert torch.get_num_threads() == before
        assert session.info.options["threads"] == "2"
    assert torch.get_num_threads() == before
