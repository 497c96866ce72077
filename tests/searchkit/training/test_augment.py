import numpy as np
import pytest

from searchkit.data import Sample
from searchkit.normalization import MEAN, STD, normalise
from searchkit.sizes import Size
from searchkit.training.augment import IGNORE, Address, augment, generator
from searchkit.training.recipe import Augmentation

SIZE = Size(32, 64)
PLAIN = Augmentation(flip=False)
ALL = Augmentation(scale=(0.5, 2.0), flip=True, jitter=0.5)


def sample() -> Sample:
    """Labels in quarters; each label has a colour of its own."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:16, 32:], labels[16:, :32], labels[16:, 32:] = 1, 2, 3
    return Sample(np.stack([labels * 60, 255 - labels * 60, labels * 20], -1).astype(np.uint8), labels)


def test_without_randomness_nothing_changes():
    image, labels = augment(sample(), PLAIN, SIZE, Address(0, 0, 0))
    assert image.dtype == np.float32
    assert np.array_equal(image, normalise(sample().image)[0])
    assert np.array_equal(labels, sample().labels)


def test_an_address_gives_its_own_pixels():
    first = augment(sample(), ALL, SIZE, Address(1, 2, 3))
    again = augment(sample(), ALL, SIZE, Address(1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (Address(0, 2, 3), Address(1, 3, 3), Address(1, 2, 4), Address(1, 3, 2)):
        assert not np.array_equal(first[0], augment(sample(), ALL, SIZE, other)[0])


def test_streams_and_addresses_do_not_meet():
    drawn = {
        tuple(generator(seed, stream, major, minor).integers(2**63, size=4))
        for seed in (0, 1)
        for stream in (1, 2)
        for major in (0, 1)
        for minor in (0, 1)
    }
    assert len(drawn) == 16


def test_half_are_mirrored_and_labels_follow():
    flipped = 0
    for index in range(64):
        image, labels = augment(sample(), Augmentation(flip=True), SIZE, Address(0, 0, index))
        mirrored = labels[0, 0] == 1
        flipped += mirrored
        expected = normalise(sample().image)[0]
        assert np.array_equal(image, expected[:, :, ::-1] if mirrored else expected)
    assert 20 < flipped < 44


@pytest.mark.parametrize("scale", [0.4, 0.7, 1.3, 3.0])
def test_image_and_labels_stay_together(scale):
    how = Augmentation(scale=(scale, scale), flip=True)
    for index in range(20):
        image, labels = augment(sample(), how, SIZE, Address(0, 0, index))
        assert image.shape == (3, *SIZE)
        assert labels.shape == tuple(SIZE)
        red = image[0] * STD[0] + MEAN[0]
        there = labels != IGNORE
        # Only at the seams of the quarters may interpolation differ from the label's colour.
        agree = np.abs(red * 255 - labels * 60.0)[there] < 1
        assert agree.mean() > 0.8
        assert (image[:, ~there] == 0).all()


def test_a_small_picture_is_padded_by_the_ignored_label():
    _, labels = augment(sample(), Augmentation(scale=(0.5, 0.5)), SIZE, Address(0, 0, 0))
    assert (labels != IGNORE).sum() == 16 * 32


def test_crops_reach_every_edge():
    how = Augmentation(scale=(1.0, 1.0), flip=False)
    corners = set()
    numbered = Sample(sample().image, (np.arange(32)[:, None] // 2 * 16 + np.arange(64) // 4).astype(np.uint8))
    for index in range(300):
        _, labels = augment(numbered, how, Size(16, 48), Address(0, 0, index))
        corners.add(int(labels[0, 0]))
    rows, columns = {c // 16 for c in corners}, {c % 16 for c in corners}
    assert rows == set(range(9))
    assert columns == set(range(5))


def test_jitter_changes_colours_only():
    how = Augmentation(flip=False, jitter=0.5)
    image, labels = augment(sample(), how, SIZE, Address(0, 0, 0))
    assert np.array_equal(labels, sample().labels)
    assert not np.allclose(image, normalise(sample().image)[0])
    assert np.isfinite(image).all()
