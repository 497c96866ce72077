"""The folder of one cache: how it is called, what is in it, and who may write to it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import strict_json
from ..errors import DamagedArtifactError, InputFileError, StorageError, UsageError
from ..files import read_bytes, storage_error
from ..label_sets import MAX_CLASSES
from ..sizes import MAX_SIDE_PX, Size
from ._arrays import FIX

MANIFEST, JOURNAL, LOCK = "cache.json", "journal.json", "lock"
IMAGES, LABELS = "images.npy", "labels.npy"
_MAX_BYTES = 1 << 20

#: `<kind>-<split>-<H>x<W>-<16 digits of the fingerprint>`; no split has a hyphen.
NAME = re.compile(r"(?P<dataset>[A-Za-z0-9_.-]+)-(?P<split>\w+)-(?P<size>[0-9]+x[0-9]+)-[0-9a-f]{16}", re.ASCII)

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**31)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
_Level = Annotated[int, Field(ge=0, le=255)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Identity(_Part):
    """What decides every byte of a cache."""

    # Raised when the same samples would be stored as other bytes.
    format: Literal[1]
    dataset: str
    split: str
    height: _Side
    width: _Side
    count: _Count
    fingerprint: _Hash


class Labels(_Part):
    """What the numbers in the label maps mean."""

    name: str
    names: Annotated[list[str], Field(min_length=1, max_length=MAX_CLASSES)]
    palette: list[Annotated[list[_Level], Field(min_length=3, max_length=3)]]
    ignore: _Level


class Manifest(_Part):
    """The content of `cache.json`."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    identity: Identity
    labels: Labels
    sha256: Annotated[dict[str, _Hash], Field(min_length=2, max_length=2)]


class Journal(_Part):
    """The content of `journal.json`: of which cache how many samples are on the device."""

    identity: Identity
    done: _Count


def default_root() -> Path:
    """Where caches lie unless something else is said: `searchkit` under the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "searchkit"


def folder_name(kind: str, split: str, size: Size, fingerprint: str) -> str:
    """How the folder of a cache is called."""
    return f"{kind}-{split}-{size}-{fingerprint[:16]}"


def read_manifest(path: Path) -> Manifest:
    """The manifest of a finished cache.

    Raises:
        InputFileError: there is none.
        DamagedArtifactError: it is no manifest.
    """
    where = path / MANIFEST
    if not where.exists():
        raise InputFileError("there is no finished cache here", where=str(path), fix="run `searchkit data prepare`")
    try:
        data = read_bytes(where, limit_bytes=_MAX_BYTES, what="manifest of the cache")
        manifest = Manifest.model_validate(strict_json.loads(data, where=str(where)))
    except InputFileError as error:
        raise DamagedArtifactError(f"the manifest cannot be read: {error}", where=str(where), fix=FIX) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DamagedArtifactError(f"{field}: {first['msg']}", where=str(where), fix=FIX) from None
    if set(manifest.sha256) != {IMAGES, LABELS} or len(manifest.labels.names) != len(manifest.labels.palette):
        raise DamagedArtifactError("the manifest contradicts itself", where=str(where), fix=FIX)
    return manifest


def read_journal(path: Path) -> Journal | None:
    """The journal of a cache that is not finished; None where there is none, or what is there is none."""
    try:
        data = read_bytes(path / JOURNAL, limit_bytes=_MAX_BYTES, what="journal")
        return Journal.model_validate(strict_json.loads(data, where=JOURNAL))
    except (InputFileError, ValidationError):
        return None


@contextmanager
def locked(path: Path, *, wait: bool, busy: str = "is making this cache") -> Iterator[None]:
    """Hold the lock of a folder, which is made if missing. The system frees it when the process ends, however.

    Args:
        wait: whether to wait for the process that holds it, rather than to refuse.
        busy: what that process does, for the refusal.

    Raises:
        UsageError: another process holds it.
        StorageError: the disk refused, or the file system has no locks.
    """
    file = _lock(path, wait, busy)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)


def _lock(path: Path, wait: bool, busy: str) -> int:
    """The open, locked file `lock` of a folder."""
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not path.is_dir():
                # Another process has deleted the folder just now.
                continue
            raise storage_error(error, path) from error
        try:
            _flock(file, path, wait, busy)
            # Where the folder was deleted while this waited, the lock is that of a file that nobody finds any more.
            if _is_at(file, path / LOCK):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _flock(file: int, path: Path, wait: bool, busy: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise UsageError(
            f"process {holder} {busy}", where=str(path), fix="wait until it has ended, or end it"
        ) from None
    except OSError as error:
        raise StorageError("this file system has no locks", where=str(path), fix="write somewhere else") from error


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
