"""`searchkit run` below its command line: pictures, folders and videos through one segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.deployable import Deployable
from deploy.export import export
from deploy.run import STYLES, Job, plan, run
from deploy.segmenter import load
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, InputFileError, StorageError, UsageError
from searchkit.pictures import read_picture, write_picture
from searchkit.sizes import Size

SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def segmenter(tiny_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "labels"
    export(Deployable(tiny_network(), SIZE, "labels"), folder)
    with load(folder, threads=1) as found:
        yield found


@pytest.fixture
def pictures(tmp_path):
    """A folder with pictures in it and below it, and with what is none."""
    folder = tmp_path / "in"
    for index, name in enumerate(["b.png", "a.jpg", "a.png", "deep/er/c.PNG", ".hidden/x.png", ".x.png"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(streets.draw(1, index, Size(40, 50 + index)).image).save(path)
    (folder / "notes.txt").write_text("no picture")
    return folder


def painted(segmenter, image, style):
    labels = segmenter(image)
    if style == "labels":
        return labels
    return segmenter.colour(labels) if style == "colours" else segmenter.overlay(image, labels)


@pytest.mark.parametrize("style", STYLES)
def test_a_picture(segmenter, pictures, tmp_path, style):
    source, output = pictures / "b.png", tmp_path / "out.png"
    job = plan(source, output, style=style)
    assert job == Job("picture", ((source, output),))
    done = []
    (result,) = run(segmenter, job, style=style, done=done.append)
    assert done == [source]
    assert np.array_equal(np.asarray(Image.open(output)), painted(segmenter, read_picture(source), style))
    assert (result.output, result.size, result.frames, result.error) == (output, Size(40, 50), 1, None)
    assert sum(result.shares.values()) == pytest.approx(1)
    labels = segmenter(read_picture(source))
    assert result.shares["class 1"] == (labels == 1).mean()
    assert result.to_tree()["size"] == "40x50"


def test_a_folder_with_all_below_it(segmenter, pictures, tmp_path):
    job = plan(pictures, tmp_path / "out", style="colours")
    assert not (tmp_path / "out").exists(), "planning writes nothing"
    done = []
    results = run(segmenter, job, style="colours", done=done.append)
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    # Two pictures that differ in their suffix alone keep it.
    assert found == {"a.jpg.png", "a.png.png", "b.png", "deep/er/c.png"}
    assert done == [result.input for result in results] == sorted(done)
    for result in results:
        expected = segmenter.colour(segmenter(read_picture(result.input)))
        assert np.array_equal(read_picture(result.output), expected)


def test_a_picture_of_a_folder_that_is_none_is_named_and_the_rest_go_on(segmenter, pictures, tmp_path):
    (pictures / "b.png").write_text("no picture")
    (pictures / "gone.png").symlink_to(pictures / "nowhere")
    results = run(segmenter, plan(pictures, tmp_path / "out", style="colours"), style="colours")
    failed = {result.input.name: result.error for result in results if result.error}
    assert set(failed) == {"b.png", "gone.png"}
    assert "not a picture" in failed["b.png"]
    assert "does not exist" in failed["gone.png"]
    assert not (tmp_path / "out" / "b.png").exists()
    assert sum(result.error is None for result in results) == 3
    assert results[-1].to_tree()["error"] in (None, failed["gone.png"])


def test_one_picture_that_is_none_is_an_error(segmenter, tmp_path):
    (tmp_path / "p.png").write_text("no picture")
    with pytest.raises(InputFileError, match=r"p\.png"):
        run(segmenter, plan(tmp_path / "p.png", tmp_path / "o.png", style="labels"), style="labels")
    with pytest.raises(InputFileError, match="does not exist"):
        run(segmenter, plan(tmp_path / "missing.png", tmp_path / "o.png", style="labels"), style="labels")
    assert not (tmp_path / "o.png").exists()


def test_an_interrupt_keeps_what_is_done_and_nothing_half(segmenter, pictures, tmp_path):
    def interrupt(path):
        if path.name == "a.png":
            raise KeyboardInterrupt

    job = plan(pictures, tmp_path / "out", style="colours")
    with pytest.raises(KeyboardInterrupt):
        run(segmenter, job, style="colours", done=interrupt)
    assert {p.name for p in (tmp_path / "out").rglob("*")} == {"a.jpg.png", "a.png.png"}
    assert all(read_picture(p).shape[2] == 3 for p in (tmp_path / "out").iterdir())


def test_a_disk_that_refuses_is_an_error(segmenter, pictures):
    with pytest.raises(StorageError):
        run(segmenter, plan(pictures, Path("/proc/searchkit"), style="colours"), style="colours")


@pytest.mark.parametrize("output", ["in", "in/out", "link", "in/../in/deep"])
def test_an_output_in_the_folder_that_is_read_is_refused(pictures, output):
    (pictures.parent / "link").symlink_to(pictures)
    with pytest.raises(UsageError, match="would lie in the folder that is read"):
        plan(pictures, pictures.parent / output, style="colours")


def test_an_output_that_is_a_file_is_refused(pictures, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="a file, not a folder"):
        plan(pictures, tmp_path / "out", style="colours")


def test_a_folder_without_a_picture_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    with pytest.raises(InputFileError, match="no picture in this folder"):
        plan(tmp_path / "in", tmp_path / "out", style="colours")


def test_an_input_is_never_replaced(pictures):
    (pictures / "link.png").symlink_to(pictures / "b.png")
    for output in ("b.png", "deep/../b.png", "link.png"):
        with pytest.raises(UsageError, match="would replace what is read"):
            plan(pictures / "b.png", pictures / output, style="colours")
    with pytest.raises(UsageError, match="would replace what is read"):
        plan(pictures / "v.mp4", pictures / "v.mp4", style="colours")


def test_the_name_of_the_output_must_suit(pictures, tmp_path):
    with pytest.raises(UsageError, match="written as PNG"):
        plan(pictures / "b.png", tmp_path / "out.jpg", style="colours")
    with pytest.raises(UsageError, match="not a container for a video"):
        plan(tmp_path / "v.mp4", tmp_path / "out.png", style="colours")


def test_a_video_without_ffmpeg_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BackendUnavailableError, match="apt install ffmpeg"):
        plan(tmp_path / "v.mp4", tmp_path / "out.mp4", style="colours")


FRAMES = np.stack([streets.draw(2, index, Size(30, 40)).image for index in range(3)])


@pytest.mark.parametrize("style", STYLES)
def test_a_video(segmenter, ffmpeg, toy, tmp_path, style):
    source, output = toy(FRAMES, rate="25"), tmp_path / "out.mkv"
    done = []
    (result,) = run(segmenter, plan(source, output, style=style), style=style, done=done.append)
    assert done == [source] * 3
    expected = np.stack([painted(segmenter, frame, style) for frame in FRAMES])
    header, _, data = output.read_bytes().partition(b"\n")
    assert header == f"TOY 30 40 25 {'gray' if style == 'labels' else 'rgb24'}".encode()
    assert data == expected.tobytes()
    assert (result.frames, result.size) == (3, Size(30, 40))
    assert sum(result.shares.values()) == pytest.approx(1)


def test_a_video_that_breaks_off_leaves_nothing(segmenter, ffmpeg, toy, tmp_path):
    source = toy(FRAMES, fault="damaged")
    with pytest.raises(InputFileError, match="cannot be read to its end"):
        run(segmenter, plan(source, tmp_path / "out.mp4", style="colours"), style="colours")
    assert [p.name for p in tmp_path.iterdir() if p != source and p.is_file()] == []


def test_a_video_without_frames_is_refused(segmenter, ffmpeg, toy, tmp_path):
    source = toy(FRAMES[:0])
    with pytest.raises(InputFileError, match="the video has no frames"):
        run(segmenter, plan(source, tmp_path / "out.mp4", style="colours"), style="colours")
    assert not (tmp_path / "out.mp4").exists()


def test_more_classes_than_a_grey_video_holds_are_refused(tiny_network, ffmpeg, toy, tmp_path):
    """256 classes need 16 bits, as 255 stands for none."""
    export(Deployable(tiny_network(classes=256), SIZE, "raw"), tmp_path / "b")
    with load(tmp_path / "b") as many:
        job = plan(toy(FRAMES), tmp_path / "out.mkv", style="labels")
        with pytest.raises(UsageError, match=r"too many classes for a video of labels .*at most 255"):
            run(many, job, style="labels")
        write_picture(tmp_path / "p.png", FRAMES[0])
        run(many, plan(tmp_path / "p.png", tmp_path / "o.png", style="labels"), style="labels")
    assert np.asarray(Image.open(tmp_path / "o.png")).max() < 256
    assert not (tmp_path / "out.mkv").exists()
