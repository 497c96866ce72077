"""CamVid: 701 frames of five drives in Cambridge, 11 classes (SegNet's split, or the original files)."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputFileError
from ..files import read_bytes
from ..label_sets import LabelSet
from ..sizes import Size
from . import Dataset, DatasetKind
from ._masks import ColourMasks, index_masks
from ._tree import Key, Pattern, Rule, Tree, tree_root

# Order and colours of SegNet-Tutorial, Scripts/test_segmentation_camvid.py.
CAMVID_11 = LabelSet(
    name="camvid11",
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

# The 32 colours of label_colors.txt, each with the one of the 11 classes that it is counted as.
ORIGINAL_COLOURS = {
    (128, 128, 128): "sky",
    (0, 128, 64): "building",  # Bridge
    (128, 0, 0): "building",
    (64, 192, 0): "building",  # Wall
    (64, 0, 64): "building",  # Tunnel
    (192, 0, 128): "building",  # Archway
    (192, 192, 128): "pole",
    (0, 0, 64): "pole",  # TrafficCone
    (128, 64, 128): "road",
    (128, 0, 192): "road",  # LaneMkgsDriv
    (192, 0, 64): "road",  # LaneMkgsNonDriv
    (0, 0, 192): "pavement",  # Sidewalk
    (64, 192, 128): "pavement",  # ParkingBlock
    (128, 128, 192): "pavement",  # RoadShoulder
    (128, 128, 0): "tree",
    (192, 192, 0): "tree",  # VegetationMisc
    (192, 128, 128): "sign symbol",
    (128, 128, 64): "sign symbol",  # Misc_Text
    (0, 64, 64): "sign symbol",  # TrafficLight
    (64, 64, 128): "fence",
    (64, 0, 128): "car",
    (64, 128, 192): "car",  # SUVPickupTruck
    (192, 128, 192): "car",  # Truck_Bus
    (192, 64, 128): "car",  # Train
    (128, 64, 64): "car",  # OtherMoving
    (64, 64, 0): "pedestrian",
    (192, 128, 64): "pedestrian",  # Child
    (64, 0, 192): "pedestrian",  # CartLuggagePram
    (64, 128, 64): "pedestrian",  # Animal
    (0, 128, 192): "bicyclist",
    (192, 0, 192): "bicyclist",  # MotorcycleScooter
    (0, 0, 0): None,
}

_COUNTS = {"train": 367, "val": 101, "test": 233}
_UNLABELLED = 11
_MAX_LIST_BYTES = 1 << 20


class _CamVid(DatasetKind):
    def open(self, path: Path | None, *, size: Size | None = None) -> Dataset:
        root = tree_root("camvid", path, size)
        if (root / "701_StillsRaw_full").is_dir():
            return Tree("camvid", root, CAMVID_11, _original_rules(root), original_masks())
        rules = {
            split: Rule(Pattern(f"{split}/*.png"), Pattern(f"{split}annot/*.png"), expected=count)
            for split, count in _COUNTS.items()
        }
        return Tree("camvid", root, CAMVID_11, rules, index_masks(len(CAMVID_11), ignored=(_UNLABELLED, 255)))


def original_masks() -> ColourMasks:
    """The code of the masks as they were published, 32 colours.

    The grouping into 11 classes is that of MathWorks' example "Semantic Segmentation Using Deep Learning".
    """
    return ColourMasks(
        tuple(
            (colour, 255 if name is None else CAMVID_11.names.index(name)) for colour, name in ORIGINAL_COLOURS.items()
        )
    )


def _original_rules(root: Path) -> dict[str, Rule]:
    """The original files, divided by `train.txt`, `val.txt` and `test.txt`: one frame a line."""
    return {
        split: Rule(
            Pattern("701_StillsRaw_full/*.png"),
            Pattern("LabeledApproved_full/*_L.png"),
            expected=count,
            members=_members(root / f"{split}.txt"),
        )
        for split, count in _COUNTS.items()
    }


def _members(path: Path) -> tuple[Key, ...]:
    """The frames of a list. SegNet's own lists hold two paths a line, the picture and its mask: the first counts."""
    try:
        text = read_bytes(path, limit_bytes=_MAX_LIST_BYTES, what="list of frames").decode("ascii")
    except UnicodeDecodeError:
        raise InputFileError("list of frames is not ASCII", where=str(path)) from None
    return tuple((Path(line.split()[0]).stem,) for line in text.splitlines() if line.strip())


DATASET = _CamVid()
