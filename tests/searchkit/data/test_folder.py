import numpy as np
import pytest
from PIL import Image

from searchkit.data import open_dataset
from searchkit.errors import InputFileError

INDEX = """
name = "yard"
masks = "index"
ignore = 9

[[classes]]
name = "path"
colour = [128, 64, 128]

[[classes]]
name = "grass"
colour = [0, 200, 0]

[splits.train]
images = "train/*/pictures/*.jpg"
masks = "train/*/masks/*-mask.png"
"""
COLOUR = INDEX.replace('"index"', '"colour"').replace("ignore = 9", "ignore = [1, 2, 3]")


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dataset.toml").write_text(INDEX)
    for day in ("monday", "friday"):
        put(tmp_path / f"train/{day}/pictures/a.jpg", np.full((4, 6, 3), 90))
        put(tmp_path / f"train/{day}/masks/a-mask.png", np.resize([0, 1, 9], (4, 6)))
    return tmp_path


def refused(root, text, words):
    (root / "dataset.toml").write_text(text)
    with pytest.raises(InputFileError, match=words) as caught:
        open_dataset(f"folder:{root}")
    assert "dataset.toml" in str(caught.value)


def test_index_masks(root):
    dataset = open_dataset(f"folder:{root}")
    assert dataset.splits() == ("train",)
    assert dataset.labels.names == ("path", "grass")
    assert dataset.labels.palette == ((128, 64, 128), (0, 200, 0))
    assert [dataset.name("train", index) for index in range(2)] == ["friday/a", "monday/a"]
    assert dataset.read("train", 1).labels.ravel()[:3].tolist() == [0, 1, 255]
    assert list(dataset.check()) == []


def test_colour_masks(root):
    (root / "dataset.toml").write_text(COLOUR)
    colours = np.array([[128, 64, 128], [0, 200, 0], [1, 2, 3]])
    for day in ("monday", "friday"):
        put(root / f"train/{day}/masks/a-mask.png", colours[np.resize([0, 1, 2], (4, 6))])
    dataset = open_dataset(f"folder:{root}")
    assert dataset.read("train", 0).labels.ravel()[:3].tolist() == [0, 1, 255]
    assert list(dataset.check()) == []
    put(root / "train/friday/masks/a-mask.png", np.full((4, 6, 3), (0, 200, 1)))
    (problem,) = dataset.check()
    assert "stand for no class in 24 pixels (got [(0, 200, 1)]" in problem.problem


def test_a_colour_that_is_not_ignored_is_refused(root):
    (root / "dataset.toml").write_text(COLOUR.replace("ignore = [1, 2, 3]", ""))
    put(root / "train/friday/masks/a-mask.png", np.zeros((4, 6, 3)))
    with pytest.raises(InputFileError, match="no class in 24 pixels"):
        open_dataset(f"folder:{root}").read("train", 0)


def test_255_is_ignored_unless_said_otherwise(root):
    put(root / "train/friday/masks/a-mask.png", np.full((4, 6), 255))
    with pytest.raises(InputFileError, match=r"allowed: 0 to 1, 9"):
        open_dataset(f"folder:{root}").read("train", 0)
    (root / "dataset.toml").write_text(INDEX.replace("ignore = 9", ""))
    assert (open_dataset(f"folder:{root}").read("train", 0).labels == 255).all()


def test_a_misnamed_picture_is_reported(root):
    put(root / "train/friday/pictures/b.png", np.zeros((4, 6, 3)))
    put(root / "train/friday/masks/b.png", np.zeros((4, 6)))
    assert {p.path for p in open_dataset(f"folder:{root}").check()} == {
        "train/friday/pictures/b.png",
        "train/friday/masks/b.png",
    }


def test_no_description(tmp_path):
    with pytest.raises(InputFileError, match="does not exist"):
        open_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "yard"', 'name = "yard"\nnmae = "x"', r"nmae: unknown key"),
        ("colour = [0, 200, 0]", "colour = [0, 200, 0]\nid = 3", r"classes.1.id: unknown key"),
        ("images =", "extra = 1\nimages =", r"splits.train.extra: unknown key"),
        ('name = "yard"', "", r"name: field required"),
        ('name = "yard"', 'name = "../yard"', r"name"),
        ('"index"', '"colours"', r"masks"),
        ("[0, 200, 0]", "[0, 200]", r"classes.1.colour"),
        ("[0, 200, 0]", "[0, 200, 256]", r"classes.1.colour.2"),
        ("[0, 200, 0]", "[0, 200, true]", r"classes.1.colour.2"),
        ("[0, 200, 0]", "[128, 64, 128]", r"two classes have the same colour"),
        ('"grass"', '"path"', r"two classes have the same name"),
        ("ignore = 9", "ignore = 1", r"not a number that can be ignored"),
        ("ignore = 9", "ignore = 256", r"ignore"),
        ("ignore = 9", "ignore = [0, 0, 0]", r"not a number that can be ignored"),
        ("[splits.train]", "[splits.Train]", r"not a name of a split"),
        ("train/*/pictures", "../*/pictures", r"not a pattern"),
        ("train/*/pictures", "/train/*", r"not a pattern"),
        ("train/*/pictures", "**", r"not a pattern"),
        ("train/*/pictures", "tr[a]in/*", r"not a pattern"),
        ("train/*/pictures", "tr?in/*", r"not a pattern"),
        ("train/*/pictures", ".hidden/*", r"not a pattern"),
        ("train/*/pictures", "\\u0007/*", r"not a pattern"),
        ("train/*/pictures/*.jpg", "train/a.jpg", r"not a pattern"),
        ("train/*/pictures", "train/pictures", r"different numbers of stars"),
        ("name", "name = =", r"not TOML"),
    ],
)
def test_refusals(root, old, new, words):
    assert old in INDEX
    refused(root, INDEX.replace(old, new, 1), words)


@pytest.mark.parametrize("ignore", ["3", "[128, 64, 128]"])
def test_colours_that_cannot_be_ignored(root, ignore):
    refused(root, COLOUR.replace("[1, 2, 3]", ignore), "not a colour that can be ignored")


def test_no_classes_and_no_splits(root):
    refused(root, 'name = "a"\nmasks = "index"\nclasses = []\n[splits.a]\nimages = "a*"\nmasks = "b*"\n', "classes")
    refused(root, INDEX.partition("[splits")[0] + "[splits]\n", "splits")


def test_not_utf8(root):
    (root / "dataset.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InputFileError, match="not UTF-8"):
        open_dataset(f"folder:{root}")


def test_the_description_in_the_documentation_is_accepted(root):
    import textwrap

    from searchkit.data import folder

    example = textwrap.dedent(folder.__doc__.partition("\n\n")[2])
    (root / "dataset.toml").write_text(example)
    assert open_dataset(f"folder:{root}").labels.names == ("path",)
