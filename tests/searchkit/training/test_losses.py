import math

import pytest
import torch
import torch.nn.functional as F

from searchkit.training.distillation import divergence
from searchkit.training.losses import aligned, cross_entropy, ohem, total_loss
from searchkit.training.recipe import CrossEntropy, Distillation


def problem(seed: int = 0, ignored: float = 0.2):
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 5, 16, 24, generator=random)
    labels = torch.randint(5, (2, 16, 24), generator=random)
    labels[torch.rand(labels.shape, generator=random) < ignored] = 255
    return logits.requires_grad_(), labels


def sorted_reference(logits, labels, threshold, kept):
    """The definition, by a sort of all probabilities of the true class."""
    losses = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")[labels != 255]
    ranked = losses.sort(descending=True).values
    count = min(len(ranked), max(1, math.floor(kept * labels.numel())))
    hard = ranked[ranked >= -math.log(threshold)]
    return hard.mean() if len(hard) > count else ranked[:count].mean()


@pytest.mark.parametrize("threshold", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("kept", [0.0, 1 / 16, 0.5, 1.0])
def test_ohem_is_the_sorted_one(threshold, kept):
    for seed in range(3):
        logits, labels = problem(seed)
        assert ohem(logits, labels, threshold=threshold, kept=kept).item() == pytest.approx(
            sorted_reference(logits, labels, threshold, kept).item(), rel=1e-6
        )


def test_ohem_of_everything_is_cross_entropy():
    logits, labels = problem()
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    assert ohem(logits, labels, threshold=1.0, kept=1.0).item() == pytest.approx(expected.item(), rel=1e-6)
    assert cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, lambda x, y: ohem(x, y, threshold=0.7, kept=0.1)])
def test_nothing_labelled_is_zero_with_a_zero_gradient(loss):
    logits, labels = problem()
    value = loss(logits, torch.full_like(labels, 255))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [cross_entropy, lambda x, y: ohem(x, y, threshold=0.7, kept=0.1)])
def test_one_nan_among_the_logits_shows(loss):
    logits, labels = problem(ignored=0)
    broken = logits.detach().clone()
    broken[0, 0, 0, 0] = math.nan
    assert math.isnan(loss(broken, labels).item())


def test_ignored_pixels_have_no_gradient():
    logits, labels = problem()
    ohem(logits, labels, threshold=0.7, kept=1.0).backward()
    assert (logits.grad.abs().sum(1)[labels == 255] == 0).all()
    assert (logits.grad.abs().sum(1)[labels != 255] > 0).all()


def test_labels_at_an_eighth_come_from_the_middle_of_their_blocks():
    labels = torch.arange(32 * 64).view(1, 32, 64)
    _, at = aligned(torch.zeros(1, 2, 4, 8), labels, "eighth")
    assert torch.equal(at, labels[:, 4::8, 4::8])


def test_logits_meet_the_labels():
    labels = torch.zeros(1, 32, 64, dtype=torch.long)
    for size in ((4, 8), (32, 64)):
        assert aligned(torch.zeros(1, 2, *size), labels, "eighth")[0].shape == (1, 2, 4, 8)
        assert aligned(torch.zeros(1, 2, *size), labels, "full")[0].shape == (1, 2, 32, 64)


def test_total_adds_auxiliary_heads_and_teacher():
    (main, labels), (extra, _), (teacher, _) = problem(0), problem(1), problem(2)
    how = Distillation(weight=3.0)
    total = total_loss(
        (main, extra),
        labels,
        kind=CrossEntropy(type="cross_entropy"),
        loss_at="full",
        auxiliary_weight=0.2,
        teacher=teacher,
        how=how,
    )
    expected = cross_entropy(main, labels) + 0.2 * cross_entropy(extra, labels) + 3 * divergence(main, teacher, how)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
