"""The SSR supernet against Eq. 5 read literally and the mask-vector form, and its shrinking."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.supernet_references import LiteralSupernet, MaskVectorSupernet
from searchkit.choices import one_hot
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.spaces.ssr.supernet import SSRSupernet
from searchkit.supernet import weights_of

TINY = {"depths": ((1, 2), (1, 3)), "channels": (12, 20), "width_step": 2, "width_steps": 3, "stem": 5}
ALL = ("depth", "dilation", "spatial", "channel")


def tiny(seed: int = 0, **fields: object) -> SSRSupernet:
    """A small supernet in float64 whose parameters, statistics and logits are all random."""
    torch.manual_seed(seed)
    net = SSRSupernet(SSRSearchSpace(**{**TINY, **fields}), 4).double()
    for name, parameter in net.named_parameters():
        parameter.data = 0.4 * torch.randn_like(parameter)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.2)
    return net


def relaxed(net: SSRSupernet) -> dict[str, Tensor]:
    found = {}
    for name, table in net.tables.items():
        values = torch.where(table.alive_mask, torch.sigmoid(table.dense()), 0.0)
        found[name] = values / values.sum(dim=1, keepdim=True).clamp_min(1e-9)
    return found


def some_alive(net: SSRSupernet, keep: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ranks = {n: rng.random(t.alive.shape).argsort(axis=1).argsort(axis=1) for n, t in net.tables.items()}
    return net.closed({n: (rank < keep) & net.tables[n].alive for n, rank in ranks.items()})


def run(net: SSRSupernet, form: type[SSRSupernet]) -> dict[str, Tensor]:
    """Logits, the gradient of every parameter and every buffer afterwards, with the same dropout in every form."""
    net = copy.deepcopy(net)
    net.__class__ = form
    torch.manual_seed(1)
    image, direction = torch.randn(2, 3, 24, 40).double(), torch.randn(2, 4, 3, 5).double()
    logits = net(image, relaxed(net))
    (logits * direction).sum().backward()
    gradients = {f"gradient of {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients, **dict(net.named_buffers())}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        assert torch.allclose(ours[name] / scale, expected / scale, rtol=0, atol=tolerance), name


@pytest.mark.parametrize("form", [LiteralSupernet, MaskVectorSupernet])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pool": "max"},
        {"mid_norm": False},
        {"dimensions": ("dilation",)},
        {"dimensions": ("dilation", "spatial")},
        {"dimensions": ("dilation", "channel")},
        {"dimensions": ("dilation", "spatial", "channel")},
    ],
)
def test_outputs_and_gradients_are_those_of_the_plain_forms(form, training, fields):
    if "depth" not in fields.get("dimensions", ALL):
        fields = {**fields, "depths": ((5,), (8,))}
    net = tiny(**fields).train(training)
    # Eight layers in evaluation mode with random statistics grow large; the tolerance is relative to the greatest.
    same(run(net, SSRSupernet), run(net, form), 1e-8)


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize("training", [True, False])
def test_shrunk_nets_are_those_of_the_plain_form_too(keep, training):
    net = tiny().train(training)
    net.shrink(some_alive(net, keep))
    same(run(net, SSRSupernet), run(net, LiteralSupernet))


def test_float32_is_equal_to_1e_5():
    """Where float64 says 1e-9, what rounding leaves."""
    net = tiny().float()
    weights = relaxed(net)
    plain = copy.deepcopy(net)
    plain.__class__ = LiteralSupernet
    image = torch.randn(2, 3, 32, 48)
    found = []
    for each in (net, plain):
        torch.manual_seed(2)
        found.append(each(image, weights))
    ours, theirs = (logits.detach() for logits in found)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


def test_checkpointing_changes_nothing():
    net = tiny()
    expected = run(net, SSRSupernet)
    net.checkpointing = True
    same(run(net, SSRSupernet), expected, 1e-12)


@pytest.mark.parametrize("architecture", [True, False])
def test_steps_of_one_kind_have_the_gradients_of_both(architecture):
    net = tiny()
    expected = run(net, SSRSupernet)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("choice_tables.") == architecture)
    found = run(net, SSRSupernet)
    same(found, {name: expected[name] for name in found}, 1e-12)
    named = {name for name in found if name.startswith("gradient of ")}
    assert named
    assert all(name.startswith("gradient of choice_tables.") == architecture for name in named)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fields", [{}, {"pool": "max"}, {"mid_norm": False}])
def test_decided_it_is_the_discrete_network(seed, fields):
    net = tiny(seed, head="classifier", **fields)
    image = torch.randn(2, 3, 24, 40).double()
    rng = np.random.default_rng(seed)
    alive = net.closed(one_hot({n: rng.random(m.shape) for n, m in net.alive().items()}, net.alive()))
    net.shrink(alive)
    genotype = net.derive(net.alive(), Provenance())
    discrete = SPACES.load("ssr").build(genotype).double()
    discrete.load_state_dict(net.discrete_state())
    with torch.no_grad():
        assert torch.allclose(net.eval()(image, relaxed(net)), discrete.eval()(image), rtol=0, atol=1e-9)
        # Unshrunk, where the rest only weighs nothing, it is the same network.
        whole, weights = tiny(seed, head="classifier", **fields), weights_of(alive)
        found = whole.eval()(image, {name: values.double() for name, values in weights.items()})
        assert torch.allclose(found, discrete(image), rtol=0, atol=1e-9)
    assert sum(p.numel() for p in discrete.parameters()) == genotype.cost(Size(64, 64)).params


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_shrinking_leaves_what_the_weights_of_zero_left(keep):
    net = tiny().eval()
    alive = some_alive(net, keep)
    weights = {n: torch.where(torch.from_numpy(alive[n]), w, 0.0) for n, w in relaxed(net).items()}
    image = torch.randn(2, 3, 24, 40).double()
    before = net(image, weights)
    net.shrink(alive)
    assert torch.allclose(net(image, weights), before, rtol=0, atol=1e-9)


def test_cuts_say_what_was_kept():
    net = tiny()
    old = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for keep in (5, 2, 1):
        cuts = net.shrink(some_alive(net, keep))
        new = net.state_dict()
        for name, tensor in new.items():
            expected = old[name]
            for dimension, kept in enumerate(cuts.get(name, ())):
                expected = expected if kept is None else expected.index_select(dimension, kept)
            assert torch.equal(tensor, expected), name
        assert set(cuts) <= set(new)
        assert sum(p.numel() for p in new.values()) < sum(p.numel() for p in old.values())
        old = {name: tensor.clone() for name, tensor in new.items()}


def test_structure_follows_from_what_lives():
    net = tiny()
    for keep in (5, 2):
        net.shrink(some_alive(net, keep))
    fresh = tiny(7)
    fresh.shrink(net.alive())
    fresh.load_state_dict(net.state_dict())
    same(run(fresh, SSRSupernet), run(net, SSRSupernet), 0)


def test_closed_takes_what_depends_on_what_is_gone():
    net = tiny()
    alive = net.alive()
    alive["depth8"][0] = [True, False]
    alive["operator"][0, 3] = False
    closed = net.closed(alive)
    assert not closed["operator"][3:].any()
    assert closed["operator"][:3].sum() == 29
    assert not closed["mid4"][3].any()
    assert not closed["out4"][3].any()
    assert closed["mid4"].any(axis=1).sum() == 19
    assert not closed["out8"][10:].any()
    net.shrink(closed)
    assert len(net.stage8) == 1
    assert "d8s1" not in net.stage4[0].operators
    assert net.undecided() == sum(int((mask.sum(axis=1) > 1).sum()) for mask in closed.values())


def test_levels_in_hierarchical_order_and_the_size_of_the_space():
    space = SSRSearchSpace()
    with torch.device("meta"):
        net = SSRSupernet(space, 19)
    assert net.levels == ("depth", "dilation-spatial", "channel")
    assert round(space.log10_size(), 2) == 324.44
    assert net.tables["mid8"].alive.shape == (100, 9)


def test_bfloat16_is_near_and_always_finite():
    """Some kernels were seen to read memory that nobody wrote; freed memory is therefore full of NaN here."""
    net = tiny(dimensions=ALL).float()
    expected = None
    for round_ in range(12):
        poison = [torch.full((2, 20, 24 // k, 40 // k), float("nan"), dtype=torch.bfloat16) for k in (2, 4, 8) * 20]
        del poison
        for dtype in (torch.float32, torch.bfloat16) if round_ == 0 else (torch.bfloat16,):
            net.compute_dtype = dtype
            net.zero_grad(set_to_none=True)
            torch.manual_seed(3)
            logits = net(torch.randn(2, 3, 24, 40), relaxed(net))
            logits.square().mean().backward()
            assert logits.dtype == torch.float32
            assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
            expected = logits.detach() if expected is None else expected
            assert float((logits.detach() - expected).norm() / expected.norm()) < 0.1
