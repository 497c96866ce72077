"""Cityscapes, CamVid and BDD100K, each as a small tree made here."""

import os

import numpy as np
import pytest
from PIL import Image

from searchkit.data import DATASETS, DatasetKind, open_dataset
from searchkit.data._masks import NOT_ALLOWED
from searchkit.data.camvid import CAMVID_11, ORIGINAL_COLOURS
from searchkit.data.cityscapes import TRAIN_IDS, label_ids
from searchkit.errors import InputFileError, UsageError
from searchkit.label_sets import CITYSCAPES_19
from searchkit.sizes import Size

HEIGHT, WIDTH = 6, 8


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def mask(*values):
    return np.resize(np.array(values, np.uint8), (HEIGHT, WIDTH))


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def city(root, split, name, values=(7, 26), annotation="gtFine"):
    folder = name.split("_")[0]
    image = root / "leftImg8bit" / split / folder / f"{name}_leftImg8bit.png"
    labels = root / annotation / split / folder / f"{name}_{annotation}_labelIds.png"
    put(image, picture(0))
    put(labels, mask(*values))
    return image, labels


@pytest.fixture
def cityscapes(tmp_path):
    for name in ("aachen_000001_000019", "aachen_000000_000019", "zurich_000000_000019"):
        city(tmp_path, "train", name)
    city(tmp_path, "val", "lindau_000000_000019")
    city(tmp_path, "test", "bonn_000000_000019")
    return tmp_path


@pytest.fixture
def camvid(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / split / "0001TP_006690.png", picture(1))
        put(tmp_path / f"{split}annot" / "0001TP_006690.png", mask(0, 10, 11))
    return tmp_path


@pytest.fixture
def bdd100k(tmp_path):
    for split in ("train", "val"):
        put(tmp_path / "images/10k" / split / "0004a4c0-d4dff0ad.jpg", picture(2))
        put(tmp_path / "labels/sem_seg/masks" / split / "0004a4c0-d4dff0ad.png", mask(0, 18, 255))
    return tmp_path


def problems(kind, root):
    """What `check` says, less the sizes of the splits, which no small tree has right."""
    found = [(problem.path, problem.problem) for problem in open_dataset(f"{kind}:{root}").check()]
    return [pair for pair in found if "are published" not in pair[1]]


def counts_said(kind, root):
    return [p.problem for p in open_dataset(f"{kind}:{root}").check() if "are published" in p.problem]


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_module_defines_a_kind_and_says_what_it_is(name):
    assert isinstance(DATASETS.load(name), DatasetKind)
    assert DATASETS.summary(name)


def test_all_names():
    assert DATASETS.names() == ["bdd100k", "camvid", "cityscapes", "folder", "streets"]


@pytest.mark.parametrize("name", ["bdd100k", "camvid", "cityscapes", "folder"])
def test_trees_need_a_path_and_take_no_size(name, tmp_path):
    with pytest.raises(UsageError, match="path is needed"):
        open_dataset(name)
    with pytest.raises(UsageError, match="size it is stored in"):
        open_dataset(f"{name}:{tmp_path}", size=Size(8, 8))
    with pytest.raises(InputFileError, match="no folder"):
        open_dataset(f"{name}:{tmp_path}/missing")


@pytest.mark.parametrize("kind", ["cityscapes", "camvid", "bdd100k"])
def test_a_tree_that_is_whole_has_only_the_wrong_number_of_samples(kind, request):
    root = request.getfixturevalue(kind)
    assert problems(kind, root) == []
    assert len(counts_said(kind, root)) == len(open_dataset(f"{kind}:{root}").splits())


def test_published_numbers_of_samples(camvid, tmp_path):
    assert counts_said("camvid", camvid) == [
        f"split {split} has 1 samples, {count} are published"
        for split, count in (("train", 367), ("val", 101), ("test", 233))
    ]


def test_the_official_table_of_cityscapes():
    """All 35 lines of cityscapesScripts' labels.py, in its order of ids."""
    official = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    official += [255, 255, 16, 17, 18]
    assert list(label_ids().table) == official + [NOT_ALLOWED] * 221 + [255]
    assert sorted(TRAIN_IDS.values()) == list(range(19))


def test_cityscapes_order_names_and_labels(cityscapes):
    dataset = open_dataset(f"cityscapes:{cityscapes}")
    assert dataset.splits() == ("train", "val", "test")
    assert dataset.labels is CITYSCAPES_19
    assert [dataset.name("train", index) for index in range(dataset.count("train"))] == [
        "aachen/aachen_000000_000019",
        "aachen/aachen_000001_000019",
        "zurich/zurich_000000_000019",
    ]
    sample = dataset.read("train", 0)
    assert np.array_equal(sample.image, picture(0))
    assert np.array_equal(sample.labels, mask(0, 13))
    assert sample.labels.dtype == sample.image.dtype == np.uint8


def test_cityscapes_ids_outside_the_19_are_ignored(tmp_path):
    city(tmp_path, "train", "aachen_000000_000019", range(34))
    labels = open_dataset(f"cityscapes:{tmp_path}").read("train", 0).labels
    assert labels.ravel()[:34].tolist() == [TRAIN_IDS.get(number, 255) for number in range(34)]


def test_coarse_splits_are_there_where_their_folders_are(cityscapes):
    city(cityscapes, "train", "aachen_000000_000019", (7,))
    city(cityscapes, "train", "aachen_000000_000019", (11,), "gtCoarse")
    city(cityscapes, "train_extra", "augsburg_000000_000019", (23,), "gtCoarse")
    dataset = open_dataset(f"cityscapes:{cityscapes}")
    assert dataset.splits() == ("train", "val", "test", "train_coarse", "train_extra")
    assert dataset.read("train", 0).labels[0, 0] == 0
    assert dataset.read("train_coarse", 0).labels[0, 0] == 2
    assert dataset.read("train_extra", 0).labels[0, 0] == 10
    assert dataset.name("train_extra", 0) == "augsburg/augsburg_000000_000019"


def test_what_lies_beside_the_masks_of_cityscapes_is_known(cityscapes):
    for suffix in ("color", "instanceIds", "labelTrainIds"):
        put(cityscapes / "gtFine/train/aachen" / f"aachen_000000_000019_gtFine_{suffix}.png", mask(0))
    (cityscapes / "gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json").write_text("{}")
    (cityscapes / "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"x")
    assert problems("cityscapes", cityscapes) == []
    assert open_dataset(f"cityscapes:{cityscapes}").count("train") == 3


def test_camvid_order_and_void(camvid):
    dataset = open_dataset(f"camvid:{camvid}")
    assert dataset.labels.names[:4] == ("sky", "building", "pole", "road")
    assert len(dataset.labels) == len(dataset.labels.palette) == 11
    assert dataset.read("val", 0).labels.ravel()[:3].tolist() == [0, 10, 255]
    assert dataset.name("val", 0) == "0001TP_006690"


def original_camvid(root):
    colours = np.array(list(ORIGINAL_COLOURS), np.uint8)
    for number in range(3):
        put(root / "701_StillsRaw_full" / f"f{number}.png", np.zeros((4, 8, 3)))
        put(root / "LabeledApproved_full" / f"f{number}_L.png", colours.reshape(4, 8, 3))
    (root / "train.txt").write_text("f2\n/SegNet/CamVid/train/f0.png /SegNet/CamVid/trainannot/f0.png\n")
    (root / "val.txt").write_text("f1\n")
    (root / "test.txt").write_text("f1\n")


def test_original_camvid(tmp_path):
    original_camvid(tmp_path)
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert [dataset.name("train", index) for index in range(2)] == ["f2", "f0"]
    expected = [255 if name is None else CAMVID_11.names.index(name) for name in ORIGINAL_COLOURS.values()]
    assert dataset.read("val", 0).labels.ravel().tolist() == expected
    assert problems("camvid", tmp_path) == []
    assert len(ORIGINAL_COLOURS) == 32
    assert set(ORIGINAL_COLOURS.values()) == {*CAMVID_11.names, None}


def test_original_camvid_refusals(tmp_path):
    original_camvid(tmp_path)
    for level in (3, 255):
        put(tmp_path / "LabeledApproved_full/f1_L.png", np.full((4, 8, 3), level))
        with pytest.raises(InputFileError, match="stand for no class in 32 pixels") as caught:
            open_dataset(f"camvid:{tmp_path}").read("val", 0)
        assert caught.value.got == [(level, level, level)]
    (tmp_path / "val.txt").write_text("f9\n")
    found = problems("camvid", tmp_path)
    assert ("701_StillsRaw_full/f9.png", "listed, but neither the picture nor its mask is there") in found
    (tmp_path / "val.txt").write_bytes(b"\xff\n")
    with pytest.raises(InputFileError, match="not ASCII"):
        open_dataset(f"camvid:{tmp_path}")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(InputFileError, match="does not exist"):
        open_dataset(f"camvid:{tmp_path}")


def test_bdd100k(bdd100k):
    dataset = open_dataset(f"bdd100k:{bdd100k}")
    assert dataset.splits() == ("train", "val")
    assert dataset.read("train", 0).labels.ravel()[:3].tolist() == [0, 18, 255]
    assert dataset.read("train", 0).image.shape == (HEIGHT, WIDTH, 3)


def test_every_fault_is_reported_and_none_hides_another(cityscapes):
    root, fine = cityscapes, "gtFine/train/aachen"
    image, _ = city(root, "train", "aachen_000010_000019")
    image.unlink()
    _, labels = city(root, "train", "aachen_000011_000019")
    labels.unlink()
    city(root, "train", "aachen_000012_000019", (7, 34, 77))
    image, _ = city(root, "train", "aachen_000013_000019")
    truncate(image)
    _, labels = city(root, "train", "aachen_000014_000019")
    truncate(labels)
    _, labels = city(root, "train", "aachen_000015_000019")
    put(labels, np.zeros((HEIGHT, WIDTH + 1)))
    _, labels = city(root, "train", "aachen_000016_000019")
    put(labels, np.zeros((HEIGHT, WIDTH, 3)))
    put(root / fine / "aachen_000000_000019_labels.png", mask(0))
    put(root / "leftImg8bit/train/aachen/aachen_000000_000019.jpg", picture(0))
    city(root, "train", "aachen_17_000019")
    image, labels = city(root, "train", "ulm_000000_000019")
    for path in (image, labels):
        os.rename(path, path.parent.parent / "aachen" / path.name)
    found = dict(problems("cityscapes", root))
    left = "leftImg8bit/train/aachen/aachen"
    expected = {
        f"{fine}/aachen_000010_000019_gtFine_labelIds.png": "mask without a picture",
        f"{left}_000011_000019_leftImg8bit.png": "picture without a mask",
        f"{fine}/aachen_000012_000019_gtFine_labelIds.png": "labels out of range in 32 pixels (got [34, 77]",
        f"{left}_000013_000019_leftImg8bit.png": "damaged picture",
        f"{fine}/aachen_000014_000019_gtFine_labelIds.png": "not a picture",
        f"{fine}/aachen_000015_000019_gtFine_labelIds.png": "the mask is 6x9, its picture 6x8",
        f"{fine}/aachen_000016_000019_gtFine_labelIds.png": "does not hold one 8-bit number a pixel",
        f"{fine}/aachen_000000_000019_labels.png": "misnamed",
        f"{left}_000000_000019.jpg": "misnamed",
        f"{left}_17_000019_leftImg8bit.png": "misnamed",
        "leftImg8bit/train/aachen/ulm_000000_000019_leftImg8bit.png": "misnamed",
    }
    assert found.keys() == expected.keys()
    for path, words in expected.items():
        assert words in found[path], path
        assert str(root) not in found[path]


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("cityscapes", "leftImg8bit/val"),
        ("cityscapes", "gtFine/val"),
        ("camvid", "valannot"),
        ("bdd100k", "labels/sem_seg/masks/val"),
        ("bdd100k", "images/10k/val"),
    ],
)
def test_a_missing_folder(kind, folder, request):
    root = request.getfixturevalue(kind)
    os.rename(root / folder, root / "elsewhere")
    dataset = open_dataset(f"{kind}:{root}")
    assert problems(kind, root) == [(folder, "folder is missing (split val)")]
    assert not any("val" in said for said in counts_said(kind, root))
    with pytest.raises(InputFileError, match="folder of split val is missing"):
        dataset.count("val")
    assert dataset.read("train", 0).labels.shape == (HEIGHT, WIDTH)


def test_reads_refuse_what_check_reports(cityscapes):
    def refused(words):
        with pytest.raises(InputFileError, match=words) as caught:
            open_dataset(f"cityscapes:{cityscapes}").read("val", 0)
        assert "lindau" in str(caught.value)

    name = "lindau_000000_000019"
    image, labels = city(cityscapes, "val", name, (34,))
    refused("labels out of range")
    image, labels = city(cityscapes, "val", name)
    truncate(image)
    refused("damaged picture")
    image, labels = city(cityscapes, "val", name)
    truncate(labels)
    refused("not a picture")
    put(labels, np.zeros((HEIGHT + 1, WIDTH)))
    refused("mask is 7x8, its picture 6x8")
    labels.unlink()
    refused("does not exist")
    image, labels = city(cityscapes, "val", name)
    image.unlink()
    refused("does not exist")


def test_a_palette_does_not_change_the_numbers(camvid):
    indexed = Image.fromarray(mask(3, 4))
    indexed.putpalette([value for number in range(256) for value in (255 - number, 7, number)])
    assert indexed.mode == "P"
    indexed.save(camvid / "valannot/0001TP_006690.png")
    assert open_dataset(f"camvid:{camvid}").read("val", 0).labels.ravel()[:2].tolist() == [3, 4]


def test_wrong_split_and_index(camvid):
    dataset = open_dataset(f"camvid:{camvid}")
    with pytest.raises(UsageError, match="train, val, test"):
        dataset.count("training")
    for index in (-1, 1, True, 0.0):
        with pytest.raises(UsageError, match="no such sample"):
            dataset.read("val", index)


def test_reading_is_pure_and_order_does_not_matter(cityscapes):
    for number in range(3):
        city(cityscapes, "train", f"aachen_00010{number}_000019", range(number, 30))
    one, other = (open_dataset(f"cityscapes:{cityscapes}") for _ in range(2))
    forth = [one.read("train", index) for index in range(6)]
    back = [other.read("train", index) for index in reversed(range(6))][::-1]
    for here, there in zip(forth, back, strict=True):
        assert here.image.tobytes() == there.image.tobytes()
        assert here.labels.tobytes() == there.labels.tobytes()
    assert len({sample.labels.tobytes() for sample in forth}) == 4


def test_fingerprint_sees_names_sizes_times_and_absence(cityscapes):
    def now(split="train"):
        return open_dataset(f"cityscapes:{cityscapes}").fingerprint(split)

    seen = [now()]
    assert now() == seen[0]
    assert now("val") != seen[0]
    image, labels = city(cityscapes, "train", "aachen_000050_000019")
    seen.append(now())
    os.utime(labels, ns=(1, 1))
    seen.append(now())
    os.utime(image, ns=(1, 1))
    seen.append(now())
    image.write_bytes(image.read_bytes() + b"x")
    os.utime(image, ns=(1, 1))
    seen.append(now())
    image.unlink()
    seen.append(now())
    assert len(set(seen)) == len(seen) == 6


def test_fingerprint_does_not_depend_on_where_the_tree_lies(cityscapes, tmp_path_factory):
    before = open_dataset(f"cityscapes:{cityscapes}").fingerprint("train")
    moved = tmp_path_factory.mktemp("elsewhere") / "tree"
    os.rename(cityscapes, moved)
    assert open_dataset(f"cityscapes:{moved}").fingerprint("train") == before
    cityscapes.mkdir()


def test_an_empty_split_is_a_problem(tmp_path):
    for folder in ("images/10k/train", "labels/sem_seg/masks/train"):
        (tmp_path / folder).mkdir(parents=True)
    said = [problem.problem for problem in open_dataset(f"bdd100k:{tmp_path}").check()]
    assert "split train has 0 samples, 7000 are published" in said
