"""Weights: from a file, or seeded so that an untrained network still draws a map with many classes.

A verification on a network that answers with one class everywhere proves nothing: every broken network agrees with it.
PyTorch's default initialisation gives just that, so where no weights are given they are drawn from a seed and the
BatchNorm statistics and the classifier are fitted to two generated street pictures, once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .errors import InputFileError, UsageError
from .files import read_bytes
from .normalization import normalise
from .sizes import Size, SizeRule

MAX_WEIGHTS_BYTES = 4 * 2**30

# Small enough to be quick, large enough that a 1/32 map still holds statistics.
_CALIBRATION_SIZE = Size(256, 512)
_CALIBRATION_PICTURES = 2
# Root mean square of a layer's outputs over which it is scaled down. Networks with BatchNorm on every path reach 31;
# without it on the shortcuts of DFANet, 16,000 at sigmoids, whose gates then hang on the rounding of large sums.
_MAX_RMS = 32.0

# Types that a file may hold floating-point weights in; they are converted to the network's.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOATS_TEXT = "float16, bfloat16, float32 or float64"


@dataclass(frozen=True)
class Weights:
    """Where the weights of a module came from; written into every artifact made from it.

    Attributes:
        trained: False for seeded weights.
        text: for people and metadata.
        sha256: of the file, or None.
    """

    trained: bool
    text: str
    sha256: str | None = None


def load_weights(module: nn.Module, path: Path, *, digest: str) -> Weights:
    """Read a safetensors file into `module`.

    Args:
        digest: the network's; if the file names another in its metadata (`digest`), it is refused.

    Raises:
        InputFileError: not safetensors; a tensor is missing, too many, of another shape or type, or not finite.
    """
    data = read_bytes(path, limit_bytes=MAX_WEIGHTS_BYTES, what="weights file")
    tensors = _tensors(data, path)
    _check_digest(data, digest, path)
    _check_tensors(module, tensors, path)
    module.load_state_dict(tensors)
    sha256 = hashlib.sha256(data).hexdigest()
    return Weights(trained=True, text=f"from a file with SHA-256 {sha256}", sha256=sha256)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; raises `InputFileError` where it is none."""
    data = read_bytes(path, limit_bytes=MAX_WEIGHTS_BYTES, what="weights file")
    _tensors(data, path)
    return _metadata(data)


def _metadata(data: bytes) -> dict[str, str]:
    # A safetensors file is the header's length (8 bytes), the header as JSON, then the tensors.
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return found


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    fix = "export the weights again"
    try:
        return load(data)
    except SafetensorError as error:
        # Its text may quote the file at any length, so it stands where long texts are cut.
        reason = str(error).removeprefix("Error while deserializing: ")
        raise InputFileError("not a safetensors file", where=str(path), got=reason, fix=fix) from None
    except KeyError as error:
        # The format knows types, such as F4, that PyTorch has no tensors of.
        raise InputFileError(
            "tensor of an unknown type", where=str(path), got=error.args[0], allowed=_FLOATS_TEXT, fix=fix
        ) from None


def _check_digest(data: bytes, digest: str, path: Path) -> None:
    found = _metadata(data).get("digest")
    if found is not None and found != digest:
        raise InputFileError(
            "weights of another network",
            where=f"{path}: digest",
            got=str(found)[:12],
            allowed=digest[:12],
            fix="give the genotype that these weights were trained for",
        )


def _check_tensors(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = module.state_dict()
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(set(tensors) - set(expected))
    if missing or surplus:
        firsts = (("missing", missing[:1]), ("unknown", surplus[:1]))
        raise InputFileError(
            f"{len(missing)} tensors missing, {len(surplus)} unknown",
            where=str(path),
            got=", ".join(f"{what} {names[0]}" for what, names in firsts if names),
            allowed=f"exactly the {len(expected)} tensors of this network",
            fix="give the genotype that these weights were trained for",
        )
    for name, tensor in tensors.items():
        _check_tensor(tensor, expected[name], f"{path}: {name}")


def _check_tensor(tensor: Tensor, expected: Tensor, where: str) -> None:
    if tensor.shape != expected.shape:
        raise InputFileError(
            "tensor of another shape",
            where=where,
            got=list(tensor.shape),
            allowed=str(list(expected.shape)),
            fix="give the genotype that these weights were trained for",
        )
    floating = expected.is_floating_point()
    if tensor.dtype not in (_FLOATS if floating else (expected.dtype,)):
        raise InputFileError(
            "tensor of another type",
            where=where,
            got=str(tensor.dtype),
            allowed=_FLOATS_TEXT if floating else str(expected.dtype),
            fix="export the weights again",
        )
    # Looked at in the network's type, in which a large float64 is infinite.
    if floating and not bool(torch.isfinite(tensor.to(expected.dtype)).all()):
        raise InputFileError("tensor holds NaN or infinity", where=where, fix="use an earlier checkpoint")


def seed_weights(module: nn.Module, *, seed: int = 0, size_rule: SizeRule | None = None) -> Weights:
    """Fill `module` with weights that depend on `seed` alone; returns their description.

    Convolutions are drawn as He et al. 2015 (normal, fan-in, ReLU gain); BatchNorm statistics are those of two street
    pictures; a convolution that comes last is scaled so that each class's logits have mean 0 and deviation 1 on them.
    BatchNorm shifts are 1 and variances at least their layer's mean: a deep random network otherwise amplifies rounding
    (measured on the FasterSeg teacher against float64: 1.5e-3 on logits of deviation 1; so, 3.1e-5), which no trained
    network does. Leaves the module in evaluation mode. One thread, so that the bytes do not depend on how many there
    are.
    """
    if not 0 <= seed < 2**63:
        raise UsageError("seed out of range", where="--seed", got=seed, allowed="0 to 2**63 - 1")
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            nn.init.ones_(layer.bias)
    size = (size_rule or SizeRule()).nearest(_CALIBRATION_SIZE)
    with torch.no_grad(), _one_thread():
        _fit(module, _pictures(size, seed))
    module.eval()
    return Weights(trained=False, text=f"untrained: drawn from seed {seed}, fitted to generated pictures")


def _pictures(size: Size, seed: int) -> Tensor:
    from .data import streets

    samples = [streets.draw(seed, index, size) for index in range(_CALIBRATION_PICTURES)]
    return torch.cat([torch.from_numpy(normalise(sample.image)) for sample in samples])


def _fit(module: nn.Module, batch: Tensor) -> None:
    """BatchNorm statistics from one pass over `batch`, then the last convolution from its own output.

    Where a BatchNorm comes last (LEDNet's scores), it has just standardised the logits, and would no longer fit a
    convolution that was scaled after it.
    """
    module.eval()
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain mean over passes, of which there is one
    last = _one_pass(module, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        assert norm.running_var is not None
        norm.running_var.clamp_(min=float(norm.running_var.mean()))
    if isinstance(last, nn.Conv2d | nn.ConvTranspose2d):
        _standardise(module, last, batch)


def _one_pass(module: nn.Module, batch: Tensor) -> nn.Module:
    """Run `module`, scaling down layers with outputs over the limit.

    Returns the convolution or BatchNorm called last.
    """
    called: list[nn.Module] = []
    handles = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            handles.append(layer.register_forward_hook(_scale_down))
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            handles.append(layer.register_forward_hook(lambda layer, _in, _out: called.append(layer)))
    module(batch)
    for handle in handles:
        handle.remove()
    return called[-1]


def _scale_down(layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """A forward hook: outputs whose root mean square is over the limit get one of 1, and the weights with them."""
    rms = output.square().mean().sqrt()
    if rms <= _MAX_RMS:
        return None
    assert isinstance(layer.weight, Tensor)
    layer.weight.div_(rms)  # biases are 0 as drawn
    return output / rms


def _standardise(module: nn.Module, classifier: nn.Conv2d | nn.ConvTranspose2d, batch: Tensor) -> None:
    """Scale and shift the outputs of `classifier`, the last layer, to mean 0 and deviation 1 a channel."""
    inputs: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _layer, given: inputs.append(given[0]))
    module(batch)
    handle.remove()
    channel = 1 if isinstance(classifier, nn.ConvTranspose2d) else 0
    shape = [1] * classifier.weight.dim()
    shape[channel] = -1
    if classifier.bias is None:
        _centre(classifier, inputs[-1], channel)
    logits = classifier(inputs[-1])
    mean, scale = logits.mean((0, 2, 3)), 1 / logits.std((0, 2, 3)).clamp_min(1e-6)
    classifier.weight.mul_(scale.view(shape))
    if classifier.bias is not None:
        classifier.bias.copy_((classifier.bias - mean) * scale)


def _centre(classifier: nn.Conv2d | nn.ConvTranspose2d, maps: Tensor, channel: int) -> None:
    """Take from each output channel's kernel the part along the mean input, the only one that moves its mean off 0.

    Without a bias nothing else can: maps after a ReLU are not negative, so that a few classes would win everywhere.
    """
    weight = classifier.weight.detach().clone().requires_grad_()
    with torch.enable_grad():
        means = functional_call(classifier, {"weight": weight}, maps).mean((0, 2, 3))
        (mean_input,) = torch.autograd.grad(means.sum(), weight)
    others = [axis for axis in range(weight.dim()) if axis != channel]
    along = (weight * mean_input).sum(others, keepdim=True) / mean_input.square().sum(others, keepdim=True)
    classifier.weight.sub_(along * mean_input)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
