"""Videos through a program that stands for ffmpeg (`fake_ffmpeg.py`), so that its faults can be had at will."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deploy import video
from deploy.video import (
    VideoFacts,
    check_video_output,
    read_video,
    require_ffmpeg,
    video_facts,
    write_video,
)
from searchkit.errors import BackendUnavailableError, InputFileError, StorageError, UsageError
from searchkit.sizes import Size

SIZE = Size(6, 10)
FACTS = VideoFacts(SIZE, Fraction(30000, 1001))
FRAMES = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


def test_without_ffmpeg_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BackendUnavailableError, match=r"ffmpeg, which is not on PATH.*apt install ffmpeg") as caught:
        require_ffmpeg()
    assert caught.value.exit_code == 7
    there = tmp_path / "x.mp4"
    there.write_bytes(b"a video")
    with pytest.raises(BackendUnavailableError):
        video_facts(there)


def test_the_facts_are_those_of_the_first_frame(ffmpeg, toy):
    assert video_facts(toy(FRAMES, rate="30000/1001")) == FACTS


def test_frames_come_as_they_are(ffmpeg, toy):
    with read_video(toy(FRAMES), FACTS) as frames:
        found = list(frames)
    assert np.array_equal(found, FRAMES)
    assert all(frame.flags.writeable for frame in found)


def test_messages_of_any_length_do_not_stop_it(ffmpeg, toy):
    with read_video(toy(FRAMES, fault="noisy"), FACTS) as frames:
        assert len(list(frames)) == 5


@pytest.mark.parametrize("data", [b"", b"nonsense", b"TOY 6 10 25/0 rgb24\n", b"TOY 6 10 x rgb24\n"])
def test_what_is_no_video(ffmpeg, tmp_path, data):
    (tmp_path / "v.mp4").write_bytes(data)
    with pytest.raises(InputFileError, match=r"v\.mp4: no video that ffmpeg can read"):
        video_facts(tmp_path / "v.mp4")


def test_a_video_that_is_not_there(ffmpeg, tmp_path):
    with pytest.raises(InputFileError, match=r"v\.mp4: video does not exist"):
        video_facts(tmp_path / "v.mp4")


@pytest.mark.parametrize("header", [b"TOY 6 9000 25 rgb24\n", b"TOY 0 10 25 rgb24\n", b"TOY 6 10 1001 rgb24\n"])
def test_a_video_out_of_range(ffmpeg, tmp_path, header):
    (tmp_path / "v.mp4").write_bytes(header)
    with pytest.raises(InputFileError, match="video out of range"):
        video_facts(tmp_path / "v.mp4")


def read_all(path):
    with read_video(path, FACTS) as frames:
        return list(frames)


def test_a_video_that_breaks_off(ffmpeg, toy):
    with pytest.raises(InputFileError, match=r"cannot be read to its end \(got 'error while decoding'"):
        read_all(toy(FRAMES, fault="damaged"))
    path = toy(FRAMES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputFileError, match="cannot be read to its end"):
        read_all(path)


def children():
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def test_a_reader_that_stops_early_leaves_no_process(ffmpeg, toy):
    before = children()
    many = np.zeros((2000, *SIZE, 3), np.uint8)
    with read_video(toy(many), FACTS) as frames:
        next(frames)
        assert len(children()) == len(before) + 1
    assert children() == before


@pytest.mark.parametrize("labels", [False, True])
def test_what_is_written_is_whole(ffmpeg, tmp_path, labels):
    frames = FRAMES[..., 0] if labels else FRAMES
    path = tmp_path / ("v.mkv" if labels else "v.mp4")
    path.write_bytes(b"old")
    with write_video(path, FACTS, labels=labels) as writer:
        for frame in frames:
            writer.write(frame)
        assert path.read_bytes() == b"old"
    kind = "gray" if labels else "rgb24"
    assert path.read_bytes() == f"TOY 6 10 30000/1001 {kind}\n".encode() + frames.tobytes()
    assert list(tmp_path.glob(".*")) == []


class StopError(Exception):
    """Something else goes wrong while a video is being written."""


def write_and_stop(path, error):
    with write_video(path, FACTS, labels=False) as writer:
        writer.write(FRAMES[0])
        raise error


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
def test_an_interrupt_leaves_the_old_video(ffmpeg, tmp_path, error):
    path, before = tmp_path / "v.mp4", children()
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_and_stop(path, error)
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    assert path.read_bytes() == b"old"
    assert children() == before


def write_many(path):
    with write_video(path, FACTS, labels=False) as writer:
        for _ in range(2000):
            writer.write(FRAMES[0])


@pytest.mark.parametrize(("fault", "says"), [("full", "No space left on device"), ("late", "Conversion failed!")])
def test_an_encoder_that_fails_leaves_the_old_video(ffmpeg, tmp_path, monkeypatch, fault, says):
    monkeypatch.setenv("FAKE_FFMPEG", fault)
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match=f"ffmpeg cannot write the video: {says}") as caught:
        write_many(path)
    assert caught.value.exit_code == 4
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
    assert path.read_bytes() == b"old"


def test_frames_of_another_form_are_a_mistake_of_the_caller(ffmpeg, tmp_path):
    for frame in (FRAMES[0][:5], FRAMES[0].astype(np.float32), FRAMES[0][..., 0]):
        with (
            pytest.raises(AssertionError, match="a frame of another"),
            write_video(tmp_path / "v.mp4", FACTS, labels=False) as writer,
        ):
            writer.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["v.mp4", "v.MKV", "v.mov", "v.avi", "v.webm"])
def test_names_of_videos(name):
    check_video_output(Path(name), labels=False)


@pytest.mark.parametrize(
    ("name", "labels", "says"),
    [
        ("v.png", False, "not a container for a video"),
        ("v", False, "not a container for a video"),
        ("v.mp4", True, "label maps of a video are written without loss"),
    ],
)
def test_names_that_are_refused(name, labels, says):
    with pytest.raises(UsageError, match=says):
        check_video_output(Path(name), labels=labels)


def test_a_name_is_a_name(ffmpeg, toy):
    """ffmpeg gives such names a meaning of their own."""
    path = toy(FRAMES, name="concat:a|b.mp4")
    assert video._input(path)[2:4] == ["-i", f"file:{path}"]
    assert video_facts(path).size == SIZE
