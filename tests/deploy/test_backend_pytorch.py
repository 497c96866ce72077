"""PyTorch's modes: each is what it says, and what is process-wide is put back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from deploy.backends import SessionInfo, _cpp_compiler, pytorch
from deploy.backends._torch import settings_held
from deploy.backends.pytorch import BACKEND, CudaGraphSession
from searchkit.errors import BackendUnavailableError, UsageError, VerificationError


class Model:
    """As much of a model as this backend asks for: a convolution and whatever a test makes of it."""

    precision = "fp32"

    def __init__(self, module=None):
        torch.manual_seed(0)
        self.module = (module or nn.Conv2d(3, 4, 3, padding=1)).eval()

    def example(self):
        return torch.zeros(1, 3, 8, 8)


BATCH = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


def seen_by(module):
    """What holds while `module` runs: thread count, memory format of its input, whether gradients are kept."""
    seen = []

    def look(_module, inputs, _output):
        channels_last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        seen.append((torch.get_num_threads(), channels_last, torch.is_inference_mode_enabled()))

    module.register_forward_hook(look)
    return seen


@pytest.mark.parametrize(("mode", "channels_last"), [("eager", False), ("channels_last", True)])
def test_threads_are_those_of_the_session_while_it_runs(mode, channels_last):
    model = Model()
    with BACKEND.open(model, mode=mode, threads=3) as session:
        seen = seen_by(session._module)
        session.run(BATCH)
    assert seen == [(3, channels_last, True)]
    assert torch.get_num_threads() != 3
    assert session.info.options["threads"] == "3"
    assert session.info.options["memory_format"] == ("channels_last" if channels_last else "contiguous")


def test_channels_last_reorders_the_weights():
    with BACKEND.open(Model(), mode="channels_last") as session:
        assert session._module.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_picture_of_bytes_keeps_its_layout(tiny_network):
    """N x H x W x 3 bytes are no N x C x H x W map that could be reordered."""
    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    model = Deployable(tiny_network(), Size(64, 96), "labels")
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    with BACKEND.open(model) as eager, BACKEND.open(model, mode="channels_last") as session:
        wanted, found = eager.run(picture), session.run(picture)
    assert (found == wanted).mean() > 0.99


def test_without_threads_the_process_decides():
    before = torch.get_num_threads()
    with BACKEND.open(Model()) as session:
        seen = seen_by(session._module)
        try:
            torch.set_num_threads(before + 1)
            session.run(BATCH)
        finally:
            torch.set_num_threads(before)
    assert seen[0][0] == before + 1
    assert session.info.options["threads"] == str(before)


def test_what_a_failing_run_found_is_put_back():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no kernel")

    before = torch.get_num_threads()
    with BACKEND.open(Model(Broken()), threads=before + 2) as session, pytest.raises(RuntimeError, match="no kernel"):
        session.execute()
    assert torch.get_num_threads() == before


def test_overlapping_holders_put_back_what_was_there_before_them():
    """Two host threads: the second starts and ends while the first still holds its count, or the other way round."""
    before = torch.get_num_threads()
    entered, leave = threading.Event(), threading.Event()

    def long():
        with settings_held(before + 1, "cpu"):
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=long)
    other.start()
    entered.wait(10)
    with settings_held(before + 2, "cpu"):
        assert torch.get_num_threads() == before + 2
        leave.set()
        other.join()
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    found = []
    fresh = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert found == [before], "a host thread that starts later inherits nothing"


def test_tf32_is_off_while_a_session_runs_on_a_gpu_and_then_as_it_was():
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for value in (True, False):
            for switch in switches:
                switch.allow_tf32 = value
            with settings_held(None, "cuda"):
                assert [switch.allow_tf32 for switch in switches] == [False, False]
            assert [switch.allow_tf32 for switch in switches] == [value, value]
            with settings_held(None, "cpu"):
                assert [switch.allow_tf32 for switch in switches] == [value, value]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_stand_in_the_graph_alone(precision):
    model = Model()
    model.precision = precision
    with pytest.raises(UsageError, match=r"pytorch does not run models of this precision .*allowed: fp32"):
        BACKEND.open(model)


def test_a_cuda_graph_needs_a_gpu():
    with pytest.raises(BackendUnavailableError, match=r"cuda_graph of pytorch needs a CUDA device .got 'cpu'"):
        BACKEND.open(Model(), device="cpu", mode="cuda_graph")


class FakeCuda:
    """The part of `torch.cuda` that records and replays a graph, and the order in which it is used."""

    def __init__(self):
        self.log = []
        self.session = None

    def Stream(self):  # noqa: N802
        return FakeStream(self, "side")

    def current_stream(self):
        return FakeStream(self, "main")

    @contextmanager
    def stream(self, stream):
        self.log.append(f"on {stream.name}")
        yield
        self.log.append(f"off {stream.name}")

    def CUDAGraph(self):  # noqa: N802
        return FakeGraph(self)

    @contextmanager
    def graph(self, graph):
        self.log.append("record")
        yield
        self.log.append("recorded")


class FakeStream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")


class FakeGraph:
    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        """As the real one: the recorded kernels, on the recorded memory."""
        session = self.cuda.session
        with torch.inference_mode():
            session._output.copy_(session._module(session._input))


def test_a_cuda_graph_is_recorded_after_a_warm_up_and_replayed_on_the_same_memory(monkeypatch):
    """Against a stand-in of `torch.cuda`: there was no GPU."""
    cuda = FakeCuda()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    model = Model()
    runs = []
    model.module.register_forward_hook(lambda *_: runs.append(list(cuda.log)))
    session = CudaGraphSession(model, SessionInfo("pytorch", "0", "PyTorch", "cpu", {}), None)
    cuda.session = session
    assert [log[-1] for log in runs] == ["on side"] * 3 + ["record"], "warm up beside, then record"
    assert cuda.log == [
        *("side waits for main", "on side", "off side", "main waits for side", "record", "recorded"),
    ]
    memory, output = session._input, session._output
    with torch.inference_mode():
        wanted = model.module(torch.from_numpy(BATCH)).numpy()
    np.testing.assert_array_equal(session.run(BATCH), wanted)
    assert session._input is memory
    assert session._output is output
    session.close()
    assert not hasattr(session, "_graph")


def test_without_a_compiler_compiled_is_refused_and_eager_is_not(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        BackendUnavailableError, match=r"no C\+\+ compiler: g\+\+ is not on the PATH.*such as g\+\+"
    ) as caught:
        BACKEND.open(Model(), device="cpu", mode="compiled")
    assert caught.value.exit_code == 7
    BACKEND.open(Model()).close()


def test_a_compiler_that_does_not_work_is_no_compiler(monkeypatch, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'fatal error: omp.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert "it says: fatal error: omp.h" in _cpp_compiler.compiler_problem()
    broken.write_text("no program")
    other = broken.rename(tmp_path / "other")
    monkeypatch.setenv("CXX", str(other))
    assert "does not run" in _cpp_compiler.compiler_problem()


def test_without_pythons_headers_compiled_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(pytorch.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(BackendUnavailableError, match=r"Python\.h is missing"):
        BACKEND.open(Model(), device="cpu", mode="compiled")


class Doubled(nn.Module):
    """Two of these share one `forward`, as all networks under one contract do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 2


def children():
    tasks = os.listdir("/proc/self/task")
    return {pid for task in tasks for pid in open(f"/proc/self/task/{task}/children").read().split()}


@pytest.mark.slow
def test_compiled_sessions_do_not_count_against_each_other(monkeypatch):
    """`torch.compile` gives up on a function after a number of variants: here after the first."""
    if _cpp_compiler.compiler_problem():
        pytest.fail("this test needs a C++ compiler")
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    before = children()
    models = [Model(Doubled(nn.Conv2d(3, width, 1))) for width in (2, 5)]
    with ExitStack() as stack:
        opened = [BACKEND.open(model, mode="compiled", threads=threads) for threads, model in enumerate(models, 1)]
        for model, session in zip(models, map(stack.enter_context, opened), strict=True):
            with torch.inference_mode():
                wanted = model.module(torch.from_numpy(BATCH)).numpy()
            np.testing.assert_allclose(session.run(BATCH), wanted, atol=1e-5)
    assert children() == before, "no compiling process is left"


def test_what_cannot_be_compiled_is_refused_in_one_line():
    class Data(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(VerificationError, match="PyTorch cannot compile this network") as caught:
        BACKEND.open(Model(Data()), mode="compiled")
    assert "\n" not in str(caught.value)


def test_probing_imports_no_compiler():
    """`searchkit doctor` asks all backends: TorchInductor alone would cost it a second."""
    program = (
        "import sys; from deploy.backends import BACKENDS; [BACKENDS.load(n).probe() for n in ('pytorch', 'aoti')];"
        "sys.exit('torch._inductor.codecache' in sys.modules or 'torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
