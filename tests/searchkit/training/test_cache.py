import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from searchkit.data.streets import SPLITS, Streets
from searchkit.errors import DamagedArtifactError, InputFileError, StorageError, UsageError
from searchkit.pictures import resize_picture
from searchkit.sizes import Size
from searchkit.training import cache as module
from searchkit.training.cache import cache_path, open_cache, prepare

COUNT = 70
SIZE = Size(6, 10)
BATCH = 32

# The same data set for this process and for others, which get it as text.
TOY = """
import hashlib
import numpy as np
from searchkit.data import Dataset, Sample
from searchkit.label_sets import generic_labels

class Toy(Dataset):
    kind = "toy"
    labels = generic_labels(5)

    def __init__(self, count=70, seed=0):
        self._count, self._seed, self.seen = count, seed, []

    def splits(self):
        return ("train",)

    def count(self, split):
        return self._count

    def name(self, split, index):
        return f"toy-{index}"

    def read(self, split, index):
        self.seen.append(index)
        random = np.random.default_rng([self._seed, index])
        image, labels = random.integers(0, 256, (12, 20, 3), np.uint8), random.integers(0, 5, (12, 20), np.uint8)
        return Sample(image, labels)

    def fingerprint(self, split):
        return hashlib.sha256(f"{self._count} {self._seed}".encode()).hexdigest()

    def check(self):
        return iter(())
"""
SCOPE: dict = {}
exec(TOY, SCOPE)  # noqa: S102
Toy = SCOPE["Toy"]


def content(path):
    return {name: (path / name).read_bytes() for name in ("images.npy", "labels.npy", "cache.json")}


def start(body, folder):
    """Another process, which makes the same cache in `folder`."""
    head = f"""{TOY}
import os, resource, signal, sys
from pathlib import Path
from searchkit.sizes import Size
from searchkit.training import cache
from searchkit.training.cache import prepare
folder, size = Path({str(folder)!r}), Size(6, 10)
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + body],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished cache, which no test changes."""
    return prepare(Toy(), "train", SIZE, tmp_path_factory.mktemp("caches"))


@pytest.fixture
def own(tmp_path):
    """A finished cache to damage."""
    return prepare(Toy(), "train", SIZE, tmp_path).path


def test_samples_are_those_of_the_data_set_reduced(whole):
    toy = Toy()
    assert len(whole) == COUNT
    for index in (69, 0, 33):
        expected = toy.read("train", index)
        assert np.array_equal(whole[index].image, resize_picture(expected.image, SIZE))
        assert np.array_equal(whole[index].labels, resize_picture(expected.labels, SIZE, nearest=True))


def test_labels_are_never_mixed(whole):
    full = np.stack([Toy().read("train", index).labels for index in range(COUNT)])
    rows, columns = np.arange(6) * 2 + 1, np.arange(10) * 2 + 1
    assert np.array_equal(whole.label_maps, full[:, rows][:, :, columns])


def test_what_it_says_of_itself(whole):
    assert (whole.dataset, whole.split, whole.size) == ("toy", "train", SIZE)
    assert whole.labels == Toy.labels
    assert whole.fingerprint == Toy().fingerprint("train")
    assert whole.path.name == f"toy-train-6x10-{whole.fingerprint[:16]}"
    assert sorted(path.name for path in whole.path.iterdir()) == ["cache.json", "images.npy", "labels.npy", "lock"]


def test_reading_copies_nothing_and_cannot_write(whole):
    sample = whole[3]
    assert np.shares_memory(sample.image, whole.images)
    assert np.shares_memory(sample.labels, whole.label_maps)
    with pytest.raises(ValueError, match="read-only"):
        sample.image[0, 0] = 0
    assert type(sample.image) is np.ndarray


@pytest.mark.parametrize("index", [-1, COUNT])
def test_no_such_sample(whole, index):
    with pytest.raises(IndexError):
        whole[index]


def test_numpy_reads_the_arrays(whole):
    assert np.array_equal(np.load(whole.path / "images.npy"), whole.images)
    assert np.array_equal(np.load(whole.path / "labels.npy"), whole.label_maps)


def test_a_pickle_holds_the_place_and_not_the_arrays(whole):
    data = pickle.dumps(whole)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).images, whole.images)  # noqa: S301


def test_the_same_bytes_whatever_the_number_of_readers(whole, tmp_path, monkeypatch):
    for readers in (1, 5):
        monkeypatch.setattr(os, "cpu_count", lambda count=readers: count)
        assert content(prepare(Toy(), "train", SIZE, tmp_path / str(readers)).path) == content(whole.path)


def test_a_finished_cache_is_opened_and_nothing_decoded(own, tmp_path):
    toy, times = Toy(), os.stat(own / "images.npy").st_mtime_ns
    assert prepare(toy, "train", SIZE, tmp_path).path == own
    assert toy.seen == []
    assert os.stat(own / "images.npy").st_mtime_ns == times


def test_each_split_size_and_content_has_its_own_folder(tmp_path):
    paths = {
        cache_path(Toy(), "train", SIZE, tmp_path),
        cache_path(Toy(seed=1), "train", SIZE, tmp_path),
        cache_path(Toy(), "train", Size(10, 6), tmp_path),
        cache_path(Streets(), "train", SIZE, tmp_path),
        cache_path(Streets(), "val", SIZE, tmp_path),
    }
    assert len(paths) == 5


def test_progress_counts_every_sample(tmp_path):
    told = []
    prepare(Toy(), "train", SIZE, tmp_path, lambda done, count: told.append((done, count)))
    assert told == [(done, COUNT) for done in range(COUNT + 1)]


@pytest.mark.parametrize("at", [0, 5, BATCH, BATCH + 1, COUNT])
def test_killed_and_resumed_to_the_same_bytes(whole, tmp_path, at):
    """Killed at any sample, before or after a flush: the next run does the rest, and only that."""
    kill = (
        f"prepare(Toy(), 'train', size, folder, lambda done, _: done == {at} and os.kill(os.getpid(), signal.SIGKILL))"
    )
    process = start(kill, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    path = cache_path(Toy(), "train", SIZE, tmp_path)
    with pytest.raises(InputFileError, match="no finished cache"):
        open_cache(path)
    toy = Toy()
    assert content(prepare(toy, "train", SIZE, tmp_path).path) == content(whole.path)
    flushed = max(0, (at - 1) // BATCH * BATCH)
    assert sorted(toy.seen) == list(range(flushed, COUNT))
    assert not (path / "journal.json").exists()


def test_killed_before_the_manifest_is_written(whole, tmp_path):
    process = start(
        "cache.sha256_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)\nprepare(Toy(), 'train', size, folder)",
        tmp_path,
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    toy = Toy()
    assert content(prepare(toy, "train", SIZE, tmp_path).path) == content(whole.path)
    assert toy.seen == []


def stop_at(at):
    def progress(done, _):
        if done == at:
            raise KeyboardInterrupt

    return progress


def test_interrupted_and_resumed(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(Toy(), "train", SIZE, tmp_path, stop_at(40))
    told = []
    cache = prepare(Toy(), "train", SIZE, tmp_path, lambda done, _: told.append(done))
    assert told[0] == BATCH
    assert content(cache.path) == content(whole.path)


@pytest.mark.parametrize(
    "journal",
    [b"", b"\xff", b"[]", b'{"done": 64}', "other identity", "too many", "negative"],
)
def test_a_journal_that_cannot_be_trusted_is_not(whole, tmp_path, journal):
    with pytest.raises(KeyboardInterrupt):
        prepare(Toy(), "train", SIZE, tmp_path, stop_at(40))
    path = cache_path(Toy(), "train", SIZE, tmp_path)
    tree = json.loads((path / "journal.json").read_text())
    if journal == "other identity":
        tree["identity"]["fingerprint"] = "0" * 64
    tree["done"] = {"too many": COUNT + 1, "negative": -1}.get(journal, tree["done"])
    (path / "journal.json").write_bytes(journal if isinstance(journal, bytes) else json.dumps(tree).encode())
    # What the arrays hold must not matter either.
    with open(path / "images.npy", "r+b") as file:
        file.seek(200)
        file.write(b"spoilt")
    assert content(prepare(Toy(), "train", SIZE, tmp_path).path) == content(whole.path)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_arrays_lost_since_the_journal_was_written_are_made_again(whole, tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        prepare(Toy(), "train", SIZE, tmp_path, stop_at(40))
    path = cache_path(Toy(), "train", SIZE, tmp_path)
    os.truncate(path / name, 300)
    assert content(prepare(Toy(), "train", SIZE, tmp_path).path) == content(whole.path)


def test_a_sample_that_cannot_be_read_stops_the_work_and_keeps_what_was_done(whole, tmp_path):
    class Broken(Toy):
        def read(self, split, index):
            if index == 40:
                raise InputFileError("not a readable picture", where="toy-40")
            return super().read(split, index)

    with pytest.raises(InputFileError, match="toy-40"):
        prepare(Broken(), "train", SIZE, tmp_path)
    toy = Toy()
    assert content(prepare(toy, "train", SIZE, tmp_path).path) == content(whole.path)
    assert min(toy.seen) == BATCH


def test_no_samples(tmp_path):
    with pytest.raises(InputFileError, match="no samples"):
        prepare(Toy(count=0), "train", SIZE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (os.unlink, "missing"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "wrong size"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "wrong size"),
        (lambda path: path.write_bytes(b""), "wrong size"),
        (lambda path: flip(path, 20), "wrong header"),
    ],
    ids=["missing", "shorter", "longer", "empty", "header"],
)
def test_damaged_arrays(own, tmp_path, name, damage, words):
    damage(own / name)
    for attempt in (lambda: open_cache(own), lambda: prepare(Toy(), "train", SIZE, tmp_path)):
        with pytest.raises(DamagedArtifactError, match=words) as caught:
            attempt()
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("offset", [128, -1])
def test_one_bit_is_noticed_where_hashes_are_compared(own, name, offset):
    open_cache(own, verify=True)
    flip(own / name, offset)
    open_cache(own)
    with pytest.raises(DamagedArtifactError, match="content of the array has changed"):
        open_cache(own, verify=True)


def changed(*keys, to):
    def change(tree):
        part = tree
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("schema", to=2),
        changed("identity", "format", to=2),
        changed("identity", "count", to="70"),
        changed("identity", "count", to=69),
        changed("identity", "count", to=-1),
        changed("identity", "height", to=9000),
        changed("identity", "width", to=12),
        changed("identity", "fingerprint", to="abc"),
        changed("labels", "names", to=["a"]),
        changed("labels", "names", to=[]),
        changed("sha256", to={"images.npy": "0" * 64, "other.npy": "0" * 64}),
        changed("extra", to=1),
        lambda tree: tree.pop("sha256"),
    ],
)
def test_damaged_manifest(own, change):
    tree = json.loads((own / "cache.json").read_text())
    change(tree)
    (own / "cache.json").write_text(json.dumps(tree))
    with pytest.raises(DamagedArtifactError):
        open_cache(own)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"{}", b"null", b'{"schema": 1, "schema": 1}'])
def test_manifest_that_is_no_manifest(own, data):
    (own / "cache.json").write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"cache\.json"):
        open_cache(own)


def test_a_cache_under_another_name_is_not_taken_for_it(own, tmp_path):
    other = cache_path(Toy(seed=1), "train", SIZE, tmp_path)
    os.rename(own, other)
    with pytest.raises(DamagedArtifactError, match="something else than its name says"):
        prepare(Toy(seed=1), "train", SIZE, tmp_path)


def test_no_cache(tmp_path):
    with pytest.raises(InputFileError, match="no finished cache"):
        open_cache(tmp_path / "missing")


HOLD = """
def show(done, count):
    if done == 40:
        print("holding", flush=True)
        sys.stdin.readline()
prepare(Toy(), "train", size, folder, show)
"""


def test_a_second_process_is_refused_and_told_which_is_the_first(tmp_path):
    first = start(HOLD, tmp_path)
    assert first.stdout.readline() == "holding\n"
    with pytest.raises(UsageError, match=f"process {first.pid} is making this cache"):
        prepare(Toy(), "train", SIZE, tmp_path)
    # Other caches beside it are free.
    assert len(prepare(Toy(seed=1), "train", SIZE, tmp_path)) == COUNT
    assert first.communicate("go\n", timeout=60)[1] == ""
    assert first.returncode == 0


def test_a_second_process_that_waits_gets_what_the_first_made(whole, tmp_path):
    first = start(HOLD, tmp_path)
    assert first.stdout.readline() == "holding\n"
    toy, found = Toy(), []
    waiting = threading.Thread(target=lambda: found.append(prepare(toy, "train", SIZE, tmp_path, wait=True)))
    waiting.start()
    first.communicate("go\n", timeout=60)
    waiting.join(60)
    assert toy.seen == []
    assert content(found[0].path) == content(whole.path)


def test_the_lock_of_a_killed_process_is_free(whole, tmp_path):
    first = start(HOLD, tmp_path)
    assert first.stdout.readline() == "holding\n"
    first.kill()
    first.communicate(timeout=60)
    assert content(prepare(Toy(), "train", SIZE, tmp_path).path) == content(whole.path)


def test_no_room_is_said_before_anything_is_decoded(tmp_path):
    process = start(
        "from searchkit.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "toy = Toy()\n"
        "try:\n"
        "    prepare(toy, 'train', size, folder)\n"
        "except StorageError as error:\n"
        "    print(error, toy.seen)\n",
        tmp_path,
    )
    output, errors = process.communicate(timeout=60)
    assert "12728 bytes are needed" in output, errors
    assert output.endswith("[]\n")
    assert max(path.stat().st_size for path in Path(tmp_path).rglob("*.npy")) == 0


def test_room_that_is_not_enough_is_given_back(tmp_path, monkeypatch):
    def reserve(file, start, length):
        os.ftruncate(file, length // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    with pytest.raises(StorageError, match="12728 bytes are needed"):
        prepare(Toy(), "train", SIZE, tmp_path)
    assert [path.stat().st_size for path in tmp_path.rglob("*.npy")] == [0]


def test_a_disk_that_fills_up_keeps_what_was_done(whole, tmp_path, monkeypatch):
    write, calls = os.pwrite, []

    def full(file, data, offset):
        calls.append(offset)
        if len(calls) > 2 * 45:
            raise OSError(28, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="the disk is full"):
        prepare(Toy(), "train", SIZE, tmp_path)
    monkeypatch.undo()
    toy = Toy()
    assert content(prepare(toy, "train", SIZE, tmp_path).path) == content(whole.path)
    assert sorted(toy.seen) == list(range(BATCH, COUNT))


def test_a_short_write_is_gone_on_with(whole, tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:50], offset))
    assert content(prepare(Toy(), "train", SIZE, tmp_path).path) == content(whole.path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        prepare(Toy(), "train", SIZE, tmp_path / "file")


def test_the_manifest_is_written_after_the_arrays_are_on_the_device(tmp_path, monkeypatch):
    order = []
    sync, write = os.fsync, module.write_text
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("flush"), sync(file))[1])
    monkeypatch.setattr(module, "write_text", lambda path, text: (order.append(path.name), write(path, text))[1])
    prepare(Toy(), "train", SIZE, tmp_path)
    for place, name in enumerate(order):
        if name == "journal.json":
            assert order[place - 2 : place] == ["flush", "flush"]
    assert [name for name in order if name != "flush"] == ["journal.json"] * 3 + ["cache.json"]


def test_streets(tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "val", (1, 3))
    streets = Streets(Size(16, 32), 0.7)
    cache = prepare(streets, "val", Size(16, 32), tmp_path)
    for index in (2, 0, 1):
        assert np.array_equal(cache[index].image, streets.read("val", index).image)
        assert np.array_equal(cache[index].labels, streets.read("val", index).labels)
    assert cache.labels == streets.labels
