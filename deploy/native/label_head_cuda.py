"""The label head in device memory, for runtimes that work with addresses and streams: TensorRT, TensorRT-RTX, CUDA.

`label_head_cuda.cuh` is compiled by NVRTC when it is first used, and launched by cuda-core. The kernel's source is run
here on a CPU and compiled for GPUs; the launch is written against cuda-core 1.2 and was not run here on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.files import read_bytes
from searchkit.sizes import Size

from .head_arguments import check

SOURCE = Path(__file__).with_name("label_head_cuda.cuh")
INSTALL = "pip install cuda-core cuda-bindings nvidia-cuda-nvrtc"

#: As in the source: threads of a block, and pixels of a block below one another.
BLOCK = (32, 4)
BLOCK_ROWS = 16

MAX_PICTURES = 65535

_VALUES = {"float32": "float", "float16": "sk::Half", "bfloat16": "sk::BFloat"}
_LEVELS = {None: 0, "probability": 1, "margin": 2}
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class DeviceLogits:
    """Logits in device memory.

    Attributes:
        address: of the element (0, 0, 0, 0).
        dtype: `float32`, `float16` or `bfloat16`.
        shape: pictures, classes, rows, columns.
        strides: of these, in elements; pictures one after another, each C x h x w, if None.
    """

    address: int
    dtype: str
    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int, int] | None = None


def label_head_cuda(
    logits: DeviceLogits,
    size: Size,
    labels: int,
    *,
    stream: int,
    corners: str = "half_pixel",
    certainty: str | None = None,
    levels: int | None = None,
) -> None:
    """Put the label head on a stream of the current device; what it computes is said in `deploy.native.label_head`.

    Args:
        labels: address of pictures x H x W bytes that receive the labels.
        stream: a `cudaStream_t`, such as `CudaStream.handle`; 0 is the default stream.
        levels: address of as many bytes for the certainty, exactly where `certainty` is given.

    Raises:
        UsageError: an argument is out of its range.
        BackendUnavailableError: there is no cuda-core, NVRTC or GPU that it compiles for.
    """
    pictures, *shape = logits.shape
    check(tuple(shape), logits.dtype, size, corners, certainty)
    _check_memory(logits, certainty, levels)
    core = _cuda_core()
    kernel = _kernel(logits.dtype, certainty, _capability(core))
    grid = (-(-size.width // BLOCK[0]), -(-size.height // BLOCK_ROWS), pictures)
    strides = logits.strides or (math.prod(shape), shape[1] * shape[2], shape[2], 1)
    core.launch(
        core.Stream.from_handle(stream) if stream else core.LEGACY_DEFAULT_STREAM,
        core.LaunchConfig(grid=grid, block=BLOCK),
        kernel,
        logits.address,
        labels,
        levels or 0,
        *(np.int32(side) for side in shape),
        *(np.int64(stride) for stride in strides),
        *(np.int32(side) for side in size),
        np.int32(corners == "align_corners"),
    )


def compile_label_head(dtype: str, certainty: str | None, sm: str) -> Any:
    """The compiled kernel, a `cuda.core.ObjectCode`; takes about 0.2 s and no GPU.

    Args:
        sm: compute capability, such as `sm75`.

    Raises:
        BackendUnavailableError: there is no cuda-core or NVRTC, or NVRTC does not know that capability.
    """
    core = _cuda_core()
    text = read_bytes(SOURCE, limit_bytes=_MAX_BYTES, what="kernel").decode()
    try:
        program = core.Program(text, "c++", core.ProgramOptions(arch=f"sm_{sm.removeprefix('sm')}"))
        return program.compile("cubin", name_expressions=(_name(dtype, certainty),))
    # Each library of CUDA has exception types of its own; whatever it is, it is the reason.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackendUnavailableError(
            f"NVRTC does not compile the label head for {sm}: {reason}", fix=INSTALL
        ) from error


@cache
def _kernel(dtype: str, certainty: str | None, sm: str) -> Any:
    return compile_label_head(dtype, certainty, sm).get_kernel(_name(dtype, certainty))


def _name(dtype: str, certainty: str | None) -> str:
    return f"sk::label_head<{_VALUES[dtype]}, unsigned char, {_LEVELS[certainty]}>"


def _cuda_core() -> Any:
    try:
        from cuda import core
    except ImportError as error:
        raise BackendUnavailableError(f"cuda-core cannot be imported ({error})", fix=INSTALL) from error
    return core


def _capability(core: Any) -> str:
    """Of the current device, such as `sm75`."""
    try:
        found = core.Device().compute_capability
    # As above: whatever the driver's library raises is the reason.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"there is no GPU for the label head: {reason}", fix=INSTALL) from error
    return f"sm{found.major}{found.minor}"


def _check_memory(logits: DeviceLogits, certainty: str | None, levels: int | None) -> None:
    problem: tuple[str, Any, str] | None = None
    if not 1 <= logits.shape[0] <= MAX_PICTURES:
        problem = ("another number of pictures", logits.shape[0], f"1 to {MAX_PICTURES}")
    elif logits.address % (4 if logits.dtype == "float32" else 2):
        problem = ("logits are misaligned", logits.address, "a multiple of their item size")
    elif (certainty is None) != (levels is None):
        problem = ("certainty and memory for its levels do not fit", certainty, "both, or neither")
    if problem:
        raise UsageError(problem[0], where="label head", got=problem[1], allowed=problem[2])
