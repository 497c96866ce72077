import gc
import weakref

import pytest
import torch
from torch import nn

from searchkit.training.carry_over import carried_over, cut, named_state, restore_named_state

MAKERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-3),
    "fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-3, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
}


def parameters():
    torch.manual_seed(0)
    shapes = {"wide": (6, 4, 3, 3), "bias": (6,), "scale": (), "gone": (5,), "same": (2, 3)}
    found = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return {name: channels_last(p) if p.dim() == 4 else p for name, p in found.items()}


def channels_last(parameter):
    """Fused optimisers take numbers as they lie in memory: moments must lie as the parameter does."""
    return nn.Parameter(parameter.detach().contiguous(memory_format=torch.channels_last))


CUTS = {"wide": (torch.tensor([0, 1, 4]), torch.tensor([0, 2]), None, None), "bias": (torch.tensor([0, 1, 4]),)}


def stepped(optimiser, moved, seed):
    torch.manual_seed(seed)
    for parameter in moved.values():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()


def shrunk(before):
    after = {
        name: nn.Parameter(cut(p.detach(), CUTS[name]).clone()) if name in CUTS else p
        for name, p in before.items()
        if name != "gone"
    }
    return after | {"wide": channels_last(after["wide"])}


@pytest.fixture(params=sorted(MAKERS))
def make(request):
    return MAKERS[request.param]


def test_what_is_remembered_is_what_was_remembered_cut(make):
    before = parameters()
    optimiser = make(before.values())
    for seed in range(3):
        stepped(optimiser, before, seed)
    after = shrunk(before)
    fresh = carried_over(optimiser, before, after, CUTS, make)
    assert [id(p) for group in fresh.param_groups for p in group["params"]] == [id(p) for p in after.values()]
    for name, parameter in after.items():
        old, new = optimiser.state[before[name]], fresh.state[parameter]
        assert set(old) == set(new)
        for key, value in old.items():
            if isinstance(value, torch.Tensor) and value.shape == before[name].shape and name in CUTS:
                value = cut(value, CUTS[name])
                assert new[key].shape == parameter.shape
            assert torch.equal(new[key], value)
    assert before["gone"] not in fresh.state


def test_the_next_step_is_that_of_an_optimiser_that_never_saw_the_rest(make):
    """Elementwise updates: what survives moves as if nothing had been removed."""
    before, whole = parameters(), parameters()
    optimiser, reference = make(before.values()), make(whole.values())
    for seed in range(3):
        stepped(optimiser, before, seed)
        stepped(reference, whole, seed)
    after = shrunk(before)
    fresh = carried_over(optimiser, before, after, CUTS, make)
    torch.manual_seed(9)
    for parameter in whole.values():
        parameter.grad = torch.randn_like(parameter)
    for name, parameter in after.items():
        gradient = whole[name].grad
        given = cut(gradient, CUTS[name]) if name in CUTS else gradient.clone()
        parameter.grad = torch.empty_like(parameter).copy_(given)
    fresh.step()
    reference.step()
    for name, parameter in after.items():
        expected = cut(whole[name].detach(), CUTS[name]) if name in CUTS else whole[name]
        assert torch.equal(parameter, expected)


def test_what_is_gone_is_freed(make):
    before = parameters()
    optimiser = make(before.values())
    stepped(optimiser, before, 0)
    held = [
        weakref.ref(v)
        for n in ("gone", "wide")
        for v in optimiser.state[before[n]].values()
        if v is not None and v.dim()
    ]
    held += [weakref.ref(before["gone"]), weakref.ref(before["wide"])]
    after = shrunk(before)
    fresh = carried_over(optimiser, before, after, CUTS, make)
    # The kept part has memory of its own.
    for parameter in after.values():
        for value in fresh.state[parameter].values():
            if isinstance(value, torch.Tensor) and value.dim():
                assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
    del optimiser, before, after["same"]
    gc.collect()
    assert held
    assert all(reference() is None for reference in held)


def test_a_parameter_that_never_moved_has_no_memory(make):
    before = parameters()
    fresh = carried_over(make(before.values()), before, shrunk(before), CUTS, make)
    assert not fresh.state


def test_named_state_goes_round(make):
    before = parameters()
    optimiser = make(before.values())
    for seed in range(2):
        stepped(optimiser, before, seed)
    # As a file has them: row by row.
    state = {name: value.clone().contiguous() for name, value in named_state(optimiser, before).items()}
    again = parameters()
    restored = make(again.values())
    restore_named_state(restored, again, state)
    found = named_state(restored, again)
    assert set(found) == set(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    with torch.no_grad():
        for name, parameter in again.items():
            parameter.copy_(before[name])
    stepped(optimiser, before, 7)
    stepped(restored, again, 7)
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_state_of_others_is_refused(make):
    before = parameters()
    with pytest.raises(KeyError):
        restore_named_state(make(before.values()), before, {"other/exp_avg": torch.zeros(2)})
    with pytest.raises(ValueError, match="wide/exp_avg"):
        restore_named_state(make(before.values()), before, {"wide/exp_avg": torch.zeros(2)})
