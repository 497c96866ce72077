"""The label head at the end of a graph: the C++ runtime writes the very model that the Python package writes."""

from __future__ import annotations

import onnx
import pytest

from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.native.onnx_operator import with_label_head
from deploy.precision.calibration import Calibration
from searchkit.data.streets import Streets
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size

SMALL = Size(64, 96)


@pytest.fixture(scope="session")
def head(run):
    """`head(model)`: the model with the label head at its end as C++ writes it; None where it leaves it as it is."""
    return lambda model: run("address", "probe", "tail", data=model, status=0).stdout or None


def model_of(tiny_network, io, precision):
    calibration = Calibration(Streets(SMALL), method="minmax", pictures=2) if precision == "int8" else None
    return Deployable(tiny_network(), SMALL, io, precision=precision, calibration=calibration).onnx


@pytest.mark.parametrize("network", known_names())
def test_networks(head, network):
    model = Deployable(resolve(network), Size(64, 128), "labels").onnx
    found = head(model)
    assert found == with_label_head(model)
    nodes = [(node.domain, node.op_type) for node in onnx.load_from_string(found).graph.node]
    assert nodes[-1] == ("searchkit", "LabelHead")
    assert not {"ArgMax", "Cast"} & {kind for _, kind in nodes[-4:]}


@pytest.mark.parametrize("io", sorted(CONTRACTS.names()))
def test_contracts(head, tiny_network, io):
    model = model_of(tiny_network, io, "fp32")
    found = head(model)
    assert found == with_label_head(model)
    assert (found is not None) == (io in ("labels", "triton"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("io", ["labels", "triton", "raw"])
def test_precisions(head, tiny_network, io, precision):
    model = model_of(tiny_network, io, precision)
    found = head(model)
    assert found == with_label_head(model)
    assert (found is not None) == (io != "raw")
