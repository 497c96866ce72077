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

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import strict_json
from ..data import Dataset, Sample
from ..errors import DamagedArtifactError, InputFileError, StorageError, UsageError
from ..files import read_bytes, sha256_file, storage_error, write_text
from ..label_sets import MAX_CLASSES, LabelSet
from ..pictures import resize_picture
from ..sizes import MAX_SIDE_PX, Size
from ._arrays import FIX, ArrayFile, mapped

SCHEMA = 1
MANIFEST, JOURNAL, LOCK = "cache.json", "journal.json", "lock"
IMAGES, LABELS = "images.npy", "labels.npy"

Progress = Callable[[int, int], None]

# Samples between two flushes: at most this many are decoded again after a kill.
_BATCH = 32
_MAX_READERS = 8
_MAX_MANIFEST_BYTES = 1 << 20

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
_Level = Annotated[int, Field(ge=0, le=255)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Identity(_Part):
    """What decides every byte of a cache."""

    # Raised when the same samples would be stored as other bytes.
    format: Literal[1]
    dataset: str
    split: str
    height: _Side
    width: _Side
    count: _Count
    fingerprint: _Hash


class _Labels(_Part):
    name: str
    names: Annotated[list[str], Field(min_length=1, max_length=MAX_CLASSES)]
    palette: list[Annotated[list[_Level], Field(min_length=3, max_length=3)]]
    ignore: _Level


class _Manifest(_Part):
    schema_: Annotated[Literal[1], Field(alias="schema")]
    identity: _Identity
    labels: _Labels
    sha256: Annotated[dict[str, _Hash], Field(min_length=2, max_length=2)]


class _Journal(_Part):
    identity: _Identity
    done: _Count


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
    return folder / _folder_name(dataset.kind, split, size, dataset.fingerprint(split))


def _folder_name(kind: str, split: str, size: Size, fingerprint: str) -> str:
    return f"{kind}-{split}-{size}-{fingerprint[:16]}"


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
    identity = _Identity(
        format=1,
        dataset=dataset.kind,
        split=split,
        height=size.height,
        width=size.width,
        count=count,
        fingerprint=dataset.fingerprint(split),
    )
    path = folder / _folder_name(dataset.kind, split, size, identity.fingerprint)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error
    with _locked(path, wait=wait):
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
    manifest = _read_manifest(path)
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


def _shapes(identity: _Identity) -> dict[str, tuple[int, ...]]:
    flat = (identity.count, identity.height, identity.width)
    return {IMAGES: (*flat, 3), LABELS: flat}


def _fill(path: Path, dataset: Dataset, identity: _Identity, progress: Progress | None) -> None:
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
            write_text(path / JOURNAL, _Journal(identity=identity, done=done).model_dump_json())


def _finish(path: Path, labels: LabelSet, identity: _Identity) -> None:
    classes = _Labels(
        name=labels.name,
        names=list(labels.names),
        palette=[list(colour) for colour in labels.palette],
        ignore=labels.ignore,
    )
    hashes = {name: sha256_file(path / name) for name in (IMAGES, LABELS)}
    manifest = _Manifest.model_validate({"schema": SCHEMA, "identity": identity, "labels": classes, "sha256": hashes})
    write_text(path / MANIFEST, manifest.model_dump_json(indent=2, by_alias=True) + "\n")


def _done(path: Path, identity: _Identity) -> int:
    """How many samples an earlier run has left; none where its files are not those of this cache."""
    try:
        data = read_bytes(path / JOURNAL, limit_bytes=_MAX_MANIFEST_BYTES, what="journal")
        journal = _Journal.model_validate(strict_json.loads(data, where=JOURNAL))
        for name, shape in _shapes(identity).items():
            mapped(path / name, shape)
    except (InputFileError, ValidationError, DamagedArtifactError):
        return 0
    return journal.done if journal.identity == identity and journal.done <= identity.count else 0


@contextmanager
def _arrays(path: Path, identity: _Identity) -> Iterator[list[ArrayFile]]:
    files: list[ArrayFile] = []
    try:
        for name, shape in _shapes(identity).items():
            files.append(ArrayFile(path / name, shape))
        yield files
    finally:
        for file in files:
            file.close()


def _read_manifest(path: Path) -> _Manifest:
    where = path / MANIFEST
    if not where.exists():
        raise InputFileError("there is no finished cache here", where=str(path), fix="run `searchkit data prepare`")
    try:
        data = read_bytes(where, limit_bytes=_MAX_MANIFEST_BYTES, what="manifest of the cache")
        manifest = _Manifest.model_validate(strict_json.loads(data, where=str(where)))
    except InputFileError as error:
        raise DamagedArtifactError(f"the manifest cannot be read: {error}", where=str(where), fix=FIX) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DamagedArtifactError(f"{field}: {first['msg']}", where=str(where), fix=FIX) from None
    if set(manifest.sha256) != {IMAGES, LABELS} or len(manifest.labels.names) != len(manifest.labels.palette):
        raise DamagedArtifactError("the manifest contradicts itself", where=str(where), fix=FIX)
    return manifest


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a cache. The system lets go of it when the process ends, however it ends."""
    try:
        file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(error, path / LOCK) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"process {holder} is making this cache", where=str(path), fix="wait until it has ended, or end it"
            ) from None
        except OSError as error:
            raise StorageError("this file system has no locks", where=str(path), fix="write somewhere else") from error
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)
