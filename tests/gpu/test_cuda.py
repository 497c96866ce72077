"""Every backend on a CUDA device against PyTorch on the CPU. Run by `make gpu`; not run where there is no GPU."""

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


@pytest.fixture(scope="module", params=known_names())
def model(request: pytest.FixtureRequest) -> Deployable:
    return Deployable(resolve(request.param), SIZE, "logits")


def test_there_is_a_device():
    assert torch.cuda.is_available(), "make gpu needs a CUDA device"


@pytest.mark.parametrize("backend", BACKENDS.names())
def test_cuda_session_agrees_with_the_reference(backend: str, model: Deployable):
    state = BACKENDS.load(backend).probe()
    assert isinstance(state, Available)
    assert "cuda" in state.devices, f"{backend} has no CUDA device: {state}"
    batch = model.contract.encode(streets.draw(0, 1000, SIZE).image)
    with torch.inference_mode():
        reference = model.module(torch.from_numpy(batch)).numpy()
    with BACKENDS.load(backend).open(model, device="cuda") as session:
        assert session.info.device == "cuda"
        found = session.run(batch)
    margin = np.diff(np.sort(reference, axis=1)[:, -2:], axis=1)[:, 0]
    clear = margin > 1e-3
    # FP32 on another device sums in another order, so the bound on the logits is wider than on one CPU.
    assert np.abs(found - reference).max() <= 1e-3
    assert (found.argmax(1) == reference.argmax(1))[clear].all()
