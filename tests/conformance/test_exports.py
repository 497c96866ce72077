"""Networks of every space are exported with the operators that a model may have, whatever the sides of their maps."""

from __future__ import annotations

from random import Random

import pytest

from deploy.deployable import Deployable
from deploy.onnx_gate import check_onnx
from searchkit.genotype import parse
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.strict_json import canonical


def strided_skips() -> dict:
    """FasterSeg's rarest operator, which its published networks do not have, at both of its places."""
    layers = [{"operator": "skip", "width": 2, "stride": 2} for _ in range(2)]
    return {
        "schema": 1,
        "space": "fasterseg",
        "classes": 5,
        "stem_width": 1,
        "head_width": 1,
        "shared": [],
        "branches": [layers],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES.names())
def test_a_drawn_network_passes_the_gate(name):
    genotype = SPACES.load(name).sample(Random(3))
    model = Deployable(from_genotype(genotype), genotype.size_rule.nearest(Size(72, 104)), "raw")
    check_onnx(model.onnx, where=name, written_here=True)


@pytest.mark.parametrize("size", [Size(64, 128), Size(40, 72)])
def test_strided_skips_pass_it(size):
    model = Deployable(from_genotype(parse(canonical(strided_skips()), where="x")), size, "raw")
    check_onnx(model.onnx, where="x", written_here=True)
