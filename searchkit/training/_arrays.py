"""uint8 arrays in NumPy's file format: written item by item, read through a memory map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import DamagedArtifactError
from ..files import storage_error

FIX = "delete the folder, and prepare it again"


class ArrayFile:
    """A .npy file whose items are written one by one.

    Not through a memory map: there a full disk is a signal that ends the process, here an error that says so. A file
    of just the right length is gone on with; any other is emptied.

    Args:
        path: the file.
        shape: of the array; the first side counts the items.

    Raises:
        StorageError: the disk refused, or has no room for the whole array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self._item_bytes = int(np.prod(shape[1:]))
        header = _header(shape)
        self._start = len(header)
        self._bytes = self._start + shape[0] * self._item_bytes
        with self._translated():
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with self._translated():
                self._reserve()
            self._write(header, 0)
        except BaseException:
            os.close(self._file)
            raise

    def _reserve(self) -> None:
        """Room for all of it, so that a disk that is too small says so now and not after hours."""
        if os.fstat(self._file).st_size == self._bytes:
            return
        os.ftruncate(self._file, 0)
        try:
            os.posix_fallocate(self._file, 0, self._bytes)
        except OSError:
            # What could be reserved is of no use, and others may need it.
            os.ftruncate(self._file, 0)
            raise

    def write(self, index: int, data: bytes) -> None:
        """Put item `index`, of just the right length; raises `StorageError`."""
        assert len(data) == self._item_bytes
        self._write(data, self._start + index * self._item_bytes)

    def flush(self) -> None:
        """Return once all that was written is on the device; raises `StorageError`."""
        with self._translated():
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file, which is not flushed."""
        os.close(self._file)

    def _write(self, data: bytes, offset: int) -> None:
        rest = memoryview(data)
        with self._translated():
            while rest:
                written = os.pwrite(self._file, rest, offset)
                rest, offset = rest[written:], offset + written

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self._path, needed_bytes=self._bytes) from error


def _header(shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of NumPy's format: 128 bytes for every shape that occurs here."""
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + fields.ljust(117).encode() + b"\n"


def mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Map the uint8 array of a .npy file read-only.

    Raises:
        DamagedArtifactError: the file is missing, or does not hold just this shape.
        StorageError: the disk refused.
    """
    header = _header(shape)
    try:
        with open(path, "rb") as file:
            found = file.read(len(header))
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes != len(header) + int(np.prod(shape)):
                raise DamagedArtifactError(
                    "the array has the wrong size",
                    where=str(path),
                    got=size_bytes,
                    allowed=f"{len(header) + int(np.prod(shape))} bytes",
                    fix=FIX,
                )
            if found != header:
                raise DamagedArtifactError("the array has a wrong header", where=str(path), fix=FIX)
            return np.asarray(np.memmap(file, np.uint8, "r", offset=len(header), shape=shape))
    except FileNotFoundError:
        raise DamagedArtifactError("the array is missing", where=str(path), fix=FIX) from None
    except OSError as error:
        raise storage_error(error, path) from error
