"""A bundle: one folder that holds an exported network and the proof of what it is.

`manifest.json` lists every other file with its size, SHA-256 and role, and holds the SHA-256 of its own canonical JSON,
so that no bit of a bundle can change unseen; a folder without a valid manifest is no bundle. Sizes and hashes are
checked before anything is parsed: neither ONNX's checker nor safetensors notices a flipped bit. The whole folder takes
its name in one step, so an old bundle is whole until the new one is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchkit import __version__, strict_json
from searchkit.errors import DamagedArtifactError, InputFileError, UsageError
from searchkit.files import contained, read_bytes, replace_directory, sha256_bytes, write_bytes

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_FILE_BYTES = 4 * 2**30

# File name -> role. A bundle holds these and no other names.
ROLES = {
    "model.onnx": "the network, verified",
    "network.json": "the genotype, or the baseline's name",
    "contract.json": "input and output tensors, normalisation, labels and palette",
    "verification.json": "numbers against the PyTorch network",
}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file has the size and hash that its manifest states.

    Attributes:
        path: the folder.
        files: file name -> content.
    """

    path: Path
    files: Mapping[str, bytes]

    def json(self, name: str) -> Any:
        """One of the bundle's JSON files, decoded."""
        return _decoded(self.files[name], self.path / name)


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
            assert set(files) == set(ROLES), "a bundle holds just these files"
            for name, data in sorted(files.items()):
                write_bytes(staging / name, data)
            write_bytes(staging / MANIFEST, _manifest(files))

        yield write


def _manifest(files: Mapping[str, bytes]) -> bytes:
    tree = {
        "schema": SCHEMA,
        "searchkit": __version__,
        "files": {
            name: {"bytes": len(data), "sha256": sha256_bytes(data), "role": ROLES[name]}
            for name, data in sorted(files.items())
        },
    }
    tree["sha256"] = sha256_bytes(strict_json.canonical(tree))
    return (json.dumps(tree, indent=2) + "\n").encode()


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle's files and nothing else, so that it may be replaced."""
    names = {entry.name for entry in path.iterdir()}
    return MANIFEST in names and names <= {MANIFEST, *ROLES}


def read_bundle(path: Path) -> Bundle:
    """Read a bundle after checking the size and hash of every file.

    Raises:
        UsageError: no folder, or no manifest in it.
        DamagedArtifactError: a file is missing, surplus, or not what the manifest says.
        StorageError: the disk refused.
    """
    if not os.path.isfile(path / MANIFEST):
        raise UsageError(
            "not a bundle",
            where=str(path),
            allowed=f"a folder with {MANIFEST}",
            fix="make one with `searchkit export`",
        )
    entries = _entries(contained(path, MANIFEST))
    files = {name: _checked(path, name, entry) for name, entry in entries.items()}
    surplus = sorted(set(os.listdir(path)) - {MANIFEST, *files})
    if surplus:
        raise DamagedArtifactError(
            "holds a file that its manifest does not list",
            where=str(path),
            got=surplus[0],
            fix="export it again",
        )
    return Bundle(path, files)


def _entries(manifest_path: Path) -> dict[str, dict[str, Any]]:
    where = str(manifest_path)
    tree = _decoded(_read(manifest_path, strict_json.MAX_BYTES), manifest_path)
    version = tree.get("schema") if isinstance(tree, dict) else None
    if type(version) is not int or version != SCHEMA:
        raise DamagedArtifactError(
            "unknown manifest schema",
            where=where,
            got=version,
            allowed=str(SCHEMA),
            fix="upgrade searchkit or export it again",
        )
    expected = tree.pop("sha256", None)
    if expected != sha256_bytes(strict_json.canonical(tree)):
        raise DamagedArtifactError("manifest does not match its own SHA-256", where=where, fix="export it again")
    entries = tree.get("files")
    valid = (
        isinstance(entries, dict)
        and set(entries) == set(ROLES)
        and all(
            isinstance(e, dict) and type(e.get("bytes")) is int and e["bytes"] >= 0 and isinstance(e.get("sha256"), str)
            for e in entries.values()
        )
    )
    if not valid:
        raise DamagedArtifactError("not a manifest", where=f"{where}: files", got=entries, fix="export it again")
    assert isinstance(entries, dict)
    return entries


def _checked(root: Path, name: str, entry: dict[str, Any]) -> bytes:
    path = contained(root, name)
    # No byte is read beyond those that the manifest states.
    data = _read(path, min(MAX_FILE_BYTES, entry["bytes"]))
    if len(data) != entry["bytes"]:
        raise DamagedArtifactError(
            "file has another size than the manifest says",
            where=str(path),
            got=f"{len(data)} bytes",
            allowed=f"{entry['bytes']} bytes",
            fix="export it again or copy it again",
        )
    if sha256_bytes(data) != entry["sha256"]:
        raise DamagedArtifactError(
            "file has another SHA-256 than the manifest says",
            where=str(path),
            fix="export it again or copy it again",
        )
    return data


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
