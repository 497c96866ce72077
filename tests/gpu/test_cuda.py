"""Every mode of every backend on a CUDA device against PyTorch on the CPU. Run by `make gpu`, where there is a GPU."""

import os
import subprocess

import numpy as np
import pytest
import torch

from deploy.backends import BACKENDS, Available
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size

pytestmark = pytest.mark.gpu

SIZE = Size(256, 512)
CPU_ONLY = {"openvino"}
MODES = [(name, mode) for name in BACKENDS.names() if name not in CPU_ONLY for mode in BACKENDS.load(name).modes]
# Over all networks; the others, which compile for minutes, over one.
QUICK = [pair for pair in MODES if pair[0] in ("pytorch", "onnxruntime") and pair[1] not in ("compiled", "tensorrt")]


def cuda(name: str) -> None:
    state = BACKENDS.load(name).probe()
    assert isinstance(state, Available), state
    assert "cuda" in state.devices, f"{name} has no CUDA device: {state}"


def agrees(name: str, mode: str, model: Deployable) -> None:
    cuda(name)
    batch = model.contract.encode(streets.draw(0, 1000, SIZE).image)
    with torch.inference_mode():
        reference = model.module(torch.from_numpy(batch)).numpy()
    with BACKENDS.load(name).open(model, device="cuda", mode=mode) as session:
        assert session.info.device == "cuda"
        assert session.info.options["mode"] == mode
        found = session.run(batch)
    margin = np.diff(np.sort(reference, axis=1)[:, -2:], axis=1)[:, 0]
    # FP32 on another device sums in another order, so the bound on the logits is wider than on one CPU. TensorRT
    # allows TF32, which has 10 bits of fraction where FP32 has 23.
    bound = 5e-2 if mode == "tensorrt" else 1e-3
    assert np.abs(found - reference).max() <= bound
    assert (found.argmax(1) == reference.argmax(1))[margin > 2 * bound].all()


def test_there_is_a_device():
    assert torch.cuda.is_available(), "make gpu needs a CUDA device"


@pytest.mark.parametrize("network", known_names())
@pytest.mark.parametrize(("name", "mode"), QUICK)
def test_cuda_session_agrees_with_the_reference(name: str, mode: str, network: str):
    agrees(name, mode, Deployable(resolve(network), SIZE, "logits"))


@pytest.mark.parametrize(("name", "mode"), [pair for pair in MODES if pair not in QUICK])
def test_compiled_cuda_session_agrees_with_the_reference(name: str, mode: str):
    agrees(name, mode, Deployable(resolve("fasterseg"), SIZE, "logits"))


@pytest.mark.parametrize(("name", "mode"), QUICK)
def test_two_cuda_sessions_do_not_disturb_each_other(name: str, mode: str):
    cuda(name)
    model = Deployable(resolve("fast-scnn"), SIZE, "logits")
    batches = [model.contract.encode(streets.draw(0, index, SIZE).image) for index in (1, 2)]
    backend = BACKENDS.load(name)
    with backend.open(model, device="cuda", mode=mode) as one, backend.open(model, device="cuda", mode=mode) as two:
        wanted = [one.run(batches[0]), two.run(batches[1])]
        for session in (one, two, one, two):
            session.execute()
        for session, output in zip((one, two), wanted, strict=True):
            session.synchronize()
            np.testing.assert_array_equal(session.output(), output)


@pytest.mark.parametrize(("name", "mode"), QUICK)
def test_cuda_sessions_give_their_memory_back(name: str, mode: str):
    cuda(name)
    model = Deployable(resolve("fast-scnn"), SIZE, "logits")
    batch = model.contract.encode(streets.draw(0, 1, SIZE).image)

    def cycle() -> int:
        with BACKENDS.load(name).open(model, device="cuda", mode=mode) as session:
            session.run(batch)
        torch.cuda.empty_cache()
        return used_mib()

    warm = max(cycle() for _ in range(3))
    assert max(cycle() for _ in range(20)) <= warm + 64


def used_mib() -> int:
    """Of this process, by the driver: runtimes other than PyTorch have allocators of their own."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(",") for line in lines]
    own = [int(memory) for pid, memory in rows if int(pid) == os.getpid()]
    # In a container the driver may not know this process by its number; then all of the device is looked at.
    free, total = torch.cuda.mem_get_info()
    return own[0] if own else (total - free) >> 20
