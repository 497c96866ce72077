"""Which caches a folder holds, and how they are deleted: nothing sweeps those that no data set matches any more."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..errors import DamagedArtifactError, UsageError, nearest
from ..files import storage_error
from .cache_folder import IMAGES, JOURNAL, LABELS, LOCK, MANIFEST, NAME, Identity, locked, read_journal, read_manifest

State = Literal["finished", "unfinished", "damaged"]

# In the order in which they go, so that a kill on the way leaves a cache that is not finished rather than a broken one.
_FILES = (MANIFEST, JOURNAL, IMAGES, LABELS, LOCK)


@dataclass(frozen=True)
class FoundCache:
    """A cache on the disk.

    Attributes:
        path: its folder.
        dataset, split, size: what was decoded; of the folder's name where nothing else says so.
        samples: of the split; None where nothing says so.
        done: samples that are decoded.
        bytes: of all its files.
        used: when a command last made or opened it.
        state: a damaged one has a `cache.json` that cannot be read.
    """

    path: Path
    dataset: str
    split: str
    size: str
    samples: int | None
    done: int
    bytes: int
    used: datetime
    state: State

    def to_tree(self) -> dict[str, object]:
        """As plain JSON values."""
        return {
            "name": self.path.name,
            "dataset": self.dataset,
            "split": self.split,
            "resolution": self.size,
            "samples": self.samples,
            "done": self.done,
            "bytes": self.bytes,
            "used": self.used.isoformat(timespec="seconds"),
            "state": self.state,
        }


def list_caches(root: Path) -> list[FoundCache]:
    """The caches in a folder by name; none where there is no folder. What is not just a cache is left out.

    Raises:
        StorageError: the disk refused.
    """
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, root) from error
    found = (_found(root / name) for name in names)
    return [cache for cache in found if cache is not None]


def delete_caches(root: Path, names: Sequence[str]) -> list[FoundCache]:
    """Delete the named caches, all of them or none, and return what they were.

    A process that has one open keeps its samples until it ends.

    Raises:
        UsageError: a name is not that of a cache in `root`, or a process is making that cache.
        StorageError: the disk refused.
    """
    known = {cache.path.name: cache for cache in list_caches(root)}
    for name in names:
        if name not in known:
            raise _refusal(root, name, list(known))
    chosen = [known[name] for name in dict.fromkeys(names)]
    with ExitStack() as stack:
        for cache in chosen:
            stack.enter_context(locked(cache.path, wait=False))
        for cache in chosen:
            _delete(cache.path)
    return chosen


def _refusal(root: Path, name: str, known: list[str]) -> UsageError:
    there = bool(name) and os.path.lexists(root / name)
    return UsageError(
        "not a folder that only holds a cache" if there else "no such cache",
        where="--delete",
        got=name,
        allowed=f"the name of a cache in {root}",
        fix=f"did you mean {' or '.join(nearest(name, known))}?" if known else None,
    )


def _found(path: Path) -> FoundCache | None:
    match = NAME.fullmatch(path.name)
    files = _own_files(path) if match else None
    if match is None or files is None:
        return None
    state, identity, done = _content(path)
    return FoundCache(
        path,
        identity.dataset if identity else match["dataset"],
        identity.split if identity else match["split"],
        f"{identity.height}x{identity.width}" if identity else match["size"],
        identity.count if identity else None,
        done,
        sum(entry.st_size for entry in files if stat.S_ISREG(entry.st_mode)),
        datetime.fromtimestamp(int(max(entry.st_mtime for entry in files)), UTC),
        state,
    )


def _own_files(path: Path) -> list[os.stat_result] | None:
    """The folder of a cache and the files in it; None where it is a link, or holds anything else."""
    try:
        folder = path.lstat()
        if not stat.S_ISDIR(folder.st_mode):
            return None
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(path)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    own = all(stat.S_ISREG(entry.st_mode) and _is_own(name) for name, entry in found)
    return [folder, *(entry for _, entry in found)] if own else None


def _is_own(name: str) -> bool:
    # What a killed writer left of the two JSON files begins with a dot and their name.
    return name in _FILES or (name.startswith((f".{MANIFEST}.", f".{JOURNAL}.")) and name.endswith(".tmp"))


def _content(path: Path) -> tuple[State, Identity | None, int]:
    if (path / MANIFEST).exists():
        try:
            identity = read_manifest(path).identity
        except DamagedArtifactError:
            return "damaged", None, 0
        return "finished", identity, identity.count
    journal = read_journal(path)
    return ("unfinished", journal.identity, journal.done) if journal else ("unfinished", None, 0)


def _delete(path: Path) -> None:
    try:
        leftovers = [name for name in os.listdir(path) if name not in _FILES and _is_own(name)]
        for name in (*_FILES[:-1], *leftovers, LOCK):
            with suppress(FileNotFoundError):
                (path / name).unlink()
        path.rmdir()
    except OSError as error:
        # Another process may have begun to make it anew, now that the lock is gone.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise storage_error(error, path) from error
