"""The API that a stack embeds: pictures in, PyTorch's labels out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.export import export
from deploy.segmenter import Segmenter, load
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError
from searchkit.sizes import Size

SIZE = Size(64, 96)


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
        np.zeros((96, 64, 3), np.uint8),
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((1, 64, 96, 3), np.uint8),
        np.zeros((3, 64, 96), np.uint8),
        np.zeros((0, 96, 3), np.uint8),
    ],
    ids=lambda p: f"{p.dtype}-{'x'.join(map(str, p.shape))}",
)
def test_other_pictures_are_refused(made, picture):
    with load(made("labels")[1]) as segmenter, pytest.raises(UsageError, match="not a picture that this bundle") as e:
        segmenter(picture)
    assert "allowed: uint8 (64, 96, 3)" in str(e.value)


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
    for path in made("labels")[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
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
