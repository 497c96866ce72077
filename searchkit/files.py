"""The only door to the disk.

A file or a folder written here is, at every moment and after any kill, wholly the old one or wholly the new
one. The new content is built beside its target as `.<name>.<pid>.<16 hex digits>.tmp`, flushed to the device,
and takes the target's name in one step. What a killed process leaves behind carries its process id, so the
next write to the same target can tell that it is dead, or too young to be the writer, and remove it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DamagedArtifactError, InputFileError, StorageError, UsageError
from .processes import can_have_made

_StrPath = str | os.PathLike[str]

_CHUNK_BYTES = 1 << 20
_MAX_SHOWN_PATH = 240
# A name may hold 255 bytes and the temporary one adds up to 34, so a longer name stands there as its hash.
_MAX_STEM_BYTES = 200
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEMPORARY = re.compile(r"\.(.+)\.([1-9][0-9]{0,8})\.[0-9a-f]{16}\.(tmp|old)", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_MAX_COMMIT_ATTEMPTS = 100

_FREE_SPACE = "free some space or write somewhere else"
_OTHER_FOLDER = "choose a folder that you may write to"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _FREE_SPACE),
    errno.EFBIG: ("the file is larger than the file system or `ulimit -f` allows", _FREE_SPACE),
    errno.EIO: ("the device reported an input/output error", "check the disk, then try again"),
    errno.EACCES: ("permission is denied", _OTHER_FOLDER),
    errno.EROFS: ("the file system is read-only", _OTHER_FOLDER),
    errno.ENOENT: ("the file or its folder is gone, or no file can be made here", _OTHER_FOLDER),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "correct the path"),
    errno.EISDIR: ("there is a folder at this path", "give the path of a file"),
    errno.ENXIO: ("there is a device, a pipe or a socket at this path", "give the path of a file"),
    errno.EBUSY: ("the folder is a mount point or in use", "give a path inside it"),
}


def read_bytes(path: _StrPath, *, limit_bytes: int, what: str) -> bytes:
    """The content of a regular file, never waiting on a pipe and never reading more than `limit_bytes` + 1.

    A symbolic link is followed. `what` names the file in messages ("genotype file").

    Raises:
        InputFileError: it is missing, a folder, a pipe or a device, or larger than the limit.
        StorageError: permission denied, or the device failed.
    """
    data = bytearray()
    with _translated(path), _open_regular(path, what) as file:
        # A file under /proc says 0 and a growing one says too little, so the size alone settles nothing.
        size = os.fstat(file.fileno()).st_size
        allowed = limit_bytes + 1 if size <= limit_bytes else 0
        while piece := os.read(file.fileno(), min(allowed - len(data), _CHUNK_BYTES)):
            data += piece
    if max(size, len(data)) > limit_bytes:
        raise InputFileError(
            f"{what} is too large",
            where=_printable(path),
            got=max(size, len(data)),
            allowed=f"at most {limit_bytes} bytes",
            fix="check that this is the right file",
        )
    return bytes(data)


def write_bytes(path: _StrPath, data: bytes) -> None:
    """Replaces the file at `path` in one step; on any failure or interrupt the old one is whole.

    A symbolic link stays, and the file it leads to is replaced. The mode is 0666 less the umask. One failure
    can come after the new content has the name, that of flushing the folder: the file is then whole, but may
    not outlive a power cut.

    Raises:
        StorageError: the disk refused, or something that is not a regular file has the name.
        UsageError: the path cannot be a file name at all.
    """
    with _translated(path, needed_bytes=len(data)):
        target = _resolved(path)
        _refuse_special(target)
        _clear_dead(target)
        _replace_file(target, data)


def write_text(path: _StrPath, text: str) -> None:
    """`write_bytes` of the text in UTF-8, line ends as they are; raises what that raises."""
    write_bytes(path, text.encode())


@contextmanager
def replace_directory(path: _StrPath, *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a fresh folder to fill, which takes the name `path` in one step when the block ends well.

    Missing parents are created, and removed again if the block fails. If the block, or the flush after it,
    fails or is interrupted, the new folder vanishes and the old one is untouched. A symbolic link stays, and
    the folder it leads to is replaced. `is_ours` is asked, before the block and after it, whether a non-empty
    folder may be replaced.

    Raises:
        UsageError: `path` is a file, or a non-empty folder that is not ours.
        StorageError: the disk refused. Errors of the block itself pass through as they are.
    """
    with _translated(path):
        target = _resolved(path)
        _clear_dead(target)
        _refuse_foreign(target, path, is_ours)
    staging = _beside(target, "tmp")
    created: list[Path] = []
    try:
        with _translated(path):
            created += [parent for parent in target.parents if not os.path.lexists(parent)]
            os.makedirs(target.parent, exist_ok=True)
            os.mkdir(staging)
        yield staging
        with _translated(path):
            _sync_tree(staging)
            _commit(staging, target, lambda: _refuse_foreign(target, path, is_ours))
            for folder in (target.parent, *(parent.parent for parent in created)):
                _sync_path(folder)
    finally:
        # Before the exchange this name holds the new folder, after it the old one: either way what must go.
        shutil.rmtree(staging, ignore_errors=True)
        for parent in created:
            with suppress(OSError):
                os.rmdir(parent)


def sweep(folder: _StrPath) -> list[Path]:
    """Removes what killed writers left in `folder`, and returns the paths removed.

    Only `.<name>.<pid>.<16 hex digits>.tmp` whose process does not run on this host is touched.

    Raises:
        StorageError: the folder cannot be listed.
    """
    with _translated(folder):
        return [path for path in _dead(_resolved(folder)) if path.suffix == ".tmp" and _removed(path)]


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: _StrPath) -> str:
    """The SHA-256 of a regular file as 64 hexadecimal digits, read in pieces.

    Raises:
        InputFileError: it is missing, a folder, a pipe or a device.
        StorageError: permission denied, or the device failed.
    """
    with _translated(path), _open_regular(path, "file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contained(root: _StrPath, name: str) -> Path:
    """`root / name` for a relative name that came out of a file, certain to lie under `root`.

    Raises:
        DamagedArtifactError: the name is absolute, has a part that is not `[A-Za-z0-9][A-Za-z0-9_.-]*`, or
            follows a symbolic link out of `root`.
        StorageError: `root` itself cannot be found.
    """
    problem, allowed = "file name is not allowed", "letters, digits, `_`, `.`, `-`, with `/` between parts"
    if isinstance(name, str) and all(_PART.fullmatch(part) for part in name.split("/")):
        path = Path(root) / name
        with _translated(root):
            if _resolved(path).is_relative_to(_resolved(root)):
                return path
        problem = "file name leads outside the folder through a symbolic link"
    raise DamagedArtifactError(problem, where=_printable(root), got=name, allowed=allowed, fix="do not trust this copy")


def storage_error(error: OSError, path: _StrPath, *, needed_bytes: int | None = None) -> StorageError:
    """The operating system's refusal in words; `needed_bytes` is said where space ran out."""
    code = error.errno or 0
    words = os.strerror(code).lower() if code else str(error)
    problem, fix = _REASONS.get(code, (words, "correct the path or try another folder"))
    if code == errno.ENOENT and not os.path.isdir(os.path.dirname(path) or "."):
        problem, fix = "the folder does not exist", "create it first, with `mkdir -p`"
    if needed_bytes is not None and code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        problem += f", {needed_bytes} bytes are needed"
    return StorageError(problem, where=_printable(path), fix=fix)


@contextmanager
def _translated(path: _StrPath, needed_bytes: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, needed_bytes=needed_bytes) from error


def _printable(path: _StrPath) -> str:
    """One line of bounded length, whatever the name holds: it goes to a terminal."""
    text = os.fspath(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _MAX_SHOWN_PATH else f"{text[:120]}...{text[-120:]}"


def _check_name(path: _StrPath, refusal: type[InputFileError] | type[UsageError]) -> None:
    with suppress(UnicodeEncodeError):
        if b"\0" not in os.fsencode(path):
            return
    raise refusal("this cannot be the name of a file", where=_printable(path), fix="correct the path")


def _resolved(path: _StrPath) -> Path:
    _check_name(path, UsageError)
    return Path(os.path.realpath(path))


def _open_regular(path: _StrPath, what: str) -> io.FileIO:
    _check_name(path, InputFileError)
    where = _printable(path)
    try:
        # Looked at before it is opened, because opening a device can act on it.
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind != stat.S_IFREG:
            words = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            problem = f"{what} is {words.get(kind, 'a device')}"
            raise InputFileError(problem, where=where, allowed="a regular file", fix="check the path")
        # Something else may have taken the name since: then opening must not wait.
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise InputFileError(f"{what} does not exist", where=where, fix="check the path") from error


def _refuse_special(target: Path) -> None:
    """Renaming over a device or a pipe would succeed and destroy it: as root, even /dev/null."""
    with suppress(FileNotFoundError):
        codes = {stat.S_IFREG: 0, stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}
        if code := codes.get(stat.S_IFMT(os.lstat(target).st_mode), errno.ENXIO):
            raise OSError(code, os.strerror(code))


def _refuse_foreign(target: Path, path: _StrPath, is_ours: Callable[[Path], bool]) -> None:
    try:
        with os.scandir(target) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return
    except NotADirectoryError:
        if not os.path.lexists(target):
            raise
        problem = "there is a file, not a folder, at this path"
    else:
        if is_empty or is_ours(target):
            return
        problem = "the folder is not empty and was not written by searchkit"
    raise UsageError(problem, where=_printable(path), fix="choose a name that is not taken")


def _replace_file(target: Path, data: bytes) -> None:
    temporary = _beside(target, "tmp")
    # Opened first, so that once the name has changed nothing but the flush itself can fail.
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with io.FileIO(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush(folder)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
        os.close(folder)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems answer so for a folder: there is nothing more to ask of them.
        if error.errno != errno.EINVAL:
            raise


def _sync_path(path: _StrPath) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: _StrPath) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _sync_tree(entry)
            elif entry.is_file(follow_symlinks=False):
                _sync_path(entry)
    _sync_path(folder)


def _commit(staging: Path, target: Path, check: Callable[[], None]) -> None:
    for attempt in reversed(range(_MAX_COMMIT_ATTEMPTS)):
        check()
        try:
            if not os.path.lexists(target):
                os.rename(staging, target)
            elif not _exchange(staging, target):
                _exchange_in_steps(staging, target)
            return
        except OSError as error:
            # Another writer took or left the name since it was looked at: look again.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not attempt:
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two folders in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code))


def _exchange_in_steps(staging: Path, target: Path) -> None:
    """Two renames. A kill between them leaves the old folder under a name that `_clear_dead` puts back."""
    aside = _beside(target, "old")
    try:
        os.rename(target, aside)
        os.rename(staging, target)
    except BaseException:
        try:
            os.rename(aside, target)
        except OSError as error:
            # The name is taken by a whole folder, ours or another writer's: the old one is not needed.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _stem(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _MAX_STEM_BYTES else sha256_bytes(encoded)


def _beside(target: Path, suffix: str) -> Path:
    return target.parent / f".{_stem(target.name)}.{os.getpid()}.{secrets.token_hex(8)}.{suffix}"


def _dead(folder: Path, stem: str | None = None) -> Iterator[Path]:
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and stem in (None, match[1]):
            try:
                os.kill(int(match[2]), 0)
                # A folder that was set aside (`.old`) is older than its writer.
                if match[3] == "tmp" and not can_have_made(int(match[2]), folder / name):
                    yield folder / name
            except ProcessLookupError:
                yield folder / name
            except PermissionError:
                continue


def _removed(path: Path) -> bool:
    with suppress(OSError):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _clear_dead(target: Path) -> None:
    """Removes what killed writers of this target left, and puts back the folder that one had set aside."""
    with suppress(OSError):
        for path in _dead(target.parent, _stem(target.name)):
            if path.suffix == ".old" and not os.path.lexists(target):
                os.rename(path, target)
            else:
                _removed(path)
