import numpy as np
import pytest
import torch

from searchkit.data import Sample
from searchkit.sizes import Size
from searchkit.training.loader import Batches, order
from searchkit.training.recipe import Augmentation

SIZE = Size(16, 32)


class Numbered:
    """Sample `i` is of the grey value and of the label `i`."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return Sample(np.full((*SIZE, 3), 10 * index, np.uint8), np.full(SIZE, index, np.uint8))


def batches(count: int = 7, batch: int = 3, **more) -> Batches:
    how = more.pop("how", Augmentation(scale=(0.75, 1.5), jitter=0.3))
    return Batches(Numbered(count), 5, how, SIZE, batch, **more)


def same(one, other):
    return all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_no_pixel(workers):
    assert same(batches().iterate(0, 9, 0), batches().iterate(0, 9, workers))


@pytest.mark.parametrize("workers", [0, 3])
def test_the_point_of_resumption_changes_no_pixel(workers):
    whole = list(batches().iterate(0, 9, 0))
    assert same(whole[4:], batches().iterate(4, 9, workers))


def test_each_pass_takes_each_sample_once():
    plain = Augmentation(flip=False)
    seen = [int(label[0, 0]) for _, labels in batches(how=plain).iterate(0, 14, 0) for label in labels]
    passes = [seen[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) > 1
    assert passes[2] == order(5, 2, 7).tolist()


def test_a_later_stage_goes_on_where_the_earlier_ended():
    assert same(batches().iterate(3, 6, 0), batches(first=9).iterate(0, 3, 0))


def test_ranks_share_a_batch_between_them():
    whole = batches(batch=4).load(2)
    parts = [batches(batch=4, rank=rank, ranks=2).load(2) for rank in (0, 1)]
    for joined, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(joined[0::2], pieces[0])
        assert torch.equal(joined[1::2], pieces[1])


def test_a_sample_that_cannot_be_read_ends_the_iteration():
    class Broken(Numbered):
        def __getitem__(self, index: int) -> Sample:
            raise OSError("gone")

    for workers in (0, 2):
        with pytest.raises(OSError, match="gone"):
            list(Batches(Broken(4), 0, Augmentation(), SIZE, 2).iterate(0, 2, workers))


def test_leaving_early_ends_the_threads():
    import threading

    stream = batches().iterate(0, 1000, 3)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batch")]
