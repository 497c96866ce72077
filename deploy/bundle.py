"""A bundle: one folder that holds an exported network, the proof of what it is, and all that is needed to run it.

A folder without a valid manifest (`manifest.py`) is no bundle. Sizes and hashes are checked before anything is parsed,
as neither ONNX's checker nor safetensors notices a flipped bit, and again when a file is read. The whole folder takes
its name in one step, so an old bundle is whole until the new one is. The format: docs/bundle.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchkit import strict_json
from searchkit.errors import DamagedArtifactError, InputFileError, UsageError
from searchkit.files import (
    contained,
    read_bytes,
    replace_directory,
    sha256_bytes,
    sha256_file,
    storage_error,
    write_bytes,
)

from . import manifest
from .manifest import MANIFEST, MAX_FILES, ROLES, Entry

__all__ = ["MANIFEST", "ROLES", "Bundle", "is_bundle", "read_bundle", "replace_bundle", "write_bundle"]

# Each file may lie in folders of its own.
_MAX_LISTED = 8 * MAX_FILES
_COPY_AGAIN = "export it again or copy it again"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file had the size and hash that its manifest states when it was opened.

    Attributes:
        path: the folder.
        schema: of the manifest.
        entries: file name -> size and hash.
    """

    path: Path
    schema: int
    entries: Mapping[str, Entry]

    @property
    def files(self) -> Mapping[str, bytes]:
        """File name -> content, read and checked again whenever it is asked for."""
        return _Files(self.path, self.entries)

    def json(self, name: str) -> Any:
        """One of the bundle's JSON files, decoded."""
        return _decoded(self.files[name], self.path / name)


class _Files(Mapping[str, bytes]):
    """Nothing is kept in memory: weights, golden tensors and engines can be large, and few readers want them all."""

    def __init__(self, root: Path, entries: Mapping[str, Entry]) -> None:
        self._root, self._entries = root, entries

    def __getitem__(self, name: str) -> bytes:
        entry, path = self._entries[name], contained(self._root, name)
        # No byte is read beyond those that the manifest states.
        data = _read(path, entry.bytes)
        _check(path, entry, len(data), sha256_bytes(data))
        return data

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def write_bundle(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and their manifest as the folder `path`, whole or not at all.

    Raises:
        UsageError: `path` is a folder that holds anything but a bundle, or a file.
        StorageError: the disk refused; what was there before is whole.
    """
    with replace_bundle(path) as write:
        write(files)


@contextmanager
def replace_bundle(path: Path) -> Iterator[Callable[[Mapping[str, bytes]], None]]:
    """`write_bundle` for files that are still to be made: refuses `path` at once, and yields what takes the files.

    If the block fails or is interrupted, what was at `path` before is whole and nothing else is left.
    """
    with replace_directory(path, is_ours=is_bundle) as staging:

        def write(files: Mapping[str, bytes]) -> None:
            problem = manifest.naming_problem(files)
            assert problem is None, f"a bundle that {problem}"
            for name, data in sorted(files.items()):
                _make_folder((staging / name).parent)
                write_bytes(staging / name, data)
            write_bytes(staging / MANIFEST, manifest.encode(files))

        yield write


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle's files and nothing else, so that it may be replaced."""
    try:
        files, folders = _listing(path)
    except DamagedArtifactError:
        return False
    surplus = _surplus({*files, *folders}, {name for name in files if manifest.role_of(name) is not None})
    return MANIFEST in files and not surplus


def read_bundle(path: Path) -> Bundle:
    """Open a bundle after checking the size and hash of every file.

    Raises:
        UsageError: no folder, or no manifest in it.
        DamagedArtifactError: a file is missing, surplus, a link, or not what the manifest says.
        StorageError: the disk refused.
    """
    if not os.path.isfile(path / MANIFEST):
        raise UsageError(
            "not a bundle",
            where=str(path),
            allowed=f"a folder with {MANIFEST}",
            fix="make one with `searchkit export`",
        )
    try:
        files, folders = _listing(path)
    except OSError as error:
        raise storage_error(error, path) from error
    tree = _decoded(_read(path / MANIFEST, strict_json.MAX_BYTES), path / MANIFEST)
    schema, entries = manifest.decode(tree, where=str(path / MANIFEST))
    if surplus := _surplus({*files, *folders}, set(entries)):
        raise DamagedArtifactError(
            "holds a file that its manifest does not list", where=str(path), got=surplus[0], fix="export it again"
        )
    for name, entry in entries.items():
        if name not in files:
            raise DamagedArtifactError("bundle file does not exist", where=str(path / name), fix=_COPY_AGAIN)
        # The size first: it costs nothing, and a file that claims less than it holds is not hashed.
        _check(path / name, entry, files[name], None)
        with _damaged():
            _check(path / name, entry, files[name], sha256_file(path / name))
    return Bundle(path, schema, entries)


def _surplus(found: set[str], listed: set[str]) -> list[str]:
    """What of a folder belongs to no listed file."""
    expected = {MANIFEST, *listed}
    for name in listed:
        expected |= {str(parent) for parent in Path(name).parents}
    return sorted(found - expected)


def _listing(root: Path) -> tuple[dict[str, int], list[str]]:
    """Files of a folder with their sizes, and the folders in it. Raises OSError, and for what is neither."""
    files: dict[str, int] = {}
    folders: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as found:
            for entry in found:
                name = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(name)
                    pending.append(f"{name}/")
                else:
                    _check_plain(root, name, status)
                    files[name] = status.st_size
                if len(files) + len(folders) > _MAX_LISTED:
                    raise DamagedArtifactError(
                        "holds too many files", where=str(root), allowed=f"at most {MAX_FILES}", fix="export it again"
                    )
    return files, folders


def _check_plain(root: Path, name: str, status: os.stat_result) -> None:
    """Links are for leading elsewhere, where the content can change after it was checked."""
    problem = None
    if stat.S_ISLNK(status.st_mode):
        problem = "holds a symbolic link"
    elif not stat.S_ISREG(status.st_mode):
        problem = "holds a pipe, a socket or a device"
    elif status.st_nlink > 1:
        problem = "holds a file that has another name as well (a hard link)"
    if problem:
        raise DamagedArtifactError(
            problem, where=str(root), got=name, allowed="plain files", fix="copy it with `cp -rL`, or export it again"
        )


def _check(path: Path, entry: Entry, size: int, sha256: str | None) -> None:
    """Size and, unless None, hash against what the manifest says."""
    if size != entry.bytes:
        raise DamagedArtifactError(
            "file has another size than the manifest says",
            where=str(path),
            got=f"{size} bytes",
            allowed=f"{entry.bytes} bytes",
            fix=_COPY_AGAIN,
        )
    if sha256 not in (None, entry.sha256):
        raise DamagedArtifactError("file has another SHA-256 than the manifest says", where=str(path), fix=_COPY_AGAIN)


def _read(path: Path, limit_bytes: int) -> bytes:
    with _damaged():
        return read_bytes(path, limit_bytes=limit_bytes, what="bundle file")


def _decoded(data: bytes, path: Path) -> Any:
    with _damaged():
        return strict_json.loads(data, where=str(path))


@contextmanager
def _damaged() -> Iterator[None]:
    """A file inside a bundle was written by searchkit: if it cannot be read, it was damaged."""
    try:
        yield
    except InputFileError as error:
        raise DamagedArtifactError(
            error.problem, where=error.where, got=error.got, allowed=error.allowed, fix="export it again"
        ) from None
