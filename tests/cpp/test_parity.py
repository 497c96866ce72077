"""The parts of the C++ runtime give what the Python package's parts give."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deploy.letterbox import ResizeRule
from deploy.manifest import ROLES, role_of
from deploy.onnx_gate import OPERATORS
from searchkit import strict_json
from searchkit.files import sha256_bytes
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

PARTS = ("a", "A9", ".", "..", "", "a.", ".a", "a-b_c.d", "-a", "x" * 64, "x" * 65, "é", "a b", "model.onnx")


@pytest.fixture
def probe(run):
    def ask(*arguments, data=b""):
        return run("address", "probe", *arguments, data=data, status=0).stdout

    return ask


def sides(count, most):
    """Random pairs of sizes, small ones most often."""
    random = np.random.default_rng(11)
    for _ in range(count):
        yield [int(side) for side in np.exp(random.uniform(0, np.log(most), 4)).astype(int)]


def resized(picture, size):
    """Rows first, which Pillow 13 does the other way round where the height shrinks more than the width."""
    return resize_picture(resize_picture(picture, Size(picture.shape[0], size.width)), size)


def test_pictures_are_scaled_as_pillow_does(probe):
    random = np.random.default_rng(1)
    for h, w, to_h, to_w in [
        *sides(40, 300),
        (7, 9, 7, 200),
        (200, 9, 11, 9),
        (1, 1, 50, 60),
        (1, 700, 1, 3),
        (101, 37, 64, 96),
    ]:
        picture = random.integers(0, 256, (h, w, 3), np.uint8)
        found = np.frombuffer(probe("scale", h, w, to_h, to_w, data=picture.tobytes()), np.uint8)
        assert np.array_equal(found.reshape(to_h, to_w, 3), resized(picture, Size(to_h, to_w))), (h, w, to_h, to_w)


def test_labels_are_scaled_as_pillow_does(probe):
    """One row or column at a time: sides up to the largest allowed, whose sums have the most rounding."""
    random = np.random.default_rng(2)
    for length, to, _, _ in [
        *sides(60, 8192),
        (8192, 8191, 0, 0),
        (3, 8192, 0, 0),
        (8192, 4097, 0, 0),
        (49, 8173, 0, 0),
    ]:
        labels = random.integers(0, 256, (1, length), np.uint8)
        found = np.frombuffer(probe("labels", 1, length, 1, to, data=labels.tobytes()), np.uint8)
        assert np.array_equal(found, resize_picture(labels, Size(1, to), nearest=True)[0]), (length, to)
        found = np.frombuffer(probe("labels", length, 1, to, 1, data=labels.tobytes()), np.uint8)
        assert np.array_equal(found, resize_picture(labels.T.copy(), Size(to, 1), nearest=True)[:, 0]), (length, to)


def test_letterbox(probe):
    rule = ResizeRule("letterbox")
    for h, w, to_h, to_w in [*sides(40, 8192), (128, 5, 64, 96), (128, 7, 64, 96)]:
        found = tuple(map(int, probe("inside", "letterbox", h, w, to_h, to_w).split()))
        assert found == rule.inside(Size(h, w), Size(to_h, to_w))


def test_canonical_json(probe):
    texts = ['"\\\\', "é", "€ 😀", "a/b", "\ue000", "\U00010000", ""]
    tree = {"z": [1, -5, True, None, {}, []], "é": {text: text for text in texts}, "\ue000": 1, "\U00010000": 2}
    for spelled in (json.dumps(tree), json.dumps(tree, ensure_ascii=False, indent=3)):
        assert probe("canonical", data=spelled.encode()) == strict_json.canonical(tree)


def test_sha256(probe):
    data = np.random.default_rng(3).bytes(100_001)
    assert probe("sha256", data=data).decode() == sha256_bytes(data)


def test_names_that_a_bundle_may_hold(probe):
    names = [*ROLES, "manifest.json", *PARTS]
    names += [f"{folder}/{part}" for folder in ("engines", "stacks", "stacks/triton", "Stacks", "") for part in PARTS]
    names += ["/".join(["stacks", "a", *["b"] * count]) for count in range(8)]
    names += [f"stacks/{part}/b" for part in (*PARTS, "a-1", "a" * 32, "a" * 33)]
    expected = "".join(f"{int(role_of(name) is not None)}\n" for name in names)
    assert probe("holds", data="\n".join(names).encode() + b"\n").decode() == expected
    assert 20 < expected.count("1") < len(names) - 20


def test_operators_of_the_gate(probe):
    names = [*sorted(OPERATORS), "Loop", "If", "Scan", "relu", "Conv ", "", "Aaa", "Zzz"]
    found = probe("operators", data="\n".join(names).encode() + b"\n").decode().split()
    assert [name for name, allowed in zip(names, found, strict=True) if allowed == "1"] == sorted(OPERATORS)
