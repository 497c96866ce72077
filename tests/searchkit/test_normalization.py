"""The one normalisation: every contract, and every bundle's description of it, must mean this."""

from __future__ import annotations

import numpy as np
import torch

from deploy.contracts.labels import LabelMap
from searchkit.normalization import MEAN, STD, normalise
from searchkit.sizes import Size


def test_by_hand():
    image = np.array([[[0, 255, 51]]], np.uint8)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert np.allclose(normalise(image).ravel(), expected, atol=1e-6)


def test_shape_type_and_layout():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = normalise(image)
    assert (found.shape, found.dtype) == ((1, 3, 5, 7), np.float32)
    assert found.flags.c_contiguous
    assert np.allclose(found[0, 1, 2, 3], (image[2, 3, 1] / 255 - MEAN[1]) / STD[1], atol=1e-6)
    assert np.array_equal(normalise(image[::-1]), found[:, :, ::-1])


def test_the_graph_of_the_label_contract_normalises_alike():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    LabelMap(Network(), Size(16, 16))(torch.from_numpy(image[None]))
    assert np.abs(seen[0].numpy() - normalise(image)).max() < 1e-6
