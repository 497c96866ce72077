import numpy as np
import pytest

from searchkit.errors import UsageError
from searchkit.label_sets import CITYSCAPES_19, generic_labels


def test_cityscapes_order_and_colours():
    assert len(CITYSCAPES_19) == len(CITYSCAPES_19.palette) == 19
    known = {0: ("road", (128, 64, 128)), 10: ("sky", (70, 130, 180)), 12: ("rider", (255, 0, 0))}
    known |= {6: ("traffic light", (250, 170, 30)), 18: ("bicycle", (119, 11, 32))}
    for label, (name, colour) in known.items():
        assert CITYSCAPES_19.names[label] == name
        assert CITYSCAPES_19.palette[label] == colour
    assert CITYSCAPES_19.ignore == 255


def test_colour_paints_each_label_and_leaves_the_rest_black():
    labels = np.array([[0, 18, 19], [10, 254, 255]], np.uint8)
    picture = CITYSCAPES_19.colour(labels)
    assert picture.dtype == np.uint8
    black = [0, 0, 0]
    expected = [[[128, 64, 128], [119, 11, 32], black], [[70, 130, 180], black, black]]
    assert picture.tolist() == expected


def test_colour_refuses_other_types():
    with pytest.raises(UsageError, match="uint8"):
        CITYSCAPES_19.colour(np.zeros((2, 2), np.int64))


def test_generic_labels():
    assert generic_labels(19) is CITYSCAPES_19
    labels = generic_labels(3)
    assert labels.names == ("class 0", "class 1", "class 2")
    assert labels == generic_labels(3)


@pytest.mark.parametrize("classes", [1, 2, 20, 150, 255])
def test_generic_colours_are_distinct_and_never_black(classes):
    palette = generic_labels(classes).palette
    assert len(set(palette)) == classes
    assert min(max(colour) for colour in palette) > 60
    assert all(0 <= channel <= 255 for colour in palette for channel in colour)


@pytest.mark.parametrize("classes", [0, -1, 256, 2.0, True, "19"])
def test_generic_labels_refuses(classes):
    with pytest.raises(UsageError, match="number of classes"):
        generic_labels(classes)
