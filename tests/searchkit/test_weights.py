"""Weights: seeded ones are the same everywhere and draw many classes; files are read whole or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from searchkit.data.streets import draw
from searchkit.errors import InputFileError, UsageError
from searchkit.networks import known_names, resolve
from searchkit.normalization import normalise
from searchkit.sizes import Size, SizeRule
from searchkit.weights import load_weights, seed_weights

ROOT = Path(__file__).resolve().parents[2]
SIZE = Size(256, 512)
HASH = """
import hashlib, sys
import torch
from searchkit.networks import resolve
from searchkit.weights import seed_weights
module = resolve("ssr").build()
seed_weights(module, seed=3)
digest = hashlib.sha256()
for name, tensor in sorted(module.state_dict().items()):
    digest.update(name.encode() + tensor.numpy().tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""


class Small(nn.Module):
    """Fits to the pictures in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=0.3), nn.ReLU())
        self.idle = nn.BatchNorm2d(8, momentum=None)
        self.classifier = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x))


def seeded(seed: int = 0) -> Small:
    module = Small()
    seed_weights(module, seed=seed)
    return module


def pictures(seed: int) -> torch.Tensor:
    """What `seed_weights` fits a module to."""
    return torch.cat([torch.from_numpy(normalise(draw(seed, index, SIZE).image)) for index in (0, 1)])


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_equal_seeds_give_equal_bytes_whatever_was_there():
    torch.manual_seed(1)
    first = seeded(7)
    torch.manual_seed(2)
    again = Small()
    for parameter in again.parameters():
        parameter.data.normal_()
    again.body[1].running_mean.fill_(9)
    seed_weights(again, seed=7)
    assert equal(first, again)
    assert not equal(first, seeded(8))
    seed_weights(again, seed=7)
    assert equal(first, again)


def test_torch_randomness_is_left_alone():
    module = Small()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seed_weights(module, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_bytes_do_not_depend_on_the_number_of_threads():
    hashes = {}
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", HASH]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        used, hashes[threads] = done.stdout.split()
        assert used == threads
    assert hashes["1"] == hashes["2"]


@pytest.mark.parametrize("name", known_names())
def test_an_untrained_network_draws_at_least_ten_classes(name):
    network = resolve(name)
    module = network.build()
    weights = seed_weights(module, size_rule=network.size_rule)
    assert not weights.trained
    image = torch.from_numpy(normalise(draw(11, 5, SIZE).image))
    with torch.no_grad():
        labels = module(image).argmax(1)
    counts = torch.bincount(labels.flatten(), minlength=19)
    assert int((counts > 0).sum()) >= 10
    assert counts.max() < 0.9 * labels.numel()


def test_logits_are_standardised_on_the_pictures_it_was_fitted_to():
    module = seeded(4)
    with torch.no_grad():
        logits = module(pictures(4))
    assert logits.mean((0, 2, 3)).abs().max() < 1e-3
    assert (logits.std((0, 2, 3)) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("transposed", [False, True])
def test_logits_are_standardised_without_a_bias(transposed):
    module = Small()
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    module.classifier = kind(8, 5, 3, padding=1, bias=False)
    seed_weights(module, seed=4)
    with torch.no_grad():
        logits = module(pictures(4))
    assert logits.mean((0, 2, 3)).abs().max() < 1e-3
    assert (logits.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert module.classifier.weight.grad is None


def test_a_batch_norm_after_the_last_convolution_still_fits_it():
    module = Small()
    module.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
    module.classifier = nn.Sequential(nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5))
    seed_weights(module, seed=4)
    conv, norm = module.classifier
    with torch.no_grad():
        maps = conv(module.body(pictures(4)))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    variances = maps.var((0, 2, 3))
    torch.testing.assert_close(norm.running_var, variances.clamp_min(variances.mean()))


class Growing(nn.Module):
    """Doubles what it is given in each layer, as shortcuts without BatchNorm do, then shuts gates with it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=4)
        self.layers = nn.Sequential(*(nn.Conv2d(16, 16, 1, bias=False) for _ in range(30)))
        self.gate = nn.Linear(16, 16)
        self.classifier = nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.stem(x))
        return self.classifier(x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None])


def test_activations_do_not_grow_without_bound():
    module = Growing()
    seed_weights(module, seed=4)
    sizes = []
    for layer in (*module.layers, module.gate):
        layer.register_forward_hook(lambda _layer, _in, out: sizes.append(float(out.square().mean().sqrt())))
    with torch.no_grad():
        module(pictures(4))
    assert 1 < max(sizes) <= 32 * 1.001


def test_the_module_is_left_as_a_caller_expects():
    module, threads = Small(), torch.get_num_threads()
    weights = seed_weights(module.train(), seed=3)
    assert not any(layer.training for layer in module.modules())
    assert [module.body[1].momentum, module.idle.momentum] == [0.3, None]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert torch.get_num_threads() == threads
    assert weights.text == "untrained: drawn from seed 3, fitted to generated pictures"
    assert (weights.trained, weights.sha256) == (False, None)


def test_batch_norm_has_the_statistics_of_the_pictures_and_no_small_variance():
    conv, norm, _ = seeded(4).body
    with torch.no_grad():
        maps = conv(pictures(4))
    variances = maps.var((0, 2, 3))
    assert variances.min() < variances.mean()
    torch.testing.assert_close(norm.running_var, variances.clamp_min(variances.mean()))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.bias.tolist() == [1] * 8


def test_the_size_rule_decides_the_size_of_the_pictures():
    seen = []
    module = Small()
    module.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    seed_weights(module, size_rule=SizeRule(multiple=96, minimum=96))
    assert set(seen) == {(2, 3, 288, 480)}


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(UsageError, match="--seed: seed out of range"):
        seed_weights(Small(), seed=seed)


def test_seed_at_the_limit():
    assert seed_weights(Small(), seed=2**63 - 1).text.startswith("untrained: drawn from seed 9223372036854775807")


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in seeded(1).state_dict().items()}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("metadata", [None, {"digest": "abc"}, {"other": "x"}])
def test_a_file_is_read(tmp_path, tensors, metadata):
    data = save(tensors, metadata)
    module = Small()
    weights = load_weights(module, written(tmp_path, data), digest="abc")
    assert equal(module, seeded(1))
    sha256 = hashlib.sha256(data).hexdigest()
    assert (weights.trained, weights.sha256) == (True, sha256)
    assert weights.text == f"from a file with SHA-256 {sha256}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted(tmp_path, tensors, dtype):
    narrow = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    module = Small()
    load_weights(module, written(tmp_path, save(narrow)), digest="abc")
    assert module.classifier.weight.dtype == torch.float32
    assert torch.equal(module.classifier.weight, narrow["classifier.weight"].float())


def retyped(data: bytes, dtype: str) -> bytes:
    """The file with the type of its 8-byte counter replaced by another, whatever PyTorch thinks of it."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    shape = {"F4": [16], "F8_E8M0": [8], "F8_E4M3": [8]}[dtype]
    header["body.1.num_batches_tracked"] |= {"dtype": dtype, "shape": shape}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def with_value(tensors: dict, name: str, value: object) -> bytes:
    return save(tensors | {name: value})


REFUSALS = {
    "empty": (lambda t: b"", "not a safetensors file (got 'header too small')"),
    "text": (lambda t: b'{"a": 1}', "not a safetensors file (got "),
    "zip": (lambda t: b"PK\x03\x04" + bytes(500), "not a safetensors file (got "),
    "huge header": (lambda t: struct.pack("<Q", 2**62) + b"{}", "not a safetensors file (got 'header too large')"),
    "cut in the tensors": (lambda t: save(t)[:-1], "not a safetensors file (got 'incomplete metadata"),
    "cut in the header": (lambda t: save(t)[:50], "not a safetensors file (got "),
    "surplus bytes": (lambda t: save(t) + b"\0", "not a safetensors file (got "),
    "missing tensor": (
        lambda t: save({k: v for k, v in t.items() if k != "classifier.bias"}),
        "1 tensors missing, 0 unknown (got 'missing classifier.bias'; allowed: exactly the 14 tensors",
    ),
    "surplus tensor": (lambda t: save(t | {"x": torch.ones(1)}), "0 tensors missing, 1 unknown (got 'unknown x';"),
    "renamed": (
        lambda t: save({k.replace("body", "b"): v for k, v in t.items()}),
        "7 tensors missing, 7 unknown (got 'missing body.0.bias, unknown b.0.bias';",
    ),
    "long name": (lambda t: save(t | {"x" * 5000: torch.ones(1)}), "1 unknown (got 'unknown xxx"),
    "shape": (
        lambda t: with_value(t, "classifier.weight", torch.ones(6, 8, 1, 1)),
        "classifier.weight: tensor of another shape (got [6, 8, 1, 1]; allowed: [5, 8, 1, 1])",
    ),
    "transposed": (
        lambda t: with_value(t, "classifier.weight", torch.ones(8, 5, 1, 1)),
        "classifier.weight: tensor of another shape",
    ),
    "no elements": (
        lambda t: with_value(t, "classifier.bias", torch.ones(0)),
        "classifier.bias: tensor of another shape (got [0]; allowed: [5])",
    ),
    "NaN": (
        lambda t: with_value(t, "classifier.bias", torch.tensor([0, 0, float("nan"), 0, 0])),
        "classifier.bias: tensor holds NaN or infinity. Use an earlier checkpoint.",
    ),
    "infinity": (
        lambda t: with_value(t, "body.1.running_var", torch.full((8,), float("inf"))),
        "body.1.running_var: tensor holds NaN or infinity",
    ),
    "infinite once converted": (
        lambda t: with_value(t, "classifier.bias", torch.full((5,), 1e300, dtype=torch.float64)),
        "classifier.bias: tensor holds NaN or infinity",
    ),
    "integers": (
        lambda t: with_value(t, "classifier.bias", torch.ones(5, dtype=torch.int64)),
        "classifier.bias: tensor of another type (got 'torch.int64'; allowed: float16, bfloat16, float32 or float64)",
    ),
    "complex": (
        lambda t: with_value(t, "classifier.bias", torch.ones(5, dtype=torch.complex64)),
        "classifier.bias: tensor of another type (got 'torch.complex64'",
    ),
    "8-bit floats": (
        lambda t: with_value(t, "classifier.bias", torch.ones(5).to(torch.float8_e4m3fn)),
        "classifier.bias: tensor of another type (got 'torch.float8_e4m3fn'",
    ),
    "a count in floats": (
        lambda t: with_value(t, "body.1.num_batches_tracked", torch.tensor(1.5)),
        "body.1.num_batches_tracked: tensor of another type (got 'torch.float32'; allowed: torch.int64)",
    ),
    "4-bit floats": (lambda t: retyped(save(t), "F4"), "tensor of an unknown type (got 'F4'; allowed: float16"),
    "digest of another network": (
        lambda t: save(t, {"digest": "f" * 64}),
        "digest: weights of another network (got 'ffffffffffff'; allowed: abc). Give the genotype",
    ),
}


@pytest.mark.parametrize(("make", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_file_is_refused_and_the_module_left_alone(tmp_path, tensors, make, says):
    path = written(tmp_path, make(tensors))
    module = seeded(2)
    with pytest.raises(InputFileError) as caught:
        load_weights(module, path, digest="abc")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert len(message) < 600
    assert equal(module, seeded(2))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputFileError, match="weights file does not exist"):
        load_weights(Small(), tmp_path / "none.safetensors", digest="abc")


def test_every_cut_is_refused(tmp_path, tensors):
    data = save(tensors)
    assert set(load(data)) == set(tensors)
    for end in range(0, len(data), 41):
        with pytest.raises(InputFileError, match="not a safetensors file"):
            load_weights(Small(), written(tmp_path, data[:end]), digest="abc")
