import json

import numpy as np
import pytest
from PIL import Image

from searchkit.console import run
from searchkit.data.streets import SPLITS, draw
from searchkit.data_cli import app
from searchkit.label_sets import CITYSCAPES_19
from searchkit.pictures import read_picture
from searchkit.sizes import Size
from searchkit.training.cache import open_cache

DESCRIPTION = """
name = "yard"
masks = "index"
classes = [{ name = "path", colour = [10, 20, 30] }, { name = "grass", colour = [40, 50, 60] }]
[splits.train]
images = "p/*.png"
masks = "m/*.png"
[splits.val]
images = "p/*.png"
masks = "m/*.png"
"""


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def yard(tmp_path):
    (tmp_path / "yard").mkdir()
    (tmp_path / "yard/dataset.toml").write_text(DESCRIPTION)
    for name in "abc":
        put(tmp_path / f"yard/p/{name}.png", np.full((6, 8, 3), ord(name)))
        put(tmp_path / f"yard/m/{name}.png", np.resize([0, 1, 1, 255], (6, 8)))
    return tmp_path / "yard"


def call(capsys, *arguments):
    """Exit code, standard output and standard error."""
    code = run(app, [str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_list(capsys):
    code, output, _ = call(capsys, "list")
    assert code == 0
    for name in ("cityscapes", "camvid", "bdd100k", "folder", "streets"):
        assert f"\n{name} " in f"\n{output}"
    tree = json.loads(call(capsys, "list", "--json", "-")[1])
    assert [row["name"] for row in tree["datasets"]] == ["bdd100k", "camvid", "cityscapes", "folder", "streets"]
    assert all(row["about"] for row in tree["datasets"])


def test_check_of_a_whole_data_set(capsys, yard):
    code, output, _ = call(capsys, "check", f"folder:{yard}")
    assert code == 0
    assert output.endswith("whole; samples: train 3, val 3\n")


def test_check_lists_every_problem_and_ends_with_3(capsys, yard):
    (yard / "m/a.png").unlink()
    put(yard / "m/b.png", np.full((6, 8), 7))
    code, output, _ = call(capsys, "check", f"folder:{yard}")
    assert code == 3
    assert "p/a.png: picture without a mask" in output
    assert "m/b.png: labels out of range in 48 pixels" in output
    assert "4 problems" in output
    code, output, _ = call(capsys, "check", f"folder:{yard}", "--json", "-")
    tree = json.loads(output)
    assert code == 3
    assert tree["samples"] == {"train": 3, "val": 3}
    assert sorted({problem["path"] for problem in tree["problems"]}) == ["m/b.png", "p/a.png"]


def test_check_of_missing_folders_says_what_it_can(capsys, tmp_path):
    code, output, _ = call(capsys, "check", f"bdd100k:{tmp_path}", "--json", "-")
    assert code == 3
    tree = json.loads(output)
    assert tree["samples"] == {"train": None, "val": None}
    assert len(tree["problems"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "stret"], 2, "Did you mean streets?"),
        (["check", "camvid"], 2, "Write camvid:PATH"),
        (["check", "camvid:/nope"], 3, "there is no folder here"),
        (["check", ":x"], 2, "no data set named"),
        (["prepare", ":x", "--resolution", "8x8", "--cache", "c"], 2, "no data set named"),
        (["prepare", "streets", "--resolution", "8", "--cache", "c"], 2, "not a resolution"),
        (["prepare", "streets", "--resolution", "8x8", "--cache", "c", "--split", "tran"], 2, "no such split"),
        (["sample", "streets", "--split", "tran", "-o", "a.png"], 2, "no such split"),
        (["sample", "streets", "--index", "2975", "-o", "a.png"], 2, "no such sample"),
        (["sample", "streets", "--difficulty", "2", "-o", "a.png"], 2, "not a difficulty"),
        (["sample", "streets:difficulty=1", "--seed", "1", "-o", "a.png"], 2, "--seed: only for streets"),
        (["sample", "streets:difficulty=1", "--difficulty", "1", "-o", "a.png"], 2, "--difficulty: only for streets"),
        (["sheet", "streets", "--count", "300", "--columns", "1", "-o", "a.png"], 2, "too large"),
    ],
)
def test_refusals(capsys, arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _, errors = call(capsys, *arguments)
    assert found == code
    assert words in errors
    assert list(tmp_path.iterdir()) == []


def test_prepare(capsys, yard, tmp_path):
    arguments = ("prepare", f"folder:{yard}", "--resolution", "3x4", "--cache", tmp_path / "caches")
    code, output, _ = call(capsys, *arguments, "--json", "-")
    assert code == 0
    rows = json.loads(output)["caches"]
    assert [(row["split"], row["samples"]) for row in rows] == [("train", 3), ("val", 3)]
    cache = open_cache(tmp_path / "caches" / rows[0]["path"], verify=True)
    assert (len(cache), cache.size, cache.labels.names) == (3, Size(3, 4), ("path", "grass"))
    assert cache[1].image[0, 0].tolist() == [ord("b")] * 3
    code, output, _ = call(capsys, *arguments, "--split", "val")
    assert (code, output) == (0, f"{rows[1]['path']}: 3 samples of val at 3x4\n")


def test_prepare_draws_at_the_size_that_is_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "val", (1, 2))
    arguments = ("prepare", "streets", "--resolution", "24x48", "--cache", tmp_path, "--split", "val", "--json", "-")
    _, output, _ = call(capsys, *arguments)
    cache = open_cache(tmp_path / json.loads(output)["caches"][0]["path"])
    assert np.array_equal(cache[1].image, draw(1, 1, Size(24, 48)).image)


def test_caches(capsys, yard, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "searchkit"
    assert call(capsys, "caches")[:2] == (0, f"{root}: 0 caches, 0.0 MiB\n")
    call(capsys, "prepare", f"folder:{yard}", "--resolution", "3x4", "--cache", root)
    train, val = sorted(path.name for path in root.iterdir())
    code, output, _ = call(capsys, "caches")
    assert code == 0
    first, _, last = output.splitlines()
    assert first.startswith(f"{train}: folder train at 3x4, 3 of 3 samples, 0.0 MiB, finished, last used 20")
    assert last == f"{root}: 2 caches, 0.0 MiB"
    code, output, _ = call(capsys, "caches", "--cache", root, "--delete", train, "--json", "-")
    tree = json.loads(output)
    assert [row["name"] for row in tree["deleted"]] == [train]
    assert [(row["name"], row["samples"], row["state"]) for row in tree["caches"]] == [(val, 3, "finished")]
    code, _, errors = call(capsys, "caches", "--delete", train, "--delete", val)
    assert code == 2
    assert "no such cache" in errors
    code, output, _ = call(capsys, "caches", "--delete", val)
    assert (code, output.splitlines()[0]) == (0, f"deleted {val}, 0.0 MiB")
    assert list(root.iterdir()) == []


def test_sample_of_streets(capsys, tmp_path):
    picture, labels = tmp_path / "a.png", tmp_path / "b.png"
    size = ("--resolution", "32x64", "-o", picture)
    code, output, _ = call(capsys, "sample", "streets", "--index", 7, *size, "--labels", labels)
    expected = draw(0, 7, Size(32, 64))
    assert (code, output) == (0, f"{picture}: streets picture 7 of train, seed 0\n")
    assert np.array_equal(read_picture(picture), expected.image)
    assert np.array_equal(read_picture(labels), CITYSCAPES_19.colour(expected.labels))
    call(capsys, "sample", "streets", "--index", 4000, "--seed", 5, "--difficulty", 0.9, *size)
    assert np.array_equal(read_picture(picture), draw(5, 4000, Size(32, 64), 0.9).image)
    call(capsys, "sample", "streets:difficulty=0.9", "--split", "val", *size)
    assert np.array_equal(read_picture(picture), draw(1, 0, Size(32, 64), 0.9).image)


def test_sample_of_files(capsys, yard, tmp_path):
    picture, labels = tmp_path / "a.png", tmp_path / "b.png"
    arguments = ("sample", f"folder:{yard}", "--split", "val", "--index", 2, "-o", picture, "--labels", labels)
    code, output, _ = call(capsys, *arguments)
    assert (code, output) == (0, f"{picture}: folder c\n")
    assert (read_picture(picture) == ord("c")).all()
    assert read_picture(labels)[0, :4].tolist() == [[10, 20, 30], [40, 50, 60], [40, 50, 60], [0, 0, 0]]
    call(capsys, *arguments, "--resolution", "12x20")
    assert read_picture(picture).shape == read_picture(labels).shape == (12, 20, 3)


def test_sheet_shows_pictures_above_their_labels(capsys, yard, tmp_path):
    path = tmp_path / "sheet.png"
    arguments = ("sheet", f"folder:{yard}", "--columns", 2, "--resolution", "6x8", "-o", path)
    code, output, _ = call(capsys, *arguments)
    assert (code, output) == (0, f"{path}: 3 of 3 samples of train\n")
    found = read_picture(path)
    assert found.shape == (4 + 2 * (12 + 4), 4 + 2 * (8 + 4), 3)
    assert (found[4:10, 4:12] == ord("a")).all()
    assert (found[4:10, 16:24] == ord("b")).all()
    assert (found[20:26, 4:12] == ord("c")).all()
    assert found[10, 4:8].tolist() == [[10, 20, 30], [40, 50, 60], [40, 50, 60], [0, 0, 0]]
    assert (found[20:32, 16:24] == 255).all()


def test_sheet_of_streets_is_the_one_in_the_documentation(capsys, tmp_path):
    from pathlib import Path

    path = tmp_path / "streets.png"
    assert call(capsys, "sheet", "streets", "-o", path)[0] == 0
    shown = Path(__file__).parents[3] / "docs" / "streets.png"
    assert np.array_equal(read_picture(path), read_picture(shown))
    assert shown.stat().st_size < 400_000


def test_frequencies(capsys, yard):
    code, output, _ = call(capsys, "frequencies", f"folder:{yard}", "--json", "-")
    tree = json.loads(output)
    assert (code, tree["samples"]) == (0, 3)
    assert tree["classes"] == {
        "path": {"share_of_pixels": 0.25, "share_of_samples": 1.0},
        "grass": {"share_of_pixels": 0.5, "share_of_samples": 1.0},
        "ignored": {"share_of_pixels": 0.25, "share_of_samples": 1.0},
    }
    put(yard / "m/a.png", np.zeros((6, 8)))
    assert "grass             25.00%     50%\n" in call(capsys, "frequencies", f"folder:{yard}", "--count", 2)[1]


def test_the_sub_command_is_mounted(capsys):
    from searchkit.cli import app as whole

    assert run(whole, ["data", "list"]) == 0
    assert "streets" in capsys.readouterr().out
