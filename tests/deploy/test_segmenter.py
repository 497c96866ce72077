"""The API that a stack embeds: pictures in, PyTorch's labels out."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.export import export
from deploy.letterbox import ResizeRule
from deploy.segmenter import Segmenter, load
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

SIZE = Size(64, 96)
SCHEMA_1 = Path(__file__).parents[1] / "golden" / "bundle-schema-1"


@pytest.fixture(scope="module")
def made(tiny_network, tmp_path_factory):
    """`made(io)`: a model and the bundle that was exported from it."""
    found = {}

    def make(io, **changes):
        if io not in found:
            model = Deployable(tiny_network(**changes), SIZE, io)
            folder = tmp_path_factory.mktemp("bundles") / io
            export(model, folder)
            found[io] = (model, folder)
        return found[io]

    return make


@pytest.fixture
def picture():
    return streets.draw(7, 3, SIZE).image


def reference(model, picture):
    """PyTorch's labels and where they are clear."""
    with torch.inference_mode():
        logits = model._built[0](torch.from_numpy(CONTRACTS.load("raw").encode(picture)))
        logits = torch.nn.functional.interpolate(logits, size=SIZE, mode="bilinear")
    best = logits.topk(2, dim=1).values[0]
    return logits.argmax(1)[0].numpy(), (best[0] - best[1]).numpy() > 1e-3


@pytest.mark.parametrize("io", CONTRACTS.names())
def test_labels_are_those_of_pytorch(made, io, picture):
    model, folder = made(io)
    labels, clear = reference(model, picture)
    with load(folder) as segmenter:
        found = segmenter(picture)
    assert (found.dtype, found.shape) == (np.uint8, SIZE)
    assert clear.mean() > 0.9
    assert len(np.unique(labels)) > 1
    assert np.array_equal(found[clear], labels[clear])


def test_what_it_says_of_itself(made):
    with load(str(made("labels")[1]), threads=1) as segmenter:
        assert segmenter.size == SIZE
        assert segmenter.trained is False
        assert segmenter.labels.names == tuple(f"class {i}" for i in range(5))
        assert segmenter.labels.ignore == 255
        coloured = segmenter.labels.colour(segmenter(np.zeros((*SIZE, 3), np.uint8)))
        assert coloured.shape == (*SIZE, 3)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((64, 96, 3), np.float32),
        np.zeros((64, 96, 3), np.int64),
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((1, 64, 96, 3), np.uint8),
        np.zeros((3, 64, 96), np.uint8),
        np.zeros((0, 96, 3), np.uint8),
        np.zeros((1, 8193, 3), np.uint8),
    ],
    ids=lambda p: f"{p.dtype}-{'x'.join(map(str, p.shape))}",
)
def test_what_is_no_picture_is_refused(made, picture):
    with load(made("labels")[1]) as segmenter:
        with pytest.raises(UsageError, match="not a picture") as caught:
            segmenter(picture)
        with pytest.raises(UsageError, match="not a picture"):
            segmenter.overlay(picture, np.zeros(SIZE, np.uint8))
    assert f"{picture.dtype} {picture.shape}" in str(caught.value)


@pytest.mark.parametrize("picture", [None, [[1, 2, 3]], "street.png", 7])
def test_what_is_no_array_is_refused(made, picture):
    with load(made("labels")[1]) as segmenter, pytest.raises(UsageError, match="not a picture"):
        segmenter(picture)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (128, 192), (65, 500), (8192, 1)])
def test_a_picture_of_any_size_gets_a_map_of_its_own_size(made, size):
    picture = streets.draw(7, 3, Size(64, 96)).image
    picture = resize_picture(picture, Size(*size))
    with load(made("labels")[1]) as segmenter:
        found = segmenter(picture)
        assert (found.dtype, found.shape) == (np.uint8, size)
        rule = ResizeRule()
        assert np.array_equal(found, rule.restore(segmenter(rule.fit(picture, SIZE)), Size(*size)))


def test_the_resize_rule_is_the_bundles(made, tmp_path, picture):
    model, _ = made("labels")
    rule = ResizeRule("letterbox", (1, 2, 3))
    export(model, tmp_path / "b", resize=rule)
    tall = resize_picture(picture, Size(200, 90))
    with load(tmp_path / "b") as segmenter:
        assert segmenter.resize == rule
        fitted = rule.fit(tall, SIZE)
        assert tuple(fitted[-1, -1]) == (1, 2, 3)
        assert np.array_equal(segmenter(tall), rule.restore(segmenter(fitted), Size(200, 90)))


def test_a_batch_is_its_pictures_one_by_one(made, picture):
    pictures = [picture, picture[:40], 255 - picture]
    with load(made("labels")[1]) as segmenter:
        found = segmenter.batch(iter(pictures))
        assert [labels.shape for labels in found] == [(64, 96), (40, 96), (64, 96)]
        assert all(np.array_equal(a, segmenter(b)) for a, b in zip(found, pictures, strict=True))
        assert segmenter.batch([]) == []


def test_colours_and_overlay(made, picture):
    with load(made("labels")[1]) as segmenter:
        labels = segmenter(picture)
        coloured, blended = segmenter.colour(labels), segmenter.overlay(picture, labels)
        palette = np.array(segmenter.labels.palette)
        assert np.array_equal(coloured, palette[labels])
        assert np.array_equal(blended, (palette[labels] + picture.astype(int)) // 2)
        assert not segmenter.colour(np.full((2, 2), 255, np.uint8)).any()
        assert not segmenter.colour(np.full((2, 2), 300, np.uint16)).any(), "300 is not 44"
        with pytest.raises(UsageError, match="another size than the picture"):
            segmenter.overlay(picture, labels[1:])


def test_a_closed_segmenter_says_so(made, picture):
    segmenter = load(made("labels")[1])
    segmenter.close()
    segmenter.close()
    with pytest.raises(UsageError, match="the segmenter is closed"):
        segmenter(picture)


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_eight_threads_on_one_segmenter_give_the_serial_labels(made, backend):
    pictures = [streets.draw(7, index, SIZE).image for index in range(8)]
    with load(made("labels")[1], threads=1, backend=backend) as segmenter:
        serial = segmenter.batch(pictures)
        assert len({labels.tobytes() for labels in serial}) == 8
        start = threading.Barrier(8)

        def work(index):
            start.wait()
            return [
                np.array_equal(segmenter(pictures[(index + turn) % 8]), serial[(index + turn) % 8])
                for turn in range(24)
            ]

        with ThreadPoolExecutor(8) as pool:
            assert all(all(same) for same in pool.map(work, range(8)))


def test_closing_while_others_run_finishes_what_they_began(made, picture):
    """Either the right labels or a refusal, never a crash."""
    for _ in range(5):
        segmenter = load(made("labels")[1], threads=1)
        wanted = segmenter(picture)
        started = threading.Semaphore(0)

        def work(segmenter=segmenter, wanted=wanted, started=started):
            try:
                while True:
                    assert np.array_equal(segmenter(picture), wanted)
                    started.release()
            except UsageError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(work) for _ in range(4)]
            for _ in range(8):
                started.acquire()
            segmenter.close()
            assert all("closed" in future.result() for future in done)


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


def running_threads():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.slow
def test_a_thousand_cycles_of_open_run_close_keep_nothing(made, picture):
    folder = made("labels")[1]

    def cycle():
        with load(folder, threads=2) as segmenter:
            segmenter(picture)

    for _ in range(100):
        cycle()
    before = resident_bytes(), open_files(), running_threads()
    for _ in range(1000):
        cycle()
    # A bundle of 0.1 MB: one that stayed each time would be 100 MB.
    assert resident_bytes() - before[0] < 8 * 2**20
    assert (open_files(), running_threads()) == before[1:]


def test_a_bundle_of_schema_1_still_runs():
    picture = streets.draw(7, 3, Size(50, 70)).image
    with load(SCHEMA_1) as segmenter:
        assert (segmenter.size, segmenter.resize, segmenter.trained) == (Size(32, 64), ResizeRule(), False)
        labels = segmenter(picture)
    assert (labels.dtype, labels.shape) == (np.uint8, (50, 70))
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("view", ["fortran", "reversed", "strided"])
@pytest.mark.parametrize("io", CONTRACTS.names())
def test_the_memory_layout_does_not_matter(made, picture, io, view):
    views = {
        "fortran": np.asfortranarray(picture),
        "reversed": np.ascontiguousarray(picture[::-1])[::-1],
        "strided": np.repeat(picture, 2, axis=1)[:, ::2],
    }
    with load(made(io)[1]) as segmenter:
        assert np.array_equal(segmenter(views[view]), segmenter(picture))


def test_it_changes_neither_the_picture_nor_its_own_answers(made, picture):
    kept = picture.copy()
    with load(made("labels")[1]) as segmenter:
        first = segmenter(picture)
        kept_first = first.copy()
        segmenter(255 - picture)
        assert np.array_equal(first, kept_first)
        assert np.array_equal(segmenter(picture), first)
    assert np.array_equal(picture, kept)


def test_more_than_255_classes_do_not_wrap_around(tiny_network, tmp_path, picture):
    model = Deployable(tiny_network(classes=300), SIZE, "raw")
    with torch.no_grad():
        model.module.head.conv.bias[280] += 3
    export(model, tmp_path / "bundle")
    labels, clear = reference(model, picture)
    with load(tmp_path / "bundle") as segmenter:
        found = segmenter(picture)
    assert found.dtype == np.uint16
    assert labels.max() > 255
    assert np.array_equal(found[clear], labels[clear])


def test_a_segmenter_a_thread(made, picture):
    folder = made("labels")[1]
    with load(folder) as segmenter:
        wanted = segmenter(picture)
    found = []

    def work():
        with load(folder, threads=1) as own:
            found.extend(own(picture) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    assert all(np.array_equal(labels, wanted) for labels in found)


def test_a_damaged_bundle_is_refused(made, tmp_path):
    shutil.copytree(made("labels")[1], tmp_path, dirs_exist_ok=True)
    assert isinstance(load(tmp_path), Segmenter)
    data = bytearray((tmp_path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"model\.onnx: file has another SHA-256"):
        load(tmp_path)


def test_no_bundle_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a bundle"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("device", ["npu", "", "CPU"])
def test_an_unknown_device_is_refused(made, device):
    with pytest.raises(BackendUnavailableError, match="no such device here") as caught:
        load(made("labels")[1], device=device)
    assert caught.value.exit_code == 7
