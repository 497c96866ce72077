"""Samples decoded once, at one size, in two memory-mapped arrays.

A cache is the folder `<kind>-<split>-<H>x<W>-<16 digits of the fingerprint>`:

    images.npy    uint8, N x H x W x 3, RGB
    labels.npy    uint8, N x H x W
    cache.json    what the cache was made from, and the SHA-256 of both arrays; written last
    journal.json  while it is being made: how many samples are on the device
    lock          held by the process that makes it, whose id it contains

A folder without `cache.json` is no cache yet, whatever else it holds. Samples are written in order and the journal
only ever counts what has been flushed, so a run that was killed goes on where it was, to the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import Dataset, Sample
from ..errors import DamagedArtifactError, InputFileError
from ..files import sha256_file, write_text
from ..label_sets import LabelSet
from ..pictures import resize_picture
from ..sizes import Size
from ._arrays import FIX, ArrayFile, mapped
from .cache_folder import (
    IMAGES,
    JOURNAL,
    LABELS,
    MANIFEST,
    Identity,
    Journal,
    Labels,
    Manifest,
    folder_name,
    locked,
    read_journal,
    read_manifest,
)

SCHEMA = 1

Progress = Callable[[int, int], None]

# Samples between two flushes: at most this many are decoded again after a kill.
_BATCH = 32
_MAX_READERS = 8


@dataclass(frozen=True)
class Cache:
    """The samples of one split at one size. `cache[index]` copies nothing; other processes may hold the same cache.

    Attributes:
        path: the folder.
        dataset: name of the kind of data set.
        split: name of the split.
        size: of every sample.
        labels: what the numbers in the label maps mean.
        fingerprint: of the split that it was made from.
        images: N x H x W x 3, uint8, read-only.
        label_maps: N x H x W, uint8, read-only.
    """

    path: Path
    dataset: str
    split: str
    size: Size
    labels: LabelSet
    fingerprint: str
    images: np.ndarray
    label_maps: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """A view of sample `index`; raises `IndexError` unless it is from 0 to N - 1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(self.images[index], self.label_maps[index])

    def __reduce__(self) -> tuple[Callable[[Path], Cache], tuple[Path]]:
        # A worker process maps the files again; pickling the arrays would copy them.
        return open_cache, (self.path,)


def cache_path(dataset: Dataset, split: str, size: Size, folder: Path) -> Path:
    """Where `prepare` puts this cache under `folder`."""
    return folder / folder_name(dataset.kind, split, size, dataset.fingerprint(split))


def prepare(
    dataset: Dataset,
    split: str,
    size: Size,
    folder: Path,
    progress: Progress | None = None,
    *,
    wait: bool = False,
) -> Cache:
    """Decode every sample of a split once; where that has been done, open what is there.

    Pictures are reduced bilinearly with antialiasing, label maps by nearest neighbour. A run that is interrupted or
    killed is continued by the next one.

    Args:
        dataset: an opened data set.
        split: one of its splits.
        size: of the samples in the cache.
        folder: for caches; made if missing.
        progress: called with the number of samples that are done and that of all, from the calling thread.
        wait: whether to wait for another process that makes the same cache, rather than to refuse.

    Raises:
        UsageError: no such split, or another process makes the same cache.
        InputFileError: a sample cannot be read, or there is none.
        StorageError: the disk refused, or is full. What was done is kept.
        DamagedArtifactError: the cache that is there is not whole.
    """
    count = dataset.count(split)
    if not count:
        raise InputFileError(f"split {split} has no samples", where=dataset.kind)
    identity = Identity(
        format=1,
        dataset=dataset.kind,
        split=split,
        height=size.height,
        width=size.width,
        count=count,
        fingerprint=dataset.fingerprint(split),
    )
    path = folder / folder_name(dataset.kind, split, size, identity.fingerprint)
    with locked(path, wait=wait):
        if not (path / MANIFEST).exists():
            _fill(path, dataset, identity, progress)
            _finish(path, dataset.labels, identity)
        cache = open_cache(path)
        if (cache.fingerprint, cache.size, len(cache)) != (identity.fingerprint, size, count):
            raise DamagedArtifactError("the cache holds something else than its name says", where=str(path), fix=FIX)
        with suppress(OSError):
            (path / JOURNAL).unlink()
    return cache


def open_cache(path: Path, *, verify: bool = False) -> Cache:
    """Open a finished cache.

    Args:
        path: the folder of the cache itself.
        verify: whether to compare the SHA-256 of the arrays too, which reads all of them.

    Raises:
        InputFileError: there is no finished cache.
        DamagedArtifactError: a file is missing, or has another size, form or content than `cache.json` says.
    """
    manifest = read_manifest(path)
    identity, labels = manifest.identity, manifest.labels
    arrays = {}
    for name, shape in _shapes(identity).items():
        arrays[name] = mapped(path / name, shape)
        if verify and sha256_file(path / name) != manifest.sha256[name]:
            raise DamagedArtifactError("the content of the array has changed", where=str(path / name), fix=FIX)
    return Cache(
        path=path,
        dataset=identity.dataset,
        split=identity.split,
        size=Size(identity.height, identity.width),
        labels=LabelSet(
            labels.name,
            tuple(labels.names),
            tuple((red, green, blue) for red, green, blue in labels.palette),
            labels.ignore,
        ),
        fingerprint=identity.fingerprint,
        images=arrays[IMAGES],
        label_maps=arrays[LABELS],
    )


def _shapes(identity: Identity) -> dict[str, tuple[int, ...]]:
    flat = (identity.count, identity.height, identity.width)
    return {IMAGES: (*flat, 3), LABELS: flat}


def _fill(path: Path, dataset: Dataset, identity: Identity, progress: Progress | None) -> None:
    done, count, size = _done(path, identity), identity.count, Size(identity.height, identity.width)

    def sample(index: int) -> tuple[bytes, bytes]:
        found = dataset.read(identity.split, index)
        return (
            resize_picture(found.image, size).tobytes(),
            resize_picture(found.labels, size, nearest=True).tobytes(),
        )

    with _arrays(path, identity) as files, ThreadPoolExecutor(min(_MAX_READERS, os.cpu_count() or 1)) as readers:
        if progress:
            progress(done, count)
        while done < count:
            stop = min(done + _BATCH, count)
            for index, pieces in zip(range(done, stop), readers.map(sample, range(done, stop)), strict=True):
                for file, piece in zip(files, pieces, strict=True):
                    file.write(index, piece)
                if progress:
                    progress(index + 1, count)
            for file in files:
                file.flush()
            done = stop
            write_text(path / JOURNAL, Journal(identity=identity, done=done).model_dump_json())


def _finish(path: Path, labels: LabelSet, identity: Identity) -> None:
    classes = Labels(
        name=labels.name,
        names=list(labels.names),
        palette=[list(colour) for colour in labels.palette],
        ignore=labels.ignore,
    )
    hashes = {name: sha256_file(path / name) for name in (IMAGES, LABELS)}
    manifest = Manifest.model_validate({"schema": SCHEMA, "identity": identity, "labels": classes, "sha256": hashes})
    write_text(path / MANIFEST, manifest.model_dump_json(indent=2, by_alias=True) + "\n")


def _done(path: Path, identity: Identity) -> int:
    """How many samples an earlier run has left; none where its files are not those of this cache."""
    journal = read_journal(path)
    if journal is None or journal.identity != identity or journal.done > identity.count:
        return 0
    try:
        for name, shape in _shapes(identity).items():
            mapped(path / name, shape)
    except DamagedArtifactError:
        return 0
    return journal.done


@contextmanager
def _arrays(path: Path, identity: Identity) -> Iterator[list[ArrayFile]]:
    files: list[ArrayFile] = []
    try:
        for name, shape in _shapes(identity).items():
            files.append(ArrayFile(path / name, shape))
        yield files
    finally:
        for file in files:
            file.close()
