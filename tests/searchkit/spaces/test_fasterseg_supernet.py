"""The FasterSeg supernet against its equations read plainly, against the networks it derives, and its shrinking."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.fasterseg_step import BASELINE, FORMS, activation_bytes, backward
from searchkit.choices import one_hot
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg.genotype import FasterSegLayer
from searchkit.spaces.fasterseg.search_space import FasterSegSearchSpace
from searchkit.spaces.fasterseg.supernet import FasterSegSupernet
from searchkit.strategies import STRATEGIES, Progress
from searchkit.supernet import weights_of

TINY = {"layers": 5, "widths": (1, 2, 3), "stem_width": 2, "head_width": 2}
CLASSES, SIZE = 4, (64, 96)


def tiny(seed: int = 0, **fields: object) -> FasterSegSupernet:
    """A small supernet whose parameters and statistics are all random."""
    torch.manual_seed(seed)
    net = FasterSegSupernet(FasterSegSearchSpace(**{**TINY, **fields}), CLASSES)
    for name, parameter in net.named_parameters():
        if "norms" in name:
            parameter.data = torch.rand_like(parameter) + 0.5
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return net


def decided(net: FasterSegSupernet, seed: int) -> dict[str, np.ndarray]:
    """A random network."""
    rng = np.random.default_rng(seed)
    alive = net.alive()
    return net.closed(one_hot({name: rng.random(mask.shape) for name, mask in alive.items()}, alive))


def some_alive(net: FasterSegSupernet, seed: int, share: float = 0.5) -> dict[str, np.ndarray]:
    """About a share of all candidates, and of each choice one."""
    rng = np.random.default_rng(seed)
    alive = net.alive()
    one = one_hot({name: rng.random(mask.shape) for name, mask in alive.items()}, alive)
    return net.closed({name: mask & (one[name] | (rng.random(mask.shape) < share)) for name, mask in alive.items()})


def softmaxes(net: FasterSegSupernet, *, grad: bool = False) -> dict[str, Tensor]:
    """Random weights of what lives."""
    found = {}
    for name, table in net.tables.items():
        mask = table.alive_mask
        soft = (torch.randn(mask.shape).masked_fill(~mask, -1e9).softmax(dim=1) * mask).detach()
        found[name] = soft.requires_grad_(grad)
    return found


def pictures() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def layers_of(genotype) -> list[FasterSegLayer]:
    return [*genotype.shared, *(layer for branch in genotype.branches for layer in branch)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("fields", [{}, {"teacher": False, "branches": ("8+16", "8+32", "16+32")}])
def test_a_decided_supernet_is_the_derived_network(seed, fields):
    net = tiny(seed, **fields).eval()
    alive = decided(net, seed)
    with torch.no_grad():
        before = net(pictures(), weights_of(alive))
        net.shrink(alive)
        after = net(pictures(), weights_of(alive))
    assert torch.equal(before, after)
    assert after.std() > 1e-3
    found = net.searched(Provenance())
    assert found is not None
    genotype, state = found
    assert genotype == net.derive(alive, Provenance())
    discrete = SPACES.load("fasterseg").build(genotype).eval()
    discrete.load_state_dict(state)
    with torch.no_grad():
        logits = discrete(pictures())
    expected = F.interpolate(after, size=SIZE, mode="bilinear", align_corners=True)
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_decided_supernet_holds_little_more_than_its_network():
    """One branch's single heads, which train it, and nothing of what was removed."""
    net = tiny(teacher=False)
    net.shrink(decided(net, 1))
    _, state = net.searched(Provenance())
    singles = sum(p.numel() for p in net.singles.parameters())
    discrete = sum(v.numel() for name, v in state.items() if "running" not in name and "tracked" not in name)
    logits = sum(p.numel() for p in net.architecture_parameters().values())
    assert sum(p.numel() for p in net.parameters()) - singles - logits == discrete


def test_equal_layers_of_different_cells_cannot_be_given_as_one():
    """A branch that skips, and then halves the resolution just as the other has, shares that layer when derived."""
    net = tiny(teacher=False, branches=("16+32",))
    alive = {name: np.zeros_like(mask) for name, mask in net.alive().items()}
    alive["branches"][0, 0] = True
    alive["operator"][:, net.space.operators().index("conv")] = True
    for layer in (1, 2):
        alive["operator"][net.space.operator_row(0, layer)] = [True, False, False, False, False]
    alive["width"][:, 1] = True
    # To 1/32 by strides in layers 1 and 2; to 1/16 by one in layer 2, behind a skip in layer 1.
    for table, layer, rate, candidate in (("path16", 2, 1, 0), ("path32", 3, 2, 0), ("path32", 4, 2, 1)):
        alive[table][net.space.path_row(rate, layer), candidate] = True
    for layer, candidate in ((3, 0), (4, 1)):
        alive["path16"][net.space.path_row(1, layer), candidate] = True
    alive = net.closed(alive)
    net.shrink(alive)
    genotype = net.derive(net.alive(), Provenance())
    assert [layer.stride for layer in genotype.shared] == [1, 2]
    assert net.searched(Provenance()) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("teacher", [True, False])
def test_what_is_removed_was_not_needed(seed, teacher):
    """Outputs of every pass stay, and every cut is told as it was made."""
    net = tiny(seed, teacher=teacher).eval()
    alive = some_alive(net, seed)
    old, before = copy.deepcopy(net), dict(net.named_parameters())
    cuts = net.shrink(alive)
    weights = softmaxes(net)
    with torch.no_grad():
        for each in (weights, *net.passes(weights, warmup=False), *net.passes(weights, warmup=True)):
            expected = old(pictures(), each)
            assert torch.allclose(net(pictures(), each), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert sum(p.numel() for p in net.parameters()) < 0.8 * sum(p.numel() for p in old.parameters())
    for name, parameter in net.named_parameters():
        kept = before[name].detach()
        for dimension, indices in enumerate(cuts.get(name, (None,) * kept.dim())):
            kept = kept if indices is None else kept.index_select(dimension, indices)
        assert torch.equal(parameter, kept), name


def test_the_teacher_keeps_its_channels():
    """Where the student has become narrow, what only the teacher is wide for stays."""
    net = tiny()
    alive = net.alive()
    alive["width"][:, 1:] = False
    alone = tiny(teacher=False)
    narrow = {name: mask for name, mask in alive.items() if not name.startswith("teacher")}
    net.shrink(net.closed(alive))
    alone.shrink(alone.closed(narrow))
    for supernet, most in ((net, 24), (alone, 8)):
        assert supernet.cells["8_1"].same["conv"].convs[0].conv.out_channels == most
    assert list(net.cells["8_1"].same["conv"].norms) == ["1", "3"]
    assert list(alone.cells["8_1"].same["conv"].norms) == ["1"]
    passes = list(net.passes(softmaxes(net), warmup=False))
    assert len(passes) == 2  # The teacher's and the student's: there is but one width.
    for each in passes:
        net(pictures(), each)


@pytest.mark.parametrize("fields", [{}, {"teacher": False, "branches": ("8+16",)}, {"stem_width": 1}])
def test_shrinking_to_what_lives_changes_nothing(fields):
    """As a search does that goes on from a checkpoint."""
    net = tiny(**fields)
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    cuts = net.shrink(net.alive())
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == shapes
    assert all(kept is not None for name, (kept,) in cuts.items())
    assert all(name.startswith("choice_tables.") for name in cuts)
    seen = net.shrink(some_alive(net, 3))
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    assert seen
    net.shrink(net.alive())
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == shapes


def plain(net: FasterSegSupernet, weights: dict[str, Tensor]) -> Tensor:
    """Eq. 1 and 2 in evaluation mode: every cell by its modules, all maps as wide as can be; logits of the mixture."""
    space, layers = net.space, net.space.layers
    wide = {rate: space.widest * (8 << rate) for rate in range(3)}

    def padded(x: Tensor, rate: int) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, wide[rate] - x.shape[1]))

    def made(x: Tensor, modules, rate: int, operators: Tensor, widths: list[tuple[int, Tensor | float]]) -> Tensor:
        total: Tensor | float = 0.0
        for column, name in enumerate(space.operators()):
            if name == "skip" and "skip" not in modules:
                total = total + operators[column] * padded(x, rate)
                continue
            if name not in modules:
                continue
            # Kernels have no inputs for channels that no map has.
            given = x[:, : next(p for p in modules[name].parameters() if p.dim() == 4).shape[1]]
            half = F.interpolate(
                given, (given.shape[-2] // 2, given.shape[-1] // 2), mode="bilinear", align_corners=True
            )
            for width, share in widths:
                total = total + operators[column] * share * padded(modules[name](given, half, width), rate)
        return total

    def widths(rate: int, layer: int) -> list[tuple[int, Tensor | float]]:
        if layer == layers:
            return [(space.head_width, 1.0)]
        return list(zip(space.widths, weights["width"][space.width_row(rate, layer)], strict=True))

    def beta(rate: int, layer: int) -> tuple[Tensor | float, Tensor | float]:
        row = space.path_row(rate, layer)
        if row is None:
            return (1.0, 0.0) if rate else (0.0, 1.0)
        return tuple(weights[space.path_table(rate)][row])

    inputs, outputs = {(0, 0): padded(net.stem(pictures(), space.stem_width), 0)}, {}
    for layer in range(layers):
        for rate in range(min(layer, 2) + 1):
            if layer:
                finer, same = beta(rate, layer)
                found = [finer * outputs["down", rate - 1, layer - 1]] if rate else []
                found += [same * outputs["same", rate, layer - 1]] if rate < layer else []
                inputs[rate, layer] = sum(found)
            cell, x = net.cells[f"{8 << rate}_{layer}"], inputs[rate, layer]
            operators = weights["operator"][space.operator_row(rate, layer)]
            outputs["same", rate, layer] = made(x, cell.same, rate, operators, widths(rate, layer + 1))
            if rate < 2 and layer + 1 < layers:
                outputs["down", rate, layer] = made(x, cell.down, rate + 1, operators, widths(rate + 1, layer + 1))

    def merged(end: int) -> Tensor:
        # The probability of every path to this end, and the maps that it leaves behind.
        exits = {}
        ways = [(1.0, end, ())]
        for layer in range(layers - 1, 0, -1):
            onward = []
            for p, rate, left in ways:
                finer, same = beta(rate, layer)
                if rate:
                    onward.append((p * finer, rate - 1, (*left, (rate - 1, layer - 1))))
                if rate < layer:
                    onward.append((p * same, rate, left))
            ways = onward
        for p, _, left in ways:
            for rate, layer in left:
                exits[rate] = exits.get(rate, 0.0) + p * inputs[rate, layer]
        x = outputs["same", end, layers - 1][:, : space.head_width * (8 << end)]
        for rate in range(end, 0, -1):
            merge = net.merges[str(8 << end)][f"from{8 << rate}"]
            x = merge(x, exits[rate - 1][:, : merge.refine.inputs[1]], space.head_width)
        return x

    total: Tensor | float = 0.0
    for pair, name in enumerate(space.branches):
        fine, coarse = sorted(space.ends(pair))
        total = total + weights["branches"][0, pair] * net.pairs[name](merged(coarse), merged(fine), space.head_width)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_relaxed_network_is_its_equations_read_plainly(seed):
    net = tiny(seed, teacher=False, branches=("8+16", "8+32", "16+32")).eval()
    weights = softmaxes(net)
    with torch.no_grad():
        expected = plain(net, weights)
        assert torch.allclose(net(pictures(), weights), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("architecture", [True, False])
def test_a_backward_each_gives_the_gradients_of_the_sum(checkpointing, architecture):
    found = []
    for together in (True, False):
        net = tiny(2)
        net.checkpointing = checkpointing and not together
        for parameter in net.network_parameters().values():
            parameter.requires_grad_(not architecture)
        torch.manual_seed(4)
        weights = softmaxes(net, grad=architecture)
        labels = torch.randint(CLASSES, (2, SIZE[0] // 8, SIZE[1] // 8))
        backward(net, pictures(), labels, weights, together=together)
        gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        found.append(
            (gradients | {n: w.grad for n, w in weights.items() if w.grad is not None}, dict(net.named_buffers()))
        )
    (ours, statistics), (theirs, expected) = found
    assert ours.keys() == theirs.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in ours.values())
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max())), name
    if architecture:
        wanted = {"branches", "operator", "path16", "path32", "width", "teacher_operator", "teacher_path16"}
        assert wanted <= {name for name, gradient in ours.items() if gradient.abs().max() > 0}
    for name, buffer in expected.items():
        assert torch.allclose(statistics[name].float(), buffer.float(), rtol=1e-5, atol=1e-6), name


def test_memory_is_less_than_half_of_one_backward_of_mixed_outputs():
    """By what is allocated on a CPU, where so small a network is gone through faster than on the meta device."""
    space = FasterSegSearchSpace(layers=5, widths=(1, 2), stem_width=1, head_width=1)
    names = (BASELINE, "inputs mixed, a backward each", "inputs mixed, a backward each, checkpointing")
    baseline, ours, checkpointed = (
        activation_bytes(FORMS[name], space, Size(64, 128), 2, architecture=False, device="cpu") for name in names
    )
    assert checkpointed < ours < 0.5 * baseline


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_leads_to_a_network(name):
    strategy_type = STRATEGIES.load(name)
    net = tiny(layers=4, widths=(1, 2), stem_width=1, head_width=1)
    strategy = strategy_type(strategy_type.settings_type(), net.levels)
    torch.manual_seed(0)
    for decision in range(2):
        leaves = {n: strategy.relax(table).detach().requires_grad_() for n, table in net.tables.items()}
        labels = torch.randint(CLASSES, (2, SIZE[0] // 8, SIZE[1] // 8))
        backward(net, pictures(), labels, leaves, together=False)
        for table in net.tables.values():
            table.logits.data += 0.5 * torch.randn_like(table.logits)
        progress = Progress(decision + 1, 2, decision, 2)
        net.shrink(net.closed(strategy.decide(net.tables, progress, lambda alive: True)))
    preferences = {n: strategy.probabilities(table).detach().numpy() for n, table in net.tables.items()}
    weighed = net.weighed(preferences, lambda weights: 0.5, lambda alive: 1.0)
    alive = net.closed(one_hot(weighed, net.alive()))
    net.shrink(alive)
    assert net.undecided() == 0
    student, teacher = net.derive(alive, Provenance()), net.companions(Provenance())["teacher"]
    for genotype in (student, teacher):
        SPACES.load("fasterseg").build(genotype)
    assert {layer.width for layer in layers_of(teacher)} == {2}
    assert teacher.stem_width == teacher.head_width == 2
    assert "skip" not in {layer.operator for layer in layers_of(teacher)}
