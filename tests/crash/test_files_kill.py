"""Kills at random moments, at every operation, and again in the recovery: a target is one whole generation.

What a kill -9 cannot show is a power cut: that the content is flushed before its name changes is held in
tests/searchkit/test_files.py by the order of the calls.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback

import pytest

from searchkit import files

KILLS = 30
FILE_BYTES = 300_000
PARTS = 4


class DyingOs:
    """Stands for `os` in files.py alone: the process dies, as if killed, instead of the chosen call."""

    COUNTED = (
        "open", "write", "fsync", "replace", "rename", "mkdir", "makedirs", "scandir", "lstat",
        "unlink", "close", "rmdir", "listdir", "kill",
    )  # fmt: skip
    DIED = 77

    def __init__(self, at):
        self.at, self.count = at, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.counted(real) if name in self.COUNTED else real

    def counted(self, real):
        def call(*args, **kwargs):
            if self.count == self.at:
                os._exit(self.DIED)
            self.count += 1
            return real(*args, **kwargs)

        return call


def in_child(action):
    """Forks, so that neither the interpreter's start nor its end takes part in the kill."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def content(generation):
    return b"%08d" % generation * (FILE_BYTES // 8)


def generation_of_file(path):
    data = path.read_bytes()
    generation = int(data[:8])
    assert data == content(generation), "torn"
    return generation


def write_file(path, generation):
    files.write_bytes(path, content(generation))


def generation_of_folder(path):
    assert sorted(os.listdir(path)) == sorted([*map(str, range(PARTS)), "manifest.json", "sub"]), "torn"
    every = {(path / name).read_bytes() for name in [*map(str, range(PARTS)), "manifest.json", "sub/part"]}
    assert len(every) == 1, "two generations in one folder"
    return int(every.pop())


def write_folder(path, generation):
    with files.replace_directory(path, is_ours=lambda folder: (folder / "manifest.json").exists()) as staging:
        (staging / "sub").mkdir()
        for name in [*map(str, range(PARTS)), "sub/part", "manifest.json"]:
            (staging / name).write_bytes(b"%08d" % generation)


def keep_writing(write, path, first, acknowledge):
    generation = first
    while True:
        write(path, generation)
        os.write(acknowledge, b"%08d" % generation)
        generation += 1


def kill_while_writing(write, path, first, seconds):
    """The last generation that the killed writer had acknowledged."""
    read_end, write_end = os.pipe()
    pid = in_child(lambda: keep_writing(write, path, first, write_end))
    os.close(write_end)
    acknowledged = os.read(read_end, 8)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    while piece := os.read(read_end, 65536):
        acknowledged += piece
    os.close(read_end)
    return int(acknowledged[-8:])


@pytest.mark.parametrize(
    ("write", "generation_of"),
    [(write_file, generation_of_file), (write_folder, generation_of_folder)],
    ids=["file", "folder"],
)
def test_a_kill_at_any_moment_leaves_one_whole_generation(tmp_path, write, generation_of):
    path = tmp_path / "target"
    moments = random.Random(20)
    leftovers = 0
    last = 0
    for _ in range(KILLS):
        last = kill_while_writing(write, path, last + 1, moments.uniform(0.0, 0.06))
        assert generation_of(path) in (last, last + 1), "an acknowledged generation was lost"
        leftovers += len(os.listdir(tmp_path)) - 1
        assert len(os.listdir(tmp_path)) <= 2, "the leftovers pile up"
    assert leftovers >= 3, "no kill fell inside a write: the test shows nothing"
    write(path, last + 1)
    assert os.listdir(tmp_path) == ["target"]
    assert generation_of(path) == last + 1


def dying(write, path, generation, at, can_exchange):
    def action():
        fault = DyingOs(at)
        files.os = fault
        exchange = files._exchange
        files._exchange = fault.counted(exchange if can_exchange else lambda one, other: False)
        write(path, generation)

    return ended(in_child(action))


CASES = [
    pytest.param(write_file, generation_of_file, True, id="file"),
    pytest.param(write_folder, generation_of_folder, True, id="folder"),
    pytest.param(write_folder, generation_of_folder, False, id="folder in steps"),
]


@pytest.mark.parametrize(("write", "generation_of", "can_exchange"), CASES)
def test_a_death_at_every_operation(tmp_path, write, generation_of, can_exchange):
    path = tmp_path / "target"
    for at in range(200):
        write(path, 1)
        code = dying(write, path, 2, at, can_exchange)
        if code == 0:
            break
        assert code == DyingOs.DIED
        set_aside = list(tmp_path.glob(".target.*.old"))
        assert len(os.listdir(tmp_path)) <= 3
        found = generation_of(path if path.exists() else set_aside[0])
        assert found in (1, 2)
        assert path.exists() or not can_exchange
        # A run that comes after, and itself fails, puts everything right.
        recover_and_fail(write, path)
        assert os.listdir(tmp_path) == ["target"]
        assert generation_of(path) == found
    assert code == 0
    assert at >= (8 if write is write_file else 20)
    assert generation_of(path) == 2


def recover_and_fail(write, path):
    if write is write_file:
        files._clear_dead(path)
        return
    with pytest.raises(KeyboardInterrupt), files.replace_directory(path, is_ours=lambda folder: True):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("write", "generation_of", "can_exchange"), CASES)
def test_a_second_death_during_the_recovery(tmp_path, write, generation_of, can_exchange):
    path = tmp_path / "target"
    deaths = 0
    for first in range(0, 200, 1 if write is write_file else 2):
        write(path, 1)
        if dying(write, path, 2, first, can_exchange) == 0:
            break
        for second in range(0, 200, 3):
            code = dying(write, path, 3, second, can_exchange)
            if code == 0:
                break
            deaths += 1
            assert code == DyingOs.DIED
            (aside,) = [path] if path.exists() else tmp_path.glob(".target.*.old")
            assert generation_of(aside) in (1, 2, 3)
        assert generation_of(path) == 3
        assert os.listdir(tmp_path) == ["target"]
    assert deaths > 15
