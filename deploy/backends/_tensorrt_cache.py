"""Files that make the next build or start faster, in the user's cache folder. Losing one costs time, nothing else.

Each begins with the SHA-256 of the rest: a damaged one never reaches the library, which would trust it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from searchkit.errors import InputFileError, StorageError
from searchkit.files import read_bytes, sha256_bytes, write_bytes

_MAX_BYTES = 1 << 30
_DIGEST_CHARACTERS = 64


def cache_folder() -> Path:
    """Where searchkit keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "searchkit"


class CacheFile:
    """One cached blob.

    Args:
        folder: made when something is written.
        kind: of the blob, which is the file's suffix.
        key: what the blob is tied to; anything else than letters, digits, dots and hyphens is replaced.
    """

    def __init__(self, folder: Path, kind: str, *key: str) -> None:
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', '_'.join(key))}.{kind}"

    def read(self) -> bytes | None:
        """The blob; None where there is none, or it is damaged."""
        with suppress(InputFileError, StorageError):
            data = read_bytes(self.path, limit_bytes=_MAX_BYTES, what="cache")
            blob = data[_DIGEST_CHARACTERS:]
            if data[:_DIGEST_CHARACTERS] == sha256_bytes(blob).encode():
                return blob
        return None

    def write(self, blob: bytes) -> bool:
        """Keep the blob; False where the disk does not take it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, sha256_bytes(blob).encode() + blob)
        except (OSError, StorageError):
            return False
        return True
