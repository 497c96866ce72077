"""The only door to the disk: what it writes, what it refuses, and what is left when the disk fails."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchkit import files, processes
from searchkit.errors import (
    DamagedArtifactError,
    InputFileError,
    SearchkitError,
    StorageError,
    UsageError,
)

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = b"old content", b"new content, longer"
RAND = "0123456789abcdef"
ODD_NAMES = [
    "plain",
    "two words",
    "line\nbreak",
    "rocket 🚀",
    "-dash",
    "*?[x]",
    ".hidden",
    "a.1.0123456789abcdef",
    os.fsdecode(b"not\xffutf8"),
    "n" * 255,
    "é" * 127,
]


@pytest.fixture
def deadline():
    """A call that blocks becomes a failure instead of a hang."""

    def late(*_):
        raise AssertionError("blocked for over 5 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class FaultyOs:
    """Stands for `os` in files.py alone: records its calls in order and fails the chosen ones."""

    COUNTED = ("open", "write", "fsync", "replace", "rename", "mkdir", "makedirs", "scandir", "lstat")

    def __init__(self, at=None, error=None, forever=False):
        self.at, self.error, self.forever = at, error, forever
        self.calls, self.done, self.fired = [], [], 0

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.counted(name, real) if name in self.COUNTED else real

    def counted(self, name, real):
        def call(*args, **kwargs):
            self.calls.append(name)
            index = len(self.calls) - 1
            if self.at is not None and (index == self.at or (self.forever and index > self.at)):
                self.fired += 1
                raise self.error if self.error is KeyboardInterrupt else OSError(self.error, "injected")
            result = real(*args, **kwargs)
            self.done.append(name)
            return result

        return call


def install(monkeypatch, fault, can_exchange=True):
    exchange = files._exchange if can_exchange else lambda one, other: False
    monkeypatch.setattr(files, "os", fault)
    monkeypatch.setattr(files, "_exchange", fault.counted("exchange", exchange))


def tree(folder):
    """Every path below, with the bytes of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def is_ours(folder):
    return (folder / "manifest.json").exists()


def make_ours(folder, content=OLD):
    (folder / "sub").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(content)
    (folder / "sub" / "weights").write_bytes(content * 3)
    return folder


def replace(path, action, may_replace=is_ours):
    with files.replace_directory(path, is_ours=may_replace) as staging:
        action(staging)


def refuse_to_run(_):
    pytest.fail("the block ran")


def test_read_bytes_at_the_limit(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "f", limit_bytes=5, what="file") == b"12345"
    assert files.read_bytes(str(tmp_path / "f"), limit_bytes=2**63, what="file") == b"12345"
    with pytest.raises(InputFileError) as caught:
        files.read_bytes(tmp_path / "f", limit_bytes=4, what="genotype file")
    assert str(tmp_path / "f") in str(caught.value)
    assert "genotype file is too large (got 5; allowed: at most 4 bytes)" in str(caught.value)


def test_read_bytes_of_an_empty_file(tmp_path):
    (tmp_path / "f").touch()
    assert files.read_bytes(tmp_path / "f", limit_bytes=0, what="file") == b""


def test_read_bytes_joins_its_pieces(tmp_path):
    data = os.urandom(3 * files._CHUNK_BYTES + 17)
    (tmp_path / "f").write_bytes(data)
    assert files.read_bytes(tmp_path / "f", limit_bytes=1 << 30, what="file") == data


def test_read_bytes_refuses_a_tebibyte_unread(tmp_path, monkeypatch):
    with open(tmp_path / "f", "wb") as file:
        file.truncate(1 << 40)
    read = os.read
    monkeypatch.setattr(files.os, "read", lambda fd, count: pytest.fail("was read") if count else read(fd, 0))
    with pytest.raises(InputFileError, match="too large"):
        files.read_bytes(tmp_path / "f", limit_bytes=1 << 20, what="file")


def test_read_bytes_never_reads_past_the_limit(monkeypatch):
    counts = []
    read = os.read

    def spy(descriptor, count):
        piece = read(descriptor, count)
        counts.append(len(piece))
        return piece

    monkeypatch.setattr(files.os, "read", spy)
    assert os.stat("/proc/version").st_size == 0
    with pytest.raises(InputFileError, match="too large"):
        files.read_bytes("/proc/version", limit_bytes=10, what="file")
    assert sum(counts) == 11
    assert files.read_bytes("/proc/version", limit_bytes=1 << 20, what="file") == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("reader", [lambda p: files.read_bytes(p, limit_bytes=99, what="it"), files.sha256_file])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "socket", "zero", "below a file", "loop", "long"])
def test_readers_refuse_what_is_not_a_regular_file(tmp_path, monkeypatch, deadline, reader, kind):
    monkeypatch.chdir(tmp_path)
    path = Path("target")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind("target")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "below a file":
        path.touch()
        path = path / "below"
    elif kind == "loop":
        path.symlink_to("target")
    elif kind == "long":
        path = Path("n" * 300)
    started = time.monotonic()
    with pytest.raises(InputFileError) as caught:
        reader(path)
    assert time.monotonic() - started < 1
    assert caught.value.where.startswith(str(path)[:100])
    assert caught.value.fix


def test_read_bytes_does_not_wait_on_a_pipe_that_took_the_name(tmp_path, monkeypatch, deadline):
    os.mkfifo(tmp_path / "f")
    (tmp_path / "regular").touch()
    regular = os.stat(tmp_path / "regular")
    writer = os.open(tmp_path / "f", os.O_RDWR)
    monkeypatch.setattr(files.os, "stat", lambda *_: regular)
    with pytest.raises(StorageError):
        files.read_bytes(tmp_path / "f", limit_bytes=99, what="file")
    os.close(writer)


def test_read_bytes_follows_a_link(tmp_path):
    (tmp_path / "f").write_bytes(OLD)
    (tmp_path / "link").symlink_to("f")
    assert files.read_bytes(tmp_path / "link", limit_bytes=99, what="file") == OLD


def test_an_input_output_error_is_a_storage_error():
    # The first page of a process is never mapped, so the kernel answers EIO.
    with pytest.raises(StorageError, match="input/output error"):
        files.read_bytes("/proc/self/mem", limit_bytes=99, what="file")


def test_permission_denied_is_a_storage_error(tmp_path):
    (tmp_path / "f").write_bytes(OLD)
    (tmp_path / "f").chmod(0)

    def as_nobody():
        # Permissions stop everybody but root.
        if os.geteuid() == 0:
            os.setuid(65534)
        for action in (
            lambda: files.read_bytes("f", limit_bytes=99, what="file"),
            lambda: files.write_bytes("f", NEW),
            lambda: files.replace_directory("d", is_ours=is_ours).__enter__(),
        ):
            with pytest.raises(StorageError, match="permission is denied"):
                action()

    os.chmod(tmp_path, 0o555)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert in_children([as_nobody]) == [0]
    finally:
        os.chdir(before)
        os.chmod(tmp_path, 0o755)
        (tmp_path / "f").chmod(0o600)
    assert tree(tmp_path) == {"f": OLD}


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_an_impossible_name_is_refused_everywhere(tmp_path, name):
    path = f"{tmp_path}/{name}"
    with pytest.raises(InputFileError):
        files.read_bytes(path, limit_bytes=9, what="file")
    with pytest.raises(UsageError):
        files.write_bytes(path, NEW)
    with pytest.raises(UsageError):
        replace(path, refuse_to_run)
    with pytest.raises(UsageError):
        files.sweep(path)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_write_and_read_back_under_any_name(tmp_path, name):
    path = tmp_path / name
    for data in (OLD, NEW, b"", bytes(range(256)) * 9000):
        files.write_bytes(path, data)
        assert files.read_bytes(path, limit_bytes=1 << 30, what="file") == data
        assert os.listdir(tmp_path) == [name]


def test_write_text_is_utf8_with_its_line_ends(tmp_path):
    files.write_text(tmp_path / "f", "é\r\n\n🚀")
    assert (tmp_path / "f").read_bytes() == "é\r\n\n🚀".encode()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_honours_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_bytes(tmp_path / "f", NEW)
        with files.replace_directory(tmp_path / "a" / "d", is_ours=is_ours):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "a" / "d").stat().st_mode) == 0o777 & ~umask


def test_content_is_flushed_before_the_name_changes_and_the_folder_after(tmp_path, monkeypatch):
    fault = FaultyOs()
    install(monkeypatch, fault)
    files.write_bytes(tmp_path / "f", NEW)
    assert fault.done == ["open", "open", "write", "fsync", "replace", "fsync"]
    fault.done.clear()
    files.write_bytes(tmp_path / "f", OLD)
    assert fault.done == ["lstat", "open", "open", "write", "fsync", "replace", "fsync"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    calls = []
    monkeypatch.setattr(files.os, "write", lambda fd, rest: calls.append(1) or write(fd, rest[:7]))
    data = os.urandom(1000)
    files.write_bytes(tmp_path / "f", data)
    assert len(calls) == 143
    assert (tmp_path / "f").read_bytes() == data


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync
    refused = []

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(1)
            raise OSError(errno.EINVAL, "injected")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse_folders)
    files.write_bytes(tmp_path / "f", NEW)
    assert (tmp_path / "f").read_bytes() == NEW
    assert refused == [1]


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_write_bytes_survives_a_failure_at_every_operation(tmp_path, error, forever, exists):
    path = tmp_path / "f"
    for at in range(100):
        path.unlink(missing_ok=True)
        if exists:
            path.write_bytes(OLD)
        fault = FaultyOs(at, error, forever)
        with pytest.MonkeyPatch.context() as patch:
            install(patch, fault)
            expected = KeyboardInterrupt if error is KeyboardInterrupt else StorageError
            if at == 7:
                files.write_bytes(path, NEW)
                break
            with pytest.raises(expected) as caught:
                files.write_bytes(path, NEW)
        assert fault.fired
        if expected is StorageError:
            assert caught.value.where == str(path)
            assert (f"{len(NEW)} bytes" in str(caught.value)) == (error in (errno.ENOSPC, errno.EDQUOT))
        content = NEW if "replace" in fault.done else OLD if exists else None
        assert (path.read_bytes() if path.exists() else None) == content
        assert content != NEW or fault.calls[fault.at :] == ["fsync"], "only the last flush comes after the change"
        assert os.listdir(tmp_path) == ([] if content is None else ["f"])
    assert at == 7
    assert not fault.fired
    assert path.read_bytes() == NEW


def test_a_planted_temporary_name_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / "victim").write_bytes(OLD)
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: RAND)
    (tmp_path / f".f.{os.getpid()}.{RAND}.tmp").symlink_to("victim")
    with pytest.raises(StorageError):
        files.write_bytes(tmp_path / "f", NEW)
    assert tree(tmp_path) == {"victim": OLD}


def test_a_failed_listing_does_not_stop_a_write(tmp_path, monkeypatch):
    def refuse(_):
        refused.append(1)
        raise PermissionError(errno.EACCES, "injected")

    refused = []
    monkeypatch.setattr(files.os, "listdir", refuse)
    files.write_bytes(tmp_path / "f", NEW)
    assert refused == [1]
    with pytest.raises(StorageError):
        files.sweep(tmp_path)


def refused_places(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    return {
        "parent is a file": (tmp_path / "file" / "x", "a file, not a folder"),
        "parent is missing": (tmp_path / "no" / "x", "mkdir -p"),
        "proc": (Path("/proc/x"), "no file can be made here"),
        "too long": (tmp_path / ("n" * 256), "too long"),
        "path too long": (tmp_path / "/".join(["d" * 200] * 30), "too long"),
        "a folder": (tmp_path, "there is a folder"),
        "a loop": (tmp_path / "loop", "symbolic links"),
    }


@pytest.mark.parametrize(
    "place",
    ["parent is a file", "parent is missing", "proc", "too long", "path too long", "a folder", "a loop"],
)
def test_write_bytes_says_why_a_place_is_refused(tmp_path, place):
    path, words = refused_places(tmp_path)[place]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError) as caught:
        files.write_bytes(path, NEW)
    assert words in str(caught.value)
    assert caught.value.where[:50] == str(path)[:50]
    assert len(str(caught.value)) < 500
    assert caught.value.fix
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_a_message_is_one_line_whatever_the_name(tmp_path):
    with pytest.raises(StorageError) as caught:
        files.write_bytes(tmp_path / "no\nsuch\x1b[31m" / "f", NEW)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_device_or_pipe_is_never_replaced(tmp_path, monkeypatch, deadline, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo("f")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind("f")
    else:
        # A device that anybody may make: the far end of a pseudo-terminal.
        os.symlink(os.ttyname(os.openpty()[1]), "f")
    before = stat.S_IFMT(os.stat("f").st_mode), os.stat("f").st_ino
    with pytest.raises(StorageError, match="a device, a pipe or a socket"):
        files.write_bytes("f", NEW)
    assert (stat.S_IFMT(os.stat("f").st_mode), os.stat("f").st_ino) == before
    assert os.listdir() == ["f"]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_and_its_target_is_written(tmp_path, dangling):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    if not dangling:
        (tmp_path / "real" / "f").write_bytes(OLD)
    (tmp_path / "links" / "f").symlink_to("../real/f")
    files.write_bytes(tmp_path / "links" / "f", NEW)
    assert os.readlink(tmp_path / "links" / "f") == "../real/f"
    assert not (tmp_path / "real" / "f").is_symlink()
    assert tree(tmp_path / "real") == {"f": NEW}


def test_a_deleted_working_folder_is_a_storage_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError):
        files.write_bytes("f", NEW)
    with pytest.raises(StorageError):
        replace("d", refuse_to_run)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from searchkit import files, processes
from searchkit.errors import SearchkitError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if sys.argv[1] == "file":
        files.write_bytes(sys.argv[2], b"x" * 1_000_000)
    else:
        with files.replace_directory(sys.argv[2], is_ours=lambda folder: True) as staging:
            files.write_bytes(staging / "small", b"x" * 1000)
            files.write_bytes(staging / "large", b"x" * 1_000_000)
except SearchkitError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_real_size_limit(tmp_path, kind):
    path = tmp_path / "target"
    if kind == "file":
        path.write_bytes(OLD)
    else:
        make_ours(path)
    before = tree(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, kind, path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.returncode == 4, result.stderr
    assert str(tmp_path) in result.stdout
    assert "1000000 bytes are needed" in result.stdout
    assert tree(tmp_path) == before


def fill(staging, content=NEW):
    make_ours(staging / "deep", content)
    (staging / "manifest.json").write_bytes(content)


def fresh(tmp_path):
    return tmp_path / "d"


def nested(tmp_path):
    return tmp_path / "a" / "b" / "d"


def empty(tmp_path):
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


def ours(tmp_path):
    return make_ours(tmp_path / "d")


NEW_TREE = {
    "manifest.json": NEW,
    "deep": None,
    "deep/manifest.json": NEW,
    "deep/sub": None,
    "deep/sub/weights": NEW * 3,
}


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("start", [fresh, nested, empty, ours])
def test_replace_directory(tmp_path, monkeypatch, start, can_exchange):
    path = start(tmp_path)
    fault = FaultyOs()
    install(monkeypatch, fault, can_exchange)
    before = tree(tmp_path)
    with files.replace_directory(path, is_ours=is_ours) as staging:
        assert staging.is_dir()
        assert not os.listdir(staging)
        assert staging.name.startswith(f".d.{os.getpid()}.")
        fill(staging)
        assert tree(tmp_path).items() >= before.items()
    assert tree(path) == NEW_TREE
    assert len(os.listdir(path.parent)) == 1
    changed = [index for index, call in enumerate(fault.done) if call in ("rename", "exchange")]
    # Three files and three folders before the change of names, the parent (and the created ones) after it.
    assert fault.done[: changed[0]].count("fsync") == 6
    assert fault.done[changed[-1] :].count("fsync") == (3 if start is nested else 1)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_replace_directory_under_any_name(tmp_path, name):
    for content in (OLD, NEW):
        with files.replace_directory(tmp_path / name, is_ours=is_ours) as staging:
            fill(staging, content)
        assert (tmp_path / name / "manifest.json").read_bytes() == content
        assert os.listdir(tmp_path) == [name]


def test_an_empty_new_folder_replaces_ours_even_in_steps(tmp_path, monkeypatch):
    path = ours(tmp_path)
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    with files.replace_directory(path, is_ours=is_ours):
        pass
    assert tree(tmp_path) == {"d": None}


def test_the_exchange_is_one_step_here(tmp_path):
    (tmp_path / "one").mkdir()
    make_ours(tmp_path / "two")
    assert files._exchange(tmp_path / "one", tmp_path / "two")
    assert is_ours(tmp_path / "one")
    assert not is_ours(tmp_path / "two")
    with pytest.raises(FileNotFoundError):
        files._exchange(tmp_path / "one", tmp_path / "three")


@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_a_system_without_exchange_is_told_from_a_failure(tmp_path, monkeypatch, code):
    class Library:
        def __init__(self, name, use_errno):
            assert use_errno
            if code is not None:
                self.renameat2 = lambda *_: -1

    monkeypatch.setattr(files.ctypes, "CDLL", Library)
    monkeypatch.setattr(files.ctypes, "get_errno", lambda: code)
    path = ours(tmp_path)
    if code == errno.EIO:
        with pytest.raises(StorageError, match="input/output"):
            replace(path, fill)
        assert (path / "manifest.json").read_bytes() == OLD
    else:
        replace(path, fill)
        assert tree(path) == NEW_TREE
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize("kind", ["foreign", "file", "pipe"])
def test_what_is_not_ours_is_refused_before_the_block(tmp_path, deadline, kind):
    path = tmp_path / "d"
    if kind == "foreign":
        path.mkdir()
        (path / "thesis.tex").write_bytes(OLD)
    elif kind == "file":
        path.write_bytes(OLD)
    else:
        os.mkfifo(path)
    before = tree(tmp_path)
    with pytest.raises(UsageError) as caught:
        replace(path, refuse_to_run)
    assert caught.value.where == str(path)
    assert tree(tmp_path) == before


def test_what_appears_during_the_block_is_not_destroyed(tmp_path):
    def intrude(staging):
        fill(staging)
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "thesis.tex").write_bytes(OLD)

    with pytest.raises(UsageError):
        replace(tmp_path / "d", intrude)
    assert tree(tmp_path) == {"d": None, "d/thesis.tex": OLD}


def test_a_question_that_fails_is_not_a_yes(tmp_path):
    path = ours(tmp_path)
    before = tree(tmp_path)

    def broken(folder):
        return (folder / "no such manifest").read_bytes() == b""

    with pytest.raises(StorageError):
        replace(path, refuse_to_run, broken)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("start", [fresh, nested, empty, ours])
def test_a_failing_block_changes_nothing(tmp_path, start, error):
    path = start(tmp_path)
    before = tree(tmp_path)
    raised = error("from the block")

    def fail(staging):
        fill(staging)
        raise raised

    with pytest.raises(error) as caught:
        replace(path, fail)
    assert caught.value is raised
    assert tree(tmp_path) == before


def test_a_signal_turned_into_an_exception_changes_nothing(tmp_path):
    def stop(*_):
        raise SystemExit(143)

    def killed(staging):
        fill(staging)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        pytest.fail("the signal was lost")

    path = ours(tmp_path)
    before = tree(tmp_path)
    handler = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit) as caught:
            replace(path, killed)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught.value.code == 143
    assert tree(tmp_path) == before


def test_a_created_parent_stays_if_another_uses_it(tmp_path):
    def fail(_):
        (tmp_path / "a" / "other").write_bytes(OLD)
        raise ValueError

    with pytest.raises(ValueError):
        replace(nested(tmp_path), fail)
    assert tree(tmp_path) == {"a": None, "a/other": OLD}


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, KeyboardInterrupt])
@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("start", [fresh, nested, empty, ours])
def test_replace_directory_survives_a_failure_at_every_operation(tmp_path, start, can_exchange, error, forever):
    expected = KeyboardInterrupt if error is KeyboardInterrupt else StorageError
    for at in range(100):
        here = tmp_path / str(at)
        here.mkdir()
        path = start(here)
        before = tree(here)
        fault = FaultyOs(at, error, forever)
        raised = None
        with pytest.MonkeyPatch.context() as patch:
            install(patch, fault, can_exchange)
            try:
                with files.replace_directory(path, is_ours=is_ours) as staging:
                    fill(staging)
            except (StorageError, KeyboardInterrupt) as caught:
                raised = caught
        if not fault.fired:
            break
        assert type(raised) is expected
        check_after_fault(here, path, before, fault, can_exchange)
    assert raised is None
    assert tree(path) == NEW_TREE
    assert at > 15


def check_after_fault(here, path, before, fault, can_exchange):
    renames = fault.done.count("rename")
    in_steps = "exchange" in fault.done and not can_exchange
    if in_steps:
        committed = renames == 2 and fault.calls[fault.at] != "rename"
    else:
        committed = renames == 1 or "exchange" in fault.done
    if committed:
        assert tree(path) == NEW_TREE
        assert len(os.listdir(path.parent)) == 1
        assert set(fault.calls[fault.at :]) <= {"open", "fsync"}, "only the flush comes after the change"
    elif in_steps and renames == 1:
        # Set aside, and the disk refuses every rename: nothing can put it back now, and nothing is lost.
        assert fault.forever
        (aside,) = path.parent.glob(".d.*.old")
        aside.rename(path)
        assert tree(here) == before
    else:
        assert tree(here) == before


def test_links_and_pipes_inside_are_kept_and_not_followed(tmp_path, deadline):
    (tmp_path / "outside").mkdir()
    with files.replace_directory(tmp_path / "d", is_ours=is_ours) as staging:
        os.mkfifo(staging / "pipe")
        (staging / "link").symlink_to("../outside")
        (staging / "dangling").symlink_to("nowhere")
    assert os.readlink(tmp_path / "d" / "link") == "../outside"
    assert stat.S_ISFIFO((tmp_path / "d" / "pipe").stat().st_mode)


def test_replacing_through_a_link(tmp_path):
    make_ours(tmp_path / "real" / "d")
    (tmp_path / "link").symlink_to("real/d")
    with files.replace_directory(tmp_path / "link", is_ours=is_ours) as staging:
        assert staging.parent == tmp_path / "real"
        fill(staging)
    assert os.readlink(tmp_path / "link") == "real/d"
    assert tree(tmp_path / "real" / "d") == NEW_TREE
    assert os.listdir(tmp_path / "real") == ["d"]


@pytest.mark.parametrize("place", ["file/d", "file/a/d", "/proc/d", "/proc/a/d", "n" * 256])
def test_replace_directory_in_an_impossible_place(tmp_path, place):
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(StorageError):
        replace(tmp_path / place, refuse_to_run)
    assert tree(tmp_path) == {"file": OLD}


def leave(folder, name, pid, suffix="tmp"):
    path = folder / f".{name}.{pid}.{RAND}.{suffix}"
    path.write_bytes(b"partial")
    return path


def test_sweep_removes_only_the_dead(tmp_path, dead_pid):
    dead = {leave(tmp_path, name, dead_pid) for name in ("a", "b.c", "line\nbreak")}
    folder = tmp_path / f".d.{dead_pid}.{RAND}.tmp"
    make_ours(folder)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "keep").write_bytes(OLD)
    link = tmp_path / f".link.{dead_pid}.{RAND}.tmp"
    link.symlink_to("outside")
    leave(tmp_path, "a", os.getpid())
    leave(tmp_path, "a", 999_999_999_9)
    leave(tmp_path, "a", f"0{dead_pid}")
    leave(tmp_path, "a", 0)
    leave(tmp_path, "a", dead_pid, "old")
    for name in (f"a.{dead_pid}.{RAND}.tmp", f".{dead_pid}.{RAND}.tmp", f".a.{dead_pid}.{RAND}.tmp~"):
        (tmp_path / name).touch()
    before = set(tmp_path.iterdir())
    assert set(files.sweep(tmp_path)) == dead | {folder, link}
    assert set(tmp_path.iterdir()) == before - dead - {folder, link}
    assert tree(tmp_path / "outside") == {"keep": OLD}
    assert files.sweep(tmp_path) == []


def test_sweep_leaves_the_process_of_another_user(tmp_path, monkeypatch):
    def refuse(pid, number):
        asked.append((pid, number))
        raise PermissionError

    asked = []
    path = leave(tmp_path, "a", 4_000_000)
    monkeypatch.setattr(files.os, "kill", refuse)
    assert files.sweep(tmp_path) == []
    assert path.exists()
    assert asked == [(4_000_000, 0)]


def test_sweep_of_a_missing_folder(tmp_path):
    with pytest.raises(StorageError):
        files.sweep(tmp_path / "no")


@pytest.mark.parametrize("name", ["a", "n" * 255])
def test_a_write_sweeps_its_own_name_only(tmp_path, dead_pid, name):
    gone = leave(tmp_path, files._stem(name), dead_pid)
    kept = [leave(tmp_path, other, dead_pid) for other in ("b", "a.b")]
    kept.append(leave(tmp_path, files._stem(name), os.getppid()))
    files.write_bytes(tmp_path / name, NEW)
    assert not gone.exists()
    assert all(path.exists() for path in kept)
    gone.mkdir()
    os.unlink(tmp_path / name)
    with files.replace_directory(tmp_path / name, is_ours=is_ours):
        pass
    assert not gone.exists()
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("target_is_there", [False, True])
def test_a_folder_set_aside_by_a_killed_process_is_put_back(tmp_path, dead_pid, target_is_there):
    make_ours(tmp_path / f".d.{dead_pid}.{RAND}.old")
    other = make_ours(tmp_path / f".d.e.{dead_pid}.{RAND}.old")
    if target_is_there:
        make_ours(tmp_path / "d", NEW)
    with pytest.raises(ValueError), files.replace_directory(tmp_path / "d", is_ours=is_ours):
        raise ValueError
    assert (tmp_path / "d" / "manifest.json").read_bytes() == (NEW if target_is_there else OLD)
    assert sorted(os.listdir(tmp_path)) == sorted(["d", other.name])


def in_children(actions):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=action) for action in actions]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    return [child.exitcode for child in children]


def test_eight_processes_write_one_file(tmp_path):
    path = tmp_path / "f"
    contents = {bytes([writer]) * (50_000 + writer) for writer in range(8)}

    def write(content):
        for _ in range(50):
            files.write_bytes(path, content)
            assert path.read_bytes() in contents

    codes = in_children([lambda content=content: write(content) for content in contents])
    assert codes == [0] * 8
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_eight_processes_replace_one_folder(tmp_path, monkeypatch, can_exchange):
    path = tmp_path / "d"
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)

    def write(content):
        for _ in range(25):
            with files.replace_directory(path, is_ours=lambda folder: True) as staging:
                for index in range(3):
                    (staging / str(index)).write_bytes(content)

    codes = in_children([lambda writer=writer: write(b"%d" % writer) for writer in range(8)])
    assert codes == [0] * 8
    (content,) = set(tree(path).values())
    assert content in [b"%d" % writer for writer in range(8)]
    assert sorted(tree(path)) == ["0", "1", "2"]
    assert os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/c.onnx", "0", "model-1_2.x", "A..b", "a/b..", "n" * 255])
def test_contained_accepts(tmp_path, name):
    assert files.contained(tmp_path, name) == tmp_path / name
    assert files.contained(str(tmp_path), name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/", "//", "/etc/passwd", "../x", "a/..", "a/../b", "a/../../b", "a/./b", "a//b", "a/",
        "/a", "./a", "a\\b", "..\\a", "C:\\a", "C:/a", "a\0b", "a\n", "a b", " a", "a ", ".hidden", "a/.git",
        "-rf", "_a", "~", "~/a", "$HOME", "*", "a:b", "é", "\uff41", "a\u202eb", "\ud800", "a/\0", "%2e%2e/a",
        "*/_ORT_MEM_ADDR_/*", "a\r", "a\tb", f".a.1.{RAND}.tmp", None, 7, b"a", ["a"], True,
    ],
)  # fmt: skip
def test_contained_refuses(tmp_path, name):
    with pytest.raises(DamagedArtifactError) as caught:
        files.contained(tmp_path, name)
    assert str(caught.value).isprintable()
    assert str(tmp_path) in str(caught.value)


def test_contained_and_links(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root2").mkdir()
    for name, to in {
        "inside": "sub",
        "out": "../outside",
        "absolute": "/etc",
        "dangling": "../nowhere",
        "twin": "../root2",
        "again": "out",
    }.items():
        (root / name).symlink_to(to)
    (tmp_path / "link-to-root").symlink_to("root")
    assert files.contained(root, "inside/x") == root / "inside" / "x"
    assert files.contained(tmp_path / "link-to-root", "inside/x") == tmp_path / "link-to-root" / "inside" / "x"
    for name in ("out", "out/x", "absolute/passwd", "dangling", "twin", "again/x"):
        with pytest.raises(DamagedArtifactError, match="symbolic link"):
            files.contained(root, name)


@given(name=st.text(alphabet=st.sampled_from("aZ0._-/\\~ \0\né"), max_size=12) | st.text(max_size=20))
def test_contained_never_leads_outside(name):
    try:
        path = files.contained("/root-of-bundle", name)
    except DamagedArtifactError:
        return
    assert os.path.normpath(path) == str(path)
    assert str(path).startswith("/root-of-bundle/")


@pytest.mark.parametrize("data", [b"", b"abc", bytes(1_000_003)])
def test_sha256(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_bytes(data) == expected
    assert files.sha256_file(tmp_path / "f") == expected


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "not permitted"),
        (errno.EROFS, "read-only"),
        (errno.ENOENT, "gone"),
        (errno.ENOTDIR, "a file, not a folder"),
        (errno.EISDIR, "there is a folder"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "input/output"),
        (errno.EBUSY, "mount point"),
        (errno.EMFILE, "too many open files"),
        (None, "strange"),
    ],
)
def test_storage_error_speaks(tmp_path, code, words):
    error = OSError("strange") if code is None else OSError(code, os.strerror(code))
    translated = files.storage_error(error, tmp_path / "f", needed_bytes=123)
    assert isinstance(translated, SearchkitError)
    assert translated.exit_code == 4
    assert words in str(translated)
    assert str(tmp_path / "f") in str(translated)
    assert translated.fix
    assert ("123 bytes" in str(translated)) == (code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def test_what_a_process_left_goes_though_its_number_was_given_to_another(tmp_path, monkeypatch):
    """The one that has the number now started long after the file was made."""
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            left = tmp_path / f".a.{other.pid}.{RAND}.tmp"
            left.mkdir()
            aside = tmp_path / f".a.{other.pid}.{RAND}.old"
            aside.mkdir()
            files.write_bytes(tmp_path / "a", b"1")
            assert left.exists()
            later = time.time() + 100
            monkeypatch.setattr(processes.time, "time", lambda: later)
            files.write_bytes(tmp_path / "a", b"2")
            assert not left.exists()
            assert aside.exists()
        finally:
            other.kill()
