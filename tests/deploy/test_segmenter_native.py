"""A segmenter with the native kernels and without: the same maps. And labels decided at the picture's own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deploy
from deploy.backends import BACKENDS
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.export import export
from deploy.letterbox import ResizeRule
from deploy.native.library import Missing, native
from searchkit.data import streets
from searchkit.errors import UsageError
from searchkit.sizes import Size

SIZE = Size(64, 96)
OTHER = Size(150, 170)


@pytest.fixture(scope="module")
def bundles(tiny_network, tmp_path_factory):
    """`bundles(io)` and `bundles(io, "letterbox")`: the model and its bundle's folder."""
    found = {}

    def make(io, rule="stretch"):
        if (io, rule) not in found:
            model = Deployable(tiny_network(), SIZE, io)
            folder = tmp_path_factory.mktemp("bundles") / f"{io}-{rule}"
            export(model, folder, resize=ResizeRule(rule))
            found[io, rule] = (model, folder)
        return found[io, rule]

    return make


@pytest.fixture
def without(monkeypatch):
    """Segmenters that are opened from now on find no native library."""

    def switch_off():
        monkeypatch.setattr("deploy.segmenter.ready", lambda: False)
        monkeypatch.setattr("deploy.backends.onnxruntime.ready", lambda: False)
        monkeypatch.setattr("deploy.native.label_head.native", lambda: Missing("none", "none"))

    return switch_off


@pytest.fixture(scope="module", autouse=True)
def compiled():
    assert not isinstance(native(), Missing), native()


@pytest.mark.parametrize("size", [SIZE, OTHER, Size(40, 300)], ids=str)
@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
@pytest.mark.parametrize("io", ["labels", "raw", "logits", "softmax", "deepstream"])
def test_the_same_maps_with_and_without(io, rule, size, bundles, without):
    picture = streets.draw(7, 3, size).image
    _, folder = bundles(io, rule)
    with deploy.load(folder) as segmenter:
        found, given = segmenter(picture), segmenter._input(picture)
        assert segmenter.mode == ("label_head" if io == "labels" else "default")
    without()
    with deploy.load(folder) as segmenter:
        assert segmenter.mode == "default"
        wanted = segmenter(picture)
        assert np.array_equal(given, segmenter._input(picture))
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert (found == wanted).mean() > 0.999


@pytest.mark.parametrize("io", [io for io in CONTRACTS.names() if CONTRACTS.load(io).preprocessing])
@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule("letterbox", (9, 200, 40))], ids=["stretch", "letterbox"])
def test_a_contracts_preprocessing_is_its_encoding(io, rule):
    """To the bit, for pictures of any shape: what the contract says of itself."""
    from deploy.native.preprocessing import preprocess

    contract = CONTRACTS.load(io)
    for height, width in [(64, 96), (150, 170), (300, 40), (20, 333)]:
        picture = streets.draw(1, height, Size(height, width)).image
        inside = rule.inside(Size(height, width), SIZE)
        found = preprocess(picture, SIZE, inside=inside, pad=rule.pad, layout=contract.preprocessing)
        wanted = contract.encode(rule.fit(picture, SIZE))
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("kernels", ["native", "none"])
@pytest.mark.parametrize("io", ["labels", "raw", "triton"])
def test_labels_at_the_pictures_size_are_of_logits_resized_to_it(io, kernels, bundles, without):
    """The papers' protocol: half the resolution in, labels at the picture's own out."""
    if kernels == "none":
        without()
    model, folder = bundles(io)
    picture = streets.draw(7, 3, OTHER).image
    with deploy.load(folder, labels_at="picture") as segmenter:
        found = segmenter(picture)
    batch = CONTRACTS.load("raw").encode(ResizeRule().fit(picture, SIZE))
    with torch.inference_mode():
        logits = model.built(torch.from_numpy(batch)).double()
        full = torch.nn.functional.interpolate(logits, size=OTHER, mode="bilinear")[0]
    best = full.topk(2, dim=0).values
    clear = (best[0] - best[1]).numpy() > 1e-3
    assert (found.shape, found.dtype) == (tuple(OTHER), np.uint8)
    assert clear.mean() > 0.9
    assert np.array_equal(found[clear], full.argmax(0).numpy()[clear])
    with deploy.load(folder) as segmenter:
        assert not np.array_equal(found, segmenter(picture))


@pytest.mark.parametrize("mode", [None, "label_head"])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_labels_at_the_pictures_size_on_each_backend(backend, mode, bundles):
    """A mode with the label head is the mode without it, and the head behind it."""
    picture = streets.draw(7, 3, OTHER).image
    _, folder = bundles("labels")
    with deploy.load(folder, labels_at="picture", backend=backend, mode=mode) as segmenter:
        assert segmenter.backend == backend
        assert segmenter.mode == BACKENDS.load(backend).modes[0]
        found = segmenter(picture)
    with deploy.load(folder, labels_at="picture") as segmenter:
        assert (found == segmenter(picture)).mean() > 0.999


@pytest.mark.parametrize(
    ("io", "rule", "options", "said"),
    [
        ("labels", "letterbox", {}, "a picture that fills the model's input"),
        ("softmax", "stretch", {}, "made of logits, which this bundle does not have"),
        ("labels", "stretch", {"backend": "pytorch"}, "a backend that runs ONNX"),
        ("labels", "stretch", {"labels_at": "camera"}, r"unknown place of the labels \(got 'camera'"),
    ],
)
def test_what_cannot_be_decided_at_the_pictures_size(io, rule, options, said, bundles):
    with pytest.raises(UsageError, match=said):
        deploy.load(bundles(io, rule)[1], **{"labels_at": "picture"} | options)


def test_evaluation_scores_the_graph_as_it_is_shipped(bundles, monkeypatch):
    from deploy import predictor

    opened = []
    real = predictor.Segmenter

    def remember(*arguments, **options):
        opened.append(real(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(predictor, "Segmenter", remember)
    predictor.bundle_predictor(bundles("labels")[1])
    assert [segmenter.mode for segmenter in opened] == ["default"]
