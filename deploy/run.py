"""A segmenter over a picture, a folder of pictures or a video, each result whole or not there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from searchkit.errors import InputFileError, StorageError, UsageError
from searchkit.files import storage_error
from searchkit.label_sets import MAX_CLASSES
from searchkit.pictures import check_output, read_picture, write_picture
from searchkit.sizes import Size

from .segmenter import Segmenter
from .video import CONTAINERS, check_video_output, read_video, require_ffmpeg, video_facts, write_video

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
VIDEO_SUFFIXES = frozenset({*CONTAINERS, ".m4v", ".mpg", ".mpeg", ".mts", ".ts", ".h264", ".h265"})

#: What is written: the colours of the classes, those blended with the picture, or the labels themselves as grey.
STYLES = ("colours", "overlay", "labels")


@dataclass(frozen=True)
class Job:
    """What to read and what to write.

    Attributes:
        kind: `picture`, `folder` or `video`.
        items: what is read and what is written, in order; a video is one.
    """

    kind: str
    items: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True)
class Result:
    """What became of one input.

    Attributes:
        output: None where nothing was written.
        size: of the picture or of the frames.
        frames: 1 of a picture.
        shares: of the pixels that each class has.
        error: why nothing was written; None where all is well.
    """

    input: Path
    output: Path | None
    size: Size | None = None
    frames: int = 0
    shares: dict[str, float] | None = None
    error: str | None = None

    def to_tree(self) -> dict[str, object]:
        """As JSON."""
        return {
            "input": str(self.input),
            "output": str(self.output) if self.output else None,
            "size": str(self.size) if self.size else None,
            "frames": self.frames,
            "share_of_pixels": self.shares,
            "error": self.error,
        }


def plan(source: Path, output: Path, *, style: str) -> Job:
    """What is to be done; reads no picture and writes nothing.

    Raises:
        UsageError: the output's name does not suit, is that of the input, or lies in the folder that is read.
        InputFileError: a folder without a picture.
        BackendUnavailableError: a video, and no ffmpeg.
        StorageError: a folder that cannot be listed.
    """
    if source.is_dir():
        return Job("folder", tuple(_of_folder(source, output)))
    if os.path.realpath(output) == os.path.realpath(source):
        raise UsageError(
            "the output would replace what is read", where="--output", got=str(output), fix="choose another name"
        )
    if source.suffix.lower() in VIDEO_SUFFIXES:
        check_video_output(output, labels=style == "labels")
        require_ffmpeg()
        return Job("video", ((source, output),))
    check_output(output)
    return Job("picture", ((source, output),))


def _of_folder(source: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source)):
        raise UsageError(
            "the output would lie in the folder that is read",
            where="--output",
            got=str(output),
            fix="choose a folder outside it",
        )
    if output.exists() and not output.is_dir():
        raise UsageError("there is a file, not a folder, at this path", where=str(output), fix="choose another name")
    found = sorted(_pictures(source))
    if not found:
        raise InputFileError(
            "no picture in this folder", where=str(source), allowed=", ".join(sorted(PICTURE_SUFFIXES))
        )
    plain = [path.relative_to(source).with_suffix(".png") for path in found]
    uses = Counter(plain)
    for path, name in zip(found, plain, strict=True):
        # `a.jpg` and `a.png` would both become `a.png`.
        yield path, output / (name if uses[name] == 1 else f"{path.relative_to(source)}.png")


def _pictures(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise storage_error(error, error.filename or folder) from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(place, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
        )


def run(segmenter: Segmenter, job: Job, *, style: str, done: Callable[[Path], None] = lambda _: None) -> list[Result]:
    """Do it; a picture of a folder that cannot be read is named in its result, and the rest go on.

    Args:
        style: one of `STYLES`.
        done: called after each picture or frame.

    Raises:
        InputFileError: the one picture or the video cannot be read.
        StorageError: the disk refuses what is written; what stands there is whole.
    """
    assert style in STYLES, style
    if job.kind == "video":
        return [_video(segmenter, *job.items[0], style, done)]
    results = []
    for source, output in job.items:
        try:
            image = read_picture(source)
        except (InputFileError, StorageError) as error:
            if job.kind == "picture":
                raise
            results.append(Result(source, None, error=str(error)))
        else:
            if job.kind == "folder":
                _make_folder(output.parent)
            results.append(_picture(segmenter, image, source, output, style))
        done(source)
    return results


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def _picture(segmenter: Segmenter, image: np.ndarray, source: Path, output: Path, style: str) -> Result:
    labels = segmenter(image)
    write_picture(output, _painted(segmenter, image, labels, style))
    counts = _counts(segmenter, labels)
    return Result(source, output, Size(*labels.shape), 1, _shares(segmenter, counts))


def _video(segmenter: Segmenter, source: Path, output: Path, style: str, done: Callable[[Path], None]) -> Result:
    facts = video_facts(source)
    counts = np.zeros(len(segmenter.labels), np.int64)
    if style == "labels" and len(segmenter.labels) > MAX_CLASSES:
        raise UsageError(
            "too many classes for a video of labels",
            where="--labels",
            got=len(segmenter.labels),
            allowed=f"at most {MAX_CLASSES}",
            fix="leave it out, or give a folder of pictures",
        )
    frames = 0
    with read_video(source, facts) as images, write_video(output, facts, labels=style == "labels") as video:
        for image in images:
            labels = segmenter(image)
            video.write(_painted(segmenter, image, labels, style))
            counts += _counts(segmenter, labels)
            frames += 1
            done(source)
        if not frames:
            raise InputFileError("the video has no frames", where=str(source), fix="check that it plays")
    return Result(source, output, facts.size, frames, _shares(segmenter, counts))


def _painted(segmenter: Segmenter, image: np.ndarray, labels: np.ndarray, style: str) -> np.ndarray:
    if style == "labels":
        return labels
    return segmenter.overlay(image, labels) if style == "overlay" else segmenter.colour(labels)


def _counts(segmenter: Segmenter, labels: np.ndarray) -> np.ndarray:
    counts: np.ndarray = np.bincount(labels.ravel(), minlength=len(segmenter.labels))
    return counts


def _shares(segmenter: Segmenter, counts: np.ndarray) -> dict[str, float]:
    total = counts.sum()
    return {name: float(count / total) for name, count in zip(segmenter.labels.names, counts, strict=False)}
