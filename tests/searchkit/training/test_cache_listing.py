"""Caches are listed and deleted by name; nothing else in the folder is ever touched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from searchkit.data.streets import SPLITS, Streets
from searchkit.errors import UsageError
from searchkit.sizes import Size
from searchkit.training import cache_folder, cache_listing
from searchkit.training.cache import open_cache, prepare
from searchkit.training.cache_folder import locked
from searchkit.training.cache_listing import delete_caches, list_caches

SIZE = Size(16, 32)
NAME = "streets-val-16x32-0123456789abcdef"


@pytest.fixture(autouse=True)
def _few_streets(monkeypatch):
    monkeypatch.setitem(SPLITS, "train", (0, 40))
    monkeypatch.setitem(SPLITS, "val", (1, 2))


def made(root, split="val", difficulty=0.5, **more):
    return prepare(Streets(SIZE, difficulty), split, SIZE, root, **more).path


def stopped(root):
    """A cache that was interrupted: 32 samples are on the device."""

    def stop(done, _count):
        if done == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(root, "train", progress=stop)
    (path,) = root.glob("streets-train-*")
    return path


def files(root):
    return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("*")}


def test_what_is_told_of_each(tmp_path):
    finished, unfinished = made(tmp_path), stopped(tmp_path)
    os.utime(finished / "lock", (4e9, 4e9))
    one, other = list_caches(tmp_path)
    assert (one.path, other.path) == (unfinished, finished)
    assert (one.dataset, one.split, one.size, one.samples, one.done) == ("streets", "train", "16x32", 40, 32)
    assert (other.dataset, other.split, other.size, other.samples, other.done) == ("streets", "val", "16x32", 2, 2)
    assert (one.state, other.state) == ("unfinished", "finished")
    assert other.bytes == sum(path.stat().st_size for path in finished.iterdir()) > 2 * 16 * 32 * 4
    assert other.used == datetime.fromtimestamp(4e9, UTC)
    assert other.to_tree()["used"] == "2096-10-02T07:06:40+00:00"


def test_one_of_which_only_the_name_is_left_and_one_that_is_damaged(tmp_path):
    unfinished, finished = stopped(tmp_path), made(tmp_path)
    (unfinished / "journal.json").unlink()
    (finished / "cache.json").write_text("{")
    one, other = list_caches(tmp_path)
    assert (one.dataset, one.split, one.size, one.samples, one.done) == ("streets", "train", "16x32", None, 0)
    assert (one.state, other.state) == ("unfinished", "damaged")
    assert [cache.path for cache in delete_caches(tmp_path, [finished.name])] == [finished]
    assert list(tmp_path.iterdir()) == [unfinished]


def test_an_empty_folder_of_that_name_is_a_cache_that_was_just_begun(tmp_path):
    (tmp_path / NAME).mkdir()
    assert [cache.state for cache in list_caches(tmp_path)] == ["unfinished"]
    delete_caches(tmp_path, [NAME])
    assert list(tmp_path.iterdir()) == []


def test_no_folder_holds_no_caches(tmp_path):
    assert list_caches(tmp_path / "missing") == []
    assert delete_caches(tmp_path / "missing", []) == []


def test_only_what_is_named_is_deleted(tmp_path):
    old, new, other = made(tmp_path, difficulty=0.1), made(tmp_path), stopped(tmp_path)
    # What a killed writer leaves goes with its cache.
    (other / ".journal.json.4000000.0123456789abcdef.tmp").touch()
    before = files(new)
    gone = delete_caches(tmp_path, [old.name, other.name, old.name])
    assert [cache.path for cache in gone] == [old, other]
    assert list(tmp_path.iterdir()) == [new]
    assert files(new) == before
    assert len(open_cache(new, verify=True)) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda path: (path.mkdir(), (path / "lock").touch(), (path / "notes.txt").touch()),
        lambda path: (path.mkdir(), (path / "images.npy").mkdir()),
        lambda path: (path.mkdir(), (path / "images.npy").symlink_to("/etc/hostname")),
        lambda path: path.touch(),
    ],
    ids=["foreign file", "folder", "link inside", "file"],
)
def test_what_is_no_cache_is_left_alone(tmp_path, make):
    make(tmp_path / NAME)
    before = files(tmp_path)
    assert list_caches(tmp_path) == []
    with pytest.raises(UsageError, match="not a folder that only holds a cache"):
        delete_caches(tmp_path, [NAME])
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".", "..", "../caches/NAME", "other", "NAME/lock", "NAME/", "link"])
def test_other_names_are_refused_and_nothing_is_deleted(tmp_path, name):
    root = tmp_path / "caches"
    path = made(root)
    (root / "other").mkdir()
    (root / "link").symlink_to(path)
    before = files(tmp_path)
    with pytest.raises(UsageError, match="cache") as refused:
        delete_caches(root, [path.name, name.replace("NAME", path.name)])
    assert refused.value.exit_code == 2
    assert files(tmp_path) == before


def test_a_link_to_a_cache_under_the_name_of_one_is_refused(tmp_path):
    path = made(tmp_path / "caches")
    (tmp_path / NAME).symlink_to(path)
    with pytest.raises(UsageError, match="only holds a cache"):
        delete_caches(tmp_path, [NAME])
    assert len(open_cache(path)) == 2


HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


def test_one_that_is_being_made_keeps_all_of_them(tmp_path):
    free, held = made(tmp_path, difficulty=0.1), stopped(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(held / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    before = files(tmp_path)
    with pytest.raises(UsageError, match="is making this cache"):
        delete_caches(tmp_path, [free.name, held.name])
    assert files(tmp_path) == before
    process.communicate("go\n", timeout=60)
    assert len(delete_caches(tmp_path, [free.name, held.name])) == 2
    assert list(tmp_path.iterdir()) == []


def test_samples_of_a_deleted_cache_stay_with_who_has_it_open(tmp_path):
    cache = prepare(Streets(SIZE), "val", SIZE, tmp_path)
    expected = cache.images.copy()
    delete_caches(tmp_path, [cache.path.name])
    assert (cache.images == expected).all()


def test_a_process_that_waited_for_a_deleted_cache_makes_it_anew(tmp_path, monkeypatch):
    """Its lock would be that of a file that is gone, and a third process would take another one."""
    path = made(tmp_path)
    expected = {name: (path / name).read_bytes() for name in ("images.npy", "labels.npy", "cache.json")}
    waiting, found = threading.Event(), []
    flock, delete = cache_folder._flock, cache_listing._delete

    def told(file, where, wait, busy):
        if wait:
            waiting.set()
        flock(file, where, wait, busy)

    waiter = threading.Thread(target=lambda: found.append(made(tmp_path, wait=True)), daemon=True)

    def delete_while_waited_for(where):
        waiter.start()
        assert waiting.wait(60)
        delete(where)

    monkeypatch.setattr(cache_folder, "_flock", told)
    monkeypatch.setattr(cache_listing, "_delete", delete_while_waited_for)
    delete_caches(tmp_path, [path.name])
    waiter.join(60)
    assert found == [path]
    assert {name: (path / name).read_bytes() for name in expected} == expected
    with locked(path, wait=False), pytest.raises(UsageError, match="is making"), locked(path, wait=False):
        pass


@pytest.mark.parametrize("kept", range(5))
def test_killed_while_deleting_leaves_no_broken_cache(tmp_path, monkeypatch, kept):
    path = made(tmp_path)
    expected = (path / "images.npy").read_bytes()
    unlink, calls = type(path).unlink, []

    def dying(self, **more):
        calls.append(self)
        if len(calls) > kept:
            raise KeyboardInterrupt
        unlink(self, **more)

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            delete_caches(tmp_path, [path.name])
    assert [cache.state for cache in list_caches(tmp_path)] == ["unfinished" if kept else "finished"]
    assert made(tmp_path) == path
    assert (path / "images.npy").read_bytes() == expected
