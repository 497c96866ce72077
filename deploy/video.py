"""Videos, decoded and encoded by `ffmpeg` through pipes: one frame is in memory at a time.

Only the program `ffmpeg` is needed, found on PATH. A video's size and rate come from the header of its first frame as
YUV4MPEG2, which is made for machines, rather than from ffmpeg's messages. Local files only: a playlist inside a video
file must not make this program open connections.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from searchkit.errors import BackendUnavailableError, InputFileError, StorageError, UsageError
from searchkit.sizes import MAX_SIDE_PX, Size
from searchkit.staged_file import staged_file

#: Suffix -> ffmpeg's name of the container.
CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".avi": "avi", ".webm": "webm"}
#: The container for label maps, which only a lossless codec may touch.
LABELS_SUFFIX = ".mkv"
_MAX_HEADER_BYTES = 512
_MAX_RATE = 1000
_KEPT_LINES = 4
_PATIENCE_S = 10


@dataclass(frozen=True)
class VideoFacts:
    """Size of the frames, as they are shown, and how many a second."""

    size: Size
    rate: Fraction


def require_ffmpeg() -> str:
    """The program's path; raises `BackendUnavailableError` where there is none."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise BackendUnavailableError(
            "videos need the program ffmpeg, which is not on PATH",
            fix="install it, such as with `apt install ffmpeg`, or give a folder of pictures",
        )
    return found


def check_video_output(path: Path, *, labels: bool) -> None:
    """Raise `UsageError` unless the name is one that such a video is written under."""
    allowed = [LABELS_SUFFIX] if labels else sorted(CONTAINERS)
    if path.suffix.lower() not in allowed:
        raise UsageError(
            "label maps of a video are written without loss" if labels else "not a container for a video",
            where="--output",
            got=path.name,
            allowed=f"a name that ends in {', '.join(allowed)}",
        )


def video_facts(path: Path) -> VideoFacts:
    """Size and rate of a video's first stream.

    Raises:
        InputFileError: it is not there, ffmpeg finds no video in it, or one that is too large.
        BackendUnavailableError: there is no ffmpeg.
    """
    if not path.exists():
        raise InputFileError("video does not exist", where=str(path), fix="check the path")
    arguments = [*_input(path), "-frames:v", "1", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"]
    with _process(arguments, stdout=subprocess.PIPE) as (process, messages):
        assert process.stdout is not None
        header = process.stdout.readline(_MAX_HEADER_BYTES)
    words = {word[:1]: word[1:] for word in header.decode("ascii", "replace").split()[1:]}
    try:
        size = Size(int(words["H"]), int(words["W"]))
        rate = Fraction(words["F"].replace(":", "/"))
    except (KeyError, ValueError, ZeroDivisionError):
        raise InputFileError("no video that ffmpeg can read", where=str(path), got=_last(messages)) from None
    if not all(1 <= side <= MAX_SIDE_PX for side in size) or not 0 < rate <= _MAX_RATE:
        raise InputFileError("video out of range", where=str(path), got=f"{size} at {rate} frames a second")
    return VideoFacts(size, rate)


@contextmanager
def read_video(path: Path, facts: VideoFacts) -> Iterator[Iterator[np.ndarray]]:
    """The frames, uint8 RGB H x W x 3, at a constant rate; yields an iterator that reads them as it goes.

    Raises:
        InputFileError: ffmpeg stops before the end of the video.
    """
    arguments = [*_input(path), "-r", str(facts.rate), "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"]
    with _process(arguments, stdout=subprocess.PIPE) as (process, messages):
        assert process.stdout is not None
        yield _frames(process.stdout, facts.size, process, messages, path)


def _frames(
    pipe: IO[bytes], size: Size, process: subprocess.Popen[bytes], messages: deque[str], path: Path
) -> Iterator[np.ndarray]:
    needed = size.height * size.width * 3
    while data := pipe.read(needed):
        if len(data) < needed:
            break
        # A copy may be written to, which PyTorch insists on.
        yield np.frombuffer(data, np.uint8).reshape(*size, 3).copy()
    if process.wait() != 0 or len(data) not in (0, needed):
        raise InputFileError("the video cannot be read to its end", where=str(path), got=_last(messages))


class VideoWriter:
    """Takes frames; see `write_video`."""

    def __init__(self, pipe: IO[bytes], shape: tuple[int, ...]) -> None:
        self._pipe, self._shape = pipe, shape

    def write(self, frame: np.ndarray) -> None:
        """One uint8 frame of the video's shape."""
        assert frame.shape == self._shape, "a frame of another shape"
        assert frame.dtype == np.uint8, "a frame of another type"
        try:
            self._pipe.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            # Why it closed its end is in its messages.
            raise _EncoderGoneError from None


class _EncoderGoneError(Exception):
    """ffmpeg stopped taking frames."""


@contextmanager
def write_video(path: Path, facts: VideoFacts, *, labels: bool) -> Iterator[VideoWriter]:
    """Yields what takes the frames, which are as large as `facts` says; the file is whole or not there.

    Args:
        labels: frames are label maps H x W, kept without loss; otherwise pictures H x W x 3, RGB, which are not.

    Raises:
        StorageError: ffmpeg cannot write the file.
    """
    kind = "gray" if labels else "rgb24"
    codec = ["-c:v", "ffv1", "-pix_fmt", "gray"] if labels else ["-pix_fmt", "yuv420p", "-vf", _EVEN_SIDES]
    source = ["-f", "rawvideo", "-pix_fmt", kind, "-video_size", f"{facts.size.width}x{facts.size.height}"]
    source += ["-framerate", str(facts.rate), "-i", "pipe:0"]
    with staged_file(path) as staging:
        container = ["-f", CONTAINERS[path.suffix.lower()], "-y", f"file:{staging}"]
        # What ffmpeg would write of itself differs by its version.
        arguments = [*source, *codec, "-fflags", "+bitexact", *container]
        with _process(arguments, stdin=subprocess.PIPE) as (process, messages):
            assert process.stdin is not None
            shape = (*facts.size,) if labels else (*facts.size, 3)
            try:
                yield VideoWriter(process.stdin, shape)
                process.stdin.close()
                code = process.wait()
            except (_EncoderGoneError, BrokenPipeError):
                code = process.wait() or 1
            if code != 0:
                raise StorageError(
                    f"ffmpeg cannot write the video: {_last(messages)}",
                    where=str(path),
                    fix="check the space on the disk, or choose another container",
                )


# Most codecs take colour at half the resolution, so sides must be even.
_EVEN_SIDES = "pad=ceil(iw/2)*2:ceil(ih/2)*2"


def _input(path: Path) -> list[str]:
    # The prefix keeps a name such as `concat:a|b` or `-y` a name.
    return ["-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:v:0"]


@contextmanager
def _process(
    arguments: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[bytes], deque[str]]]:
    """ffmpeg at work, and the last lines that it says; ended on the way out, however that is.

    In a process group of its own, so that Ctrl-C reaches it through this program alone.
    """
    command = [require_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", *arguments]
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, process_group=0)
    messages: deque[str] = deque(maxlen=_KEPT_LINES)
    listener = threading.Thread(target=_listen, args=(process.stderr, messages), daemon=True)
    listener.start()
    try:
        yield process, messages
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)
        if process.poll() is None:
            process.kill()
        process.wait()
        listener.join(_PATIENCE_S)


def _listen(pipe: IO[bytes], messages: deque[str]) -> None:
    """A pipe that nobody reads fills up, and its writer then waits for ever."""
    with pipe:
        for line in pipe:
            messages.append(line.decode(errors="replace").strip()[:200])


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        # What was still to be written is of no use to anyone.
        return


def _last(messages: deque[str]) -> str:
    return messages[-1] if messages else "ffmpeg does not say why"
