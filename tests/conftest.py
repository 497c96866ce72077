"""What all tests share: one thread a test process, one export a network and session, and a network that is tiny."""

from __future__ import annotations

import json
import os
import signal

# Before torch is imported anywhere: the test processes share the cores, and each would take all of them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# A shell without job control starts what it puts in the background with Ctrl-C ignored, and processes inherit that;
# the tests of interrupts need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

TINY = {
    "schema": 1,
    "space": "ssr",
    "classes": 5,
    "pool": "average",
    "mid_norm": False,
    "stem": 8,
    "stages": [
        {"channels": 12, "layers": []},
        {"channels": 16, "layers": [{"dilation": 1, "spatial": 1, "mid": 16, "out": 16}]},
    ],
    "head": {"type": "classifier"},
    "provenance": {"name": "tiny"},
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """`exported(name)` is the shipped network as a `Deployable` at a small size, exported once a test session.

    The test processes hand their exports to each other through the disk.
    """
    from deploy.deployable import Deployable
    from searchkit.files import write_bytes
    from searchkit.networks import resolve
    from searchkit.sizes import Size

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    folder.mkdir(exist_ok=True)
    models = {}

    def get(name, io="raw", size=(64, 128)):
        if (name, io, size) not in models:
            network = resolve(name)
            model = Deployable(network, network.size_rule.nearest(Size(*size)), io)
            path = folder / f"{name}-{io}-{model.size}.onnx"
            if path.exists():
                # Where `cached_property` keeps it.
                model.__dict__["onnx"] = path.read_bytes()
            else:
                write_bytes(path, model.onnx)
            models[name, io, size] = model
        return models[name, io, size]

    return get


@pytest.fixture(scope="session")
def tiny_network():
    """`tiny_network(classes=300)` is a network that is exported in a second, changed so."""
    from searchkit import genotype
    from searchkit.networks import from_genotype

    return lambda **changes: from_genotype(genotype.parse(json.dumps(TINY | changes).encode(), where="tiny"))


@pytest.fixture
def tiny(tmp_path):
    """`tiny(classes=300)` is the path of that network's genotype."""

    def make(**changes):
        path = tmp_path / "tiny.json"
        path.write_text(json.dumps(TINY | changes))
        return path

    return make


@pytest.fixture
def one_thread():
    """PyTorch computes with one thread, so that sums are in the same order each time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
