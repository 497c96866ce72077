import json

import pytest
import torch
from torch import nn

from bench.profile import count, profile
from searchkit.errors import UsageError
from searchkit.footprint import count_params, on_meta
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size

SMALL = Size(128, 256)


@pytest.mark.parametrize(
    ("name", "classes", "size", "params", "conv_macs"),
    [
        ("ssr", 20, Size(512, 1024), 1_022_688, 10_902_301_216),
        ("ssr-baseline1", 19, Size(512, 1024), 961_807, 11_063_394_304),
        ("fasterseg", 19, Size(1024, 2048), 3_421_875, 27_770_486_784),
    ],
)
def test_figures_of_the_papers_networks(name, classes, size, params, conv_macs):
    cost = on_meta(resolve(name).with_classes(classes).build_on_meta(), size)
    assert (cost.params, cost.conv_macs) == (params, conv_macs)


def test_fasterseg_with_training_heads():
    found = profile(resolve("fasterseg"), SMALL)
    assert found.counts.params == 3_421_875
    assert found.params_with_training_heads == 4_385_689


@pytest.mark.parametrize("name", known_names())
def test_fvcore_and_the_dispatcher_agree(name):
    network = resolve(name)
    found = profile(network, SMALL)
    counts = found.counts
    assert counts.macs_by_operator["conv"] == counts.conv_macs
    assert counts.warnings == ()
    assert counts.macs == sum(counts.macs_by_operator.values())
    top = [stage for stage in counts.stages if stage.depth == 1]
    assert sum(stage.macs for stage in top) == counts.macs
    assert sum(stage.params for stage in top) == counts.params
    assert counts.weights_bytes >= 4 * counts.params
    assert counts.activation_peak_bytes > 4 * 3 * SMALL.height * SMALL.width
    assert json.loads(json.dumps(found.to_tree()))["conv_macs"] == counts.conv_macs


def test_stages_say_what_leaves_them():
    stages = {stage.name: stage for stage in profile(resolve("ssr"), SMALL).counts.stages}
    assert stages["stage4"].output_shape == (1, 48, 32, 64)
    assert stages["stage8.9"].depth == 2
    assert stages["stage8.9"].output_shape == (1, 124, 16, 32)
    below = [stage for name, stage in stages.items() if name.startswith("stage8.")]
    assert sum(stage.macs for stage in below) == stages["stage8"].macs


def test_a_wrong_size_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="Use 104x200"):
        profile(resolve("ssr"), Size(100, 200))


class Odd(nn.Module):
    """Uses operators that fvcore has no rule for."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return torch.cumsum(self.conv(x), dim=1).erf() + 1


def test_unknown_operators_are_listed():
    counts = count(Odd(), Size(8, 8))
    assert counts.uncounted_operators == {"aten::add": 1, "aten::cumsum": 1, "aten::erf": 1}
    assert counts.conv_macs == counts.macs == 3 * 4 * 64
    assert counts.params == count_params(Odd()) == 16
    assert counts.warnings == ()


class DeadBranch(nn.Module):
    """Computes something that nobody reads: a trace drops it, a machine does not."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        self.unused(x)
        return self.used(x)


def test_a_dead_branch_is_reported():
    counts = count(DeadBranch(), Size(8, 8))
    assert counts.conv_macs == 3 * (4 + 8) * 64
    assert counts.macs == 3 * 4 * 64
    assert "dead branch" in counts.warnings[0]


def test_fvcore_counts_as_documented():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.UpsamplingBilinear2d(scale_factor=2))
    counts = count(module, Size(4, 4))
    assert counts.macs_by_operator == {"batch_norm": 2 * 3 * 16, "upsample_bilinear2d": 4 * 3 * 64}


def test_a_counted_network_is_left_alone(caplog):
    module = Odd()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count(module, Size(8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not caplog.records, "what fvcore logs stands in the result"
