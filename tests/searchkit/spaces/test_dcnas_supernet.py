"""The DCNAS supernet against Eq. 1 to 4 and 7 read literally, its shrinking, and its decoding."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from searchkit.genotype import Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.dcnas.decoding import kept, reached
from searchkit.spaces.dcnas.genotype import RATES
from searchkit.spaces.dcnas.search_space import DCNASSearchSpace
from searchkit.spaces.dcnas.supernet import DCNASSupernet
from searchkit.supernet import weights_of
from searchkit.training.search_limits import Limits

TINY = {
    "layers": 2,
    "channels": 4,
    "stem": 3,
    "head": 5,
    "inputs": 2,
    "kernels": [3, 5],
    "expansions": [3],
    "partial": 1,
}
SIZE = Size(37, 50)
WHOLE = {"partial": 1}
PART = {"partial": 4}
SHUFFLED = {"partial": 2, "shuffle": True}


def space_of(**fields) -> DCNASSearchSpace:
    return parse_settings(DCNASSearchSpace, TINY | fields, what="space")


def tiny(seed=0, **fields) -> DCNASSupernet:
    """In float64; parameters and statistics are random, and so are the logits."""
    torch.manual_seed(seed)
    net = DCNASSupernet(space_of(**fields), 4).double()
    for name, parameter in net.named_parameters():
        # Norms have one dimension, logits too.
        one = name.endswith(".1.weight")
        parameter.data = (1.0 if one else 0.0) + 0.4 * torch.randn_like(parameter)
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.2)
    return net


def relaxed(net):
    return {name: (table.dense().softmax(1).nan_to_num(0.0)) for name, table in net.tables.items()}


def halve(x):
    ones = torch.ones_like(x[:1, :1])
    kernel = torch.ones(1, 1, 3, 3, dtype=x.dtype)
    counts = F.conv2d(ones, kernel, stride=2, padding=1)
    return F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1]) / counts


def literal(net, image, weights):
    """Every module and every live candidate, whatever it weighs."""
    space, maps, x = net.space, {}, image
    for rate in RATES:
        if str(rate) in net.stem:
            x = maps[0, rate] = net.stem[str(rate)](x)
    for row, (layer, rate) in enumerate(space.places()):
        if f"{layer}_{rate}" not in net.fusion:
            continue
        module, total, share = net.fusion[f"{layer}_{rate}"], 0, 0
        size = tuple(-(-side // rate) for side in image.shape[2:])
        for column in np.flatnonzero(net.tables["connection"].alive[row]):
            source = tuple(space.sources()[column])
            term, at = maps[source], source[1]
            while at < rate:
                term, at = halve(term), 2 * at
            if source[1] != rate:
                term = F.interpolate(module.align.convs[f"{source[0]}_{source[1]}"](term), size, mode="bilinear")
            total = total + weights["connection"][row, column] * term
            share = share + weights["connection"][row, column]
        x = total / share
        # Eq. 7 with a mask over the channels.
        part = x.shape[1] // space.partial
        mixed = sum(
            weights["operator"][row, column] * operator(x[:, :part])
            for column, operator in zip(module.mixture.columns, module.mixture.operators.values(), strict=True)
        )
        out = torch.cat([mixed, x[:, part:]], 1)
        if space.shuffle:
            out = out.unflatten(1, (space.partial, -1)).transpose(1, 2).flatten(1, 2)
        maps[layer, rate] = out
    quarter = tuple(-(-side // 4) for side in image.shape[2:])
    terms = [net.head.inputs[str(rate)](maps[space.layers, rate]) for rate in RATES]
    total = sum(F.interpolate(term, quarter, mode="bilinear") for term in terms)
    return net.head.classifier(total.clamp(min=0))


def run(net, forward, weights):
    net = copy.deepcopy(net)
    leaves = {name: values.detach().clone().requires_grad_() for name, values in weights.items()}
    torch.manual_seed(1)
    image = torch.randn(2, 3, *SIZE).double()
    logits = forward(net, image, leaves)
    (logits * torch.randn_like(logits)).sum().backward()
    found = {f"gradient of {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    found |= {f"gradient of weights {name}": leaf.grad for name, leaf in leaves.items()}
    return {"logits": logits.detach()} | found | {n: b for n, b in net.named_buffers() if "running" in n}


def same(ours, theirs, tolerance=1e-9):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(1.0, float(expected.abs().max()))
        assert torch.allclose(ours[name] / scale, expected / scale, rtol=0, atol=tolerance), name


def some_alive(net, keep, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for name, table in net.tables.items():
        ranks = np.where(table.alive, rng.random(table.alive.shape), 2.0).argsort(axis=1).argsort(axis=1)
        found[name] = (ranks < keep) & table.alive
    return net.closed(found)


@pytest.mark.parametrize("layers", [1, 2, 5, 14])
def test_connections_are_as_many_as_the_paper_says(layers):
    tables = DCNASSearchSpace(layers=layers).tables()
    assert int(tables["connection"].alive.sum()) == tables["connection"].logits.numel() == 8 * layers * (layers + 1)
    assert tables["operator"].alive.shape == (4 * layers, 6)
    assert tables["connection"].keeps == 3


@pytest.mark.parametrize("fields", [WHOLE, PART, SHUFFLED], ids=["whole", "partial", "shuffled"])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_the_equations(fields, training):
    net = tiny(**fields).train(training)
    same(run(net, lambda n, *a: n(*a), relaxed(net)), run(net, literal, relaxed(net)))


def test_weights_that_do_not_sum_to_one_are_divided_by_their_sum():
    net = tiny().eval()
    weights = relaxed(net)
    image = torch.randn(1, 3, *SIZE).double()
    tripled = weights | {"connection": 3 * weights["connection"]}
    assert torch.allclose(net(image, tripled), net(image, weights), atol=1e-9)


def test_what_weighs_nothing_is_not_computed():
    net = tiny(layers=3).eval()
    alive = some_alive(net, 1, seed=4)
    weights = {name: torch.where(torch.from_numpy(alive[name]), w, 0.0) for name, w in relaxed(net).items()}
    called = set()
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    net(torch.randn(1, 3, *SIZE).double(), weights)
    there = {place.key for row, place in enumerate(net.space.places()) if alive["operator"][row].any()}
    assert 4 <= len(there) < 12
    assert {name.split(".")[1] for name in called if name.startswith("fusion.")} == there
    blocks = {name for name in called if name.startswith("fusion.") and name.split(".")[-2:-1] == ["operators"]}
    convs = {name for name in called if name.startswith("fusion.") and name.split(".")[-2:-1] == ["convs"]}
    assert len(blocks) == alive["operator"].sum() == len(there)
    assert len(convs) <= alive["connection"].sum() == len(there)


def test_a_sample_is_the_equation_over_what_is_drawn():
    """With weights of 0 the literal form computes everything and adds nothing of it."""
    net = tiny(layers=3).eval()
    weights = relaxed(net)
    row = weights["connection"]
    weights["connection"] = torch.where(row >= row.topk(2, 1).values[:, -1:], row, 0.0) * (row > 0)
    ours, theirs = run(net, lambda n, *a: n(*a), weights), run(net, literal, weights)
    assert torch.allclose(ours["logits"], theirs["logits"], atol=1e-9)
    drawn = weights["connection"] > 0
    name = "gradient of weights connection"
    assert torch.allclose(ours[name][drawn], theirs[name][drawn], atol=1e-8)
    assert (ours[name][~drawn] == 0).all()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_shrinking_leaves_what_weights_of_zero_left(keep):
    net = tiny(layers=3).eval()
    alive = some_alive(net, keep)
    weights = {n: torch.where(torch.from_numpy(alive[n]), w, 0.0) for n, w in relaxed(net).items()}
    image = torch.randn(2, 3, *SIZE).double()
    before, old = net(image, weights), net.state_dict()
    cuts = net.shrink(alive)
    assert torch.allclose(net(image, weights), before, rtol=0, atol=1e-9)
    for name, tensor in net.state_dict().items():
        (kept_,) = cuts.get(name, (None,))
        assert torch.equal(tensor, old[name] if kept_ is None else old[name][kept_]), name
    assert set(cuts) <= set(net.state_dict())
    assert len(net.state_dict()) < len(old)
    # Every parameter that is left has a part in it.
    net(image, {n: torch.from_numpy(alive[n]).double() for n in alive}).sum().backward()
    assert all(p.grad is not None for p in net.network_parameters().values())


def test_structure_follows_from_what_lives():
    net = tiny(layers=3)
    for keep in (3, 2):
        net.shrink(some_alive(net, keep))
    fresh = tiny(7, layers=3)
    fresh.shrink(net.alive())
    fresh.load_state_dict(net.state_dict())
    weights = relaxed(net)
    same(run(fresh, lambda n, *a: n(*a), weights), run(net, lambda n, *a: n(*a), weights), 0)


@pytest.mark.parametrize("seed", range(3))
def test_decided_it_is_the_discrete_network(seed):
    net = tiny(seed, layers=3).eval()
    alive = some_alive(net, 2, seed)
    alive["operator"] &= alive["operator"].cumsum(axis=1) == 1
    image = torch.randn(2, 3, *SIZE).double()
    with torch.no_grad():
        unshrunk = net(image, {n: w.double() for n, w in weights_of(alive).items()})
        net.shrink(net.closed(alive))
        assert net.undecided() == 0
        genotype, state = net.searched(Provenance(name="found", description="searched"))
        discrete = SPACES.load("dcnas").build(genotype).double()
        discrete.load_state_dict(state)
        logits = discrete.eval()(image)
    resized = F.interpolate(unshrunk, SIZE, mode="bilinear")
    assert torch.allclose(logits, resized, rtol=0, atol=1e-9 * float(resized.abs().max()))
    assert genotype.provenance.description.startswith("searched; at most 2 inputs")


def test_partial_channels_have_no_weights_of_the_discrete_network():
    net = tiny(partial=4)
    alive = some_alive(net, 1)
    net.shrink(alive)
    assert net.searched(Provenance()) is None
    genotype = net.derive(net.alive(), Provenance())
    with pytest.raises(ValueError, match="past"):
        net.discrete_state(genotype)


def test_on_the_meta_device_everything_that_lives_is_gone_through():
    with torch.device("meta"):
        net = DCNASSupernet(space_of(), 4)
    weights = {name: table.dense().softmax(1) for name, table in net.tables.items()}
    logits = net(torch.empty(1, 3, *SIZE, device="meta"), weights)
    assert logits.shape == (1, 4, 10, 13)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.network_parameters().values())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"channels": 6, "partial": 4}, "a multiple of 4"),
        ({"shuffle": True, "partial": 1}, "nothing to mix"),
        ({"kernels": [5, 3]}, "ascending"),
        ({"expansions": []}, "at least 1 item"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"threshold": 0.0}, "greater than 0"),
        ({"depth": 3}, "unknown setting"),
    ],
)
def test_settings_that_make_no_space_are_refused(fields, problem):
    from searchkit.errors import UsageError

    with pytest.raises(UsageError, match=problem):
        space_of(**fields)


def test_what_a_module_keeps_by_hand():
    p = np.array([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.9, 0.0]])
    alive = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 0]], dtype=bool)
    found = kept(p, alive, 0.5, 2)
    # A tie is broken by the first; without any preference one is left; a choice of two that may keep two is decided.
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]]
    assert kept(p[:1], alive[:1], 0.5, 3).sum() == 3
    assert kept(p[:1], alive[:1], 0.8, 3).sum() == 1


def test_what_reaches_the_head_by_hand():
    connections = np.zeros((12, 12), dtype=bool)
    # Layer 3 reads layer 2 at 1/4 alone, that reads layer 1 at 1/32; layer 1 reads the stem.
    connections[8:, 4 + 4] = True
    connections[4, 4 + 3] = connections[0:4, 1] = True
    assert np.flatnonzero(reached(connections)).tolist() == [3, 4, 8, 9, 10, 11]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    layers=st.integers(1, 5),
    keeps=st.integers(1, 4),
    threshold=st.floats(0.01, 1.0),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    lives=st.floats(0.1, 1.0),
)
def test_decoding_gives_a_connected_network_that_builds(seed, layers, keeps, threshold, scale, lives):
    """The genotype's own checks say that it is connected, without cycles and without loose ends."""
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        net = DCNASSupernet(space_of(layers=layers, inputs=keeps, threshold=threshold), 4)
        alive = net.alive()
        logits = np.where(alive["connection"], scale * rng.standard_normal(alive["connection"].shape), -np.inf)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        some = rng.random(p.shape) < lives
        some[np.arange(len(p)), rng.integers(4, size=len(p))] = True
        alive = net.closed({"connection": alive["connection"] & some, "operator": alive["operator"]})
        net.shrink(alive)
        preferences = {"connection": p, "operator": rng.random(alive["operator"].shape)}
        chosen = Limits().chosen(net, net.weighed(preferences, lambda _: None, lambda _: 0.0))
        rows = chosen["connection"].any(axis=1)
        assert (chosen["connection"].sum(axis=1) <= keeps).all()
        assert (chosen["connection"] <= kept(p, alive["connection"], threshold, keeps)).all()
        assert rows[-4:].all()
        assert (rows == chosen["operator"].any(axis=1)).all()
        genotype = net.derive(chosen, Provenance())
        network = SPACES.load("dcnas").build(genotype)
        net.shrink(chosen)
    assert net.undecided() == 0
    assert network(torch.empty(1, 3, 32, 33, device="meta")).shape == (1, 4, 32, 33)
