"""The SSR network: its published figures to the last digit, and its blocks against references written out here."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchkit import genotype
from searchkit.blocks import ERFNetDownsampler
from searchkit.footprint import count_params, on_meta
from searchkit.networks import SHIPPED, resolve
from searchkit.sizes import Size
from searchkit.spaces.ssr.genotype import AggregationHead, ClassifierHead, SSRLayer, sample
from searchkit.spaces.ssr.network import PrefixResidual, PyramidPooling, SSRAggregation, SSRBlock

REFERENCE = Size(512, 1024)
CLOSE = {"rtol": 0, "atol": 1e-11}


def published(classes: int = 20):
    """The published network; its authors also count a channel for pixels that are ignored."""
    return resolve("ssr").with_classes(classes)


def changed(**fields: object) -> genotype.Genotype:
    tree = json.loads((SHIPPED / "ssr.json").read_text()) | fields
    return genotype.parse(json.dumps(tree).encode(), where="test.json")


def build(found: genotype.Genotype, device: str = "cpu") -> nn.Module:
    from searchkit.spaces import SPACES

    with torch.device(device):
        return SPACES.load("ssr").build(found)


def test_published_figures():
    cost = on_meta(published().build_on_meta(), REFERENCE)
    assert cost.params == 1_022_688
    assert cost.conv_macs == 10_902_301_216
    assert published().genotype.cost(REFERENCE).params == 1_022_688
    assert published().genotype.cost(REFERENCE).conv_macs == 10_902_301_216


def test_published_figures_with_19_classes():
    cost = on_meta(published(19).build_on_meta(), REFERENCE)
    assert (cost.params, cost.conv_macs) == (1_022_559, 10_898_106_912)


@pytest.mark.parametrize("name", ["ssr-baseline1", "ssr-baseline2"])
def test_published_figures_of_the_baselines(name):
    cost = on_meta(resolve(name).build_on_meta(), REFERENCE)
    assert round(cost.params / 1e6, 4) == 0.9618
    assert round(cost.conv_macs / 1e9, 3) == 11.063


def test_paper_figures_at_other_sizes():
    """The paper prints 3.6, 24.8 and 44.2 G, which count BatchNorm, ReLU and biases too: 1.5 % more."""
    for size, printed in ((Size(360, 480), 3.6), (Size(768, 1536), 24.8), (Size(1024, 2048), 44.2)):
        assert published().genotype.cost(size).conv_macs / 1e9 == pytest.approx(printed, rel=0.02)


def test_published_figures_by_part(count_parts):
    parts = count_parts(published().build_on_meta(), REFERENCE)
    gmacs = {
        "stem": parts.macs("stem", "stage4.0"),
        "layers at 1/4": parts.macs("stage4.1", "stage4.2", "stage4.3", "stage4.4"),
        "downsampler to 1/8": parts.macs("stage8.0"),
        "layers at 1/8": parts.macs(*(f"stage8.{i}" for i in range(1, 10))),
        "pyramid": parts.macs("head.context"),
        "low": parts.macs("head.low"),
        "fuse": parts.macs("head.fuse"),
        "classifier": parts.macs("head.classifier"),
    }
    assert {name: round(macs / 1e9, 3) for name, macs in gmacs.items()} == {
        "stem": 0.272,
        "layers at 1/4": 2.636,
        "downsampler to 1/8": 0.283,
        "layers at 1/8": 5.273,
        "pyramid": 0.340,
        "low": 1.208,
        "fuse": 0.805,
        "classifier": 0.084,
    }


@pytest.mark.parametrize("size", [REFERENCE, Size(264, 392), Size(16, 16)])
@pytest.mark.parametrize("name", ["ssr", "ssr-baseline1"])
def test_stage_costs_are_those_of_the_modules(count_parts, name, size):
    network = resolve(name)
    parts = count_parts(network.build_on_meta(), size)
    stages = list(network.genotype.stage_costs(size))
    assert [stage.name for stage in stages] == ["stem", "stage 1/4", "stage 1/8", "head"]
    for stage, module in zip(stages, ("stem", "stage4", "stage8", "head"), strict=True):
        assert (stage.params, stage.conv_macs) == (parts.params(module), parts.macs(module))


def test_largest_layer_by_hand():
    bare = changed(head={"type": "classifier"}).cost(Size(64, 128))
    # The first layer at 1/4 keeps 64 channels: 16 x 32 pixels in, as many out, four bytes each.
    assert bare.activation_bytes == 4 * (64 + 64) * 16 * 32
    # With the aggregation block the resize of 19 logits from 1/4 to the input's size is larger.
    assert changed().cost(Size(64, 128)).activation_bytes == 4 * 19 * (16 * 32 + 64 * 128)


@pytest.mark.parametrize("size", [Size(64, 128), Size(264, 392), Size(720, 960)])
def test_logits_shape(size):
    image = torch.empty(2, 3, *size, device="meta")
    assert published(19).build_on_meta()(image).shape == (2, 19, *size)
    assert resolve("ssr-baseline1").build_on_meta()(image).shape == (2, 19, size.height // 8, size.width // 8)


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    """BatchNorm in evaluation mode, with the epsilon of ERFNet."""
    if isinstance(layer, nn.Identity):
        return x
    scale = layer.weight / torch.sqrt(layer.running_var + 1e-3)
    return (x - layer.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def taps(x: Tensor, conv: nn.Conv2d, dilation: int, axis: int) -> Tensor:
    """A convolution with three taps along one axis, tap by tap; zeros outside of the map."""
    weight = conv.weight.flatten(2)
    out = torch.zeros(x.shape[0], weight.shape[0], *x.shape[2:], dtype=x.dtype) + conv.bias.view(1, -1, 1, 1)
    length = x.shape[axis]
    for tap, offset in enumerate((-dilation, 0, dilation)):
        for place in range(max(0, -offset), min(length, length - offset)):
            seen = x.select(axis, place + offset)
            out.select(axis, place).add_(torch.einsum("oi,nil->nol", weight[:, :, tap], seen))
    return out


def pool_2x2(x: Tensor, pool: str) -> Tensor:
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    four = torch.stack([x[:, :, y:height:2, z:width:2] for y in (0, 1) for z in (0, 1)])
    return four.mean(0) if pool == "average" else four.amax(0)


def prefix_sum(x: Tensor, identity: Tensor) -> Tensor:
    out = x.clone()
    for channel in range(min(x.shape[1], identity.shape[1])):
        out[:, channel] += identity[:, channel]
    return out


LAYERS = [
    # in, mid, out, dilation, spatial, pool, mid_norm
    (6, 5, 4, 1, 1, "average", True),
    (4, 5, 6, 2, 1, "average", False),
    (5, 3, 5, 4, 2, "average", True),
    (6, 4, 3, 1, 2, "max", False),
    (3, 4, 6, 2, 2, "max", True),
    (4, 4, 4, 8, 1, "max", False),
    (4, 6, 5, 16, 2, "average", False),
]


@pytest.mark.parametrize(("width", "mid", "out", "dilation", "spatial", "pool", "mid_norm"), LAYERS)
@pytest.mark.parametrize("size", [(12, 10), (9, 13)])
def test_block_step_by_step(trained, resize_aligned, width, mid, out, dilation, spatial, pool, mid_norm, size):
    layer = SSRLayer(dilation=dilation, spatial=spatial, mid=mid, out=out)
    block = trained(SSRBlock(width, layer, pool=pool, mid_norm=mid_norm, dropout=0.3))
    x = torch.randn(2, width, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = pool_2x2(x, pool) if spatial == 2 else x
    y = norm(taps(y, block.conv3x1, dilation, 2), block.norm3x1).clamp_min(0)
    y = norm(taps(y, block.conv1x3, dilation, 3), block.norm1x3)
    if spatial == 2:
        y = resize_aligned(y, *size)
    expected = prefix_sum(y, x).clamp_min(0)
    assert isinstance(block.norm3x1, nn.BatchNorm2d) == mid_norm
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected.detach(), **CLOSE)


@pytest.mark.parametrize(("channels", "identity"), [(4, 7), (7, 4), (5, 5)])
def test_prefix_residual(channels, identity):
    x, skip = torch.randn(2, channels, 3, 4), torch.randn(2, identity, 3, 4)
    assert torch.equal(PrefixResidual()(x, skip), prefix_sum(x, skip))


def test_downsampler_by_hand(trained):
    block = trained(ERFNetDownsampler(3, 8))
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1))
    convolved = torch.zeros(2, 5, 3, 5, dtype=torch.float64) + block.conv.bias.view(1, -1, 1, 1)
    for row in range(3):
        for column in range(3):
            seen = padded[:, :, row : row + 5 : 2, column : column + 9 : 2]
            convolved += torch.einsum("oi,nihw->nohw", block.conv.weight[:, :, row, column], seen)
    joined = torch.cat([convolved, pool_2x2(x, "max")], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(block(x), norm(joined, block.norm).clamp_min(0).detach(), **CLOSE)


HEAD = AggregationHead(type="aggregation", low=5, bins=(1, 2, 3), bin_channels=4, context=6, fuse=7)


def pointwise(x: Tensor, unit: nn.Sequential) -> Tensor:
    """The convolution and the BatchNorm of a unit, epsilon of PyTorch, and no activation."""
    convolved = F.conv2d(x, unit[0].weight, padding=unit[0].kernel_size[0] // 2)
    return F.batch_norm(convolved, unit[1].running_mean, unit[1].running_var, unit[1].weight, unit[1].bias)


def pyramid(x: Tensor, block: PyramidPooling) -> Tensor:
    maps = [x]
    for bins, reduce in zip((1, 2, 3), block.reduce, strict=True):
        pooled = pointwise(F.adaptive_avg_pool2d(x, bins), reduce)
        maps.append(F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
    return pointwise(torch.cat(maps, 1), block.fuse[0]).clamp_min(0)


def test_aggregation_joins_its_maps_in_the_published_order(trained):
    head = trained(SSRAggregation(3, 4, 5, HEAD, classes=2))
    image, half = torch.randn(1, 3, 48, 72).double(), torch.randn(1, 3, 24, 36).double()
    quarter, eighth = torch.randn(1, 4, 12, 18).double(), torch.randn(1, 5, 6, 9).double()
    low = pointwise(torch.cat([quarter, pool_2x2(half, "average")], 1), head.low).clamp_min(0)
    context = F.interpolate(pyramid(eighth, head.context), (12, 18), mode="bilinear", align_corners=False)
    fused = pointwise(torch.cat([context, low], 1), head.fuse[0]).clamp_min(0)
    logits = F.conv2d(fused, head.classifier.weight, head.classifier.bias)
    expected = F.interpolate(logits, (48, 72), mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(head(image, half, quarter, eighth), expected.detach(), **CLOSE)


def test_network_is_its_parts_in_order(trained):
    network = trained(build(changed()))
    image = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        half = network.stem(image)
        quarter = network.stage4[4](network.stage4[3](network.stage4[2](network.stage4[1](network.stage4[0](half)))))
        eighth = quarter
        for layer in network.stage8:
            eighth = layer(eighth)
        assert torch.equal(network(image), network.head(image, half, quarter, eighth))
    assert (half.shape[1:], quarter.shape[1:], eighth.shape[1:]) == ((16, 16, 24), (48, 8, 12), (124, 4, 6))


def test_dropout_rates_are_those_of_erfnet():
    network = build(changed(), "meta")
    rates = {name: layer.p for name, layer in network.named_modules() if isinstance(layer, nn.Dropout2d)}
    assert {rate for name, rate in rates.items() if name.startswith("stage4")} == {0.03}
    assert {rate for name, rate in rates.items() if name.startswith("stage8")} == {0.3}
    assert {rate for name, rate in rates.items() if name.startswith("head")} == {0.1}
    assert len(rates) == 4 + 9 + 2


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    layer = SSRLayer(dilation=1, spatial=1, mid=32, out=32)
    block, x = SSRBlock(32, layer, pool="average", mid_norm=True, dropout=0.5), torch.randn(2, 32, 8, 8)
    block.train()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


@pytest.mark.parametrize("name", ["ssr", "ssr-baseline1"])
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    network = resolve(name).build()
    assert network.training
    network(torch.randn(2, 3, 32, 64)).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is not used"
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.dim() == 1 or parameter.grad.abs().sum() > 0, parameter_name


def test_training_heads_change_nothing():
    assert count_params(resolve("ssr").build(training_heads=True)) == 1_022_559


def test_head_types_are_told_apart():
    assert isinstance(changed().head, AggregationHead)
    assert isinstance(changed(head={"type": "classifier"}).head, ClassifierHead)


# None of these draws a layer that pools; a sampled "max" was refused then.
@pytest.mark.parametrize("seed", [759, 2963, 3460, 6134, 9038, 19945])
def test_sample_without_a_pooled_layer(seed):
    found = sample(Random(seed))
    assert all(layer.spatial == 1 for stage in found.stages for layer in stage.layers)
    assert found.pool == "average"
