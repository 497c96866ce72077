"""What the benchmark of the supernet's step measures; how fast it is here is not asserted."""

from __future__ import annotations

import torch

from bench.supernet_references import LiteralSupernet
from bench.supernet_step import BASELINE, Setting, Stepper, relaxed, supernet, supernet_step
from searchkit.sizes import Size
from searchkit.spaces.ssr.supernet import SSRSupernet

SETTING = Setting(Size(32, 64), 1, alive=(2,), turns=1)


def test_every_case_is_timed_and_weighed():
    tree = supernet_step(SETTING, {"cpu": "test"})
    names = {"literal", BASELINE, "2 alive, fp32", "2 alive, bf16", "2 alive, bf16, checkpointing"}
    for key in ("pair_ms", "times_as_fast_as_literal", "times_as_fast_as_mask_vector", "memory_bytes"):
        assert set(tree[key]) == names, key
    assert tree["times_as_fast_as_literal"]["literal"]["median"] == 1
    for memory in tree["memory_bytes"].values():
        # Two moments and a step counter each, of weights and of logits.
        assert 2 * memory["weights"] < memory["adam_state"] < 2.1 * memory["weights"]
        # At the end of a weight step all gradients are there.
        assert memory["weight_step"] > memory["gradients"] == memory["weights"]
        assert memory["peak"] > memory["weights"] + memory["adam_state"]
    assert set(tree["supernet_over_discrete"]) == {"fp32", "bf16"}


def test_forms_begin_as_the_same_network():
    ours, literal = supernet(SSRSupernet, 2), supernet(LiteralSupernet, 2)
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        found, expected = (net.eval()(image, relaxed(net)) for net in (ours, literal))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_architecture_step_moves_logits_alone_and_a_weight_step_weights_alone():
    stepper = Stepper(supernet(SSRSupernet, 2), SETTING)
    for architecture, moving, resting in (
        (True, stepper.logits, stepper.weights),
        (False, stepper.weights, stepper.logits),
    ):
        before = [[p.detach().clone() for p in group] for group in (moving, resting)]
        stepper.step(architecture)
        assert any(not torch.equal(old, new) for old, new in zip(before[0], moving, strict=True))
        assert all(torch.equal(old, new) for old, new in zip(before[1], resting, strict=True))
