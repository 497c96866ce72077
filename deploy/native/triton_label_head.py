"""The label head for PyTorch's tensors on a GPU, by a Triton kernel that is compiled when it is first used.

Full-resolution logits are never written. Run here by Triton's interpreter and compiled for GPUs; not run on one.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, overload

from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

from .head_arguments import CERTAINTIES, check

if TYPE_CHECKING:
    from torch import Tensor


@overload
def label_head(logits_CHW: Tensor, size: Size, *, corners: str = ..., certainty: None = ...) -> Tensor:
    """Labels alone."""


@overload
def label_head(
    logits_CHW: Tensor, size: Size, *, corners: str = ..., certainty: Literal["probability", "margin"]
) -> tuple[Tensor, Tensor]:
    """Labels, and how certain they are."""


def label_head(
    logits_CHW: Tensor, size: Size, *, corners: str = "half_pixel", certainty: str | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Labels H x W, uint8, of the logits resized to `size`; and how certain they are, if asked for.

    Results are those of `deploy.native.label_head.label_head`, whose docstring says what they are. The work is put on
    PyTorch's current stream of the logits' device; nothing waits for it.

    Args:
        logits_CHW: C x h x w on a CUDA device, float32, float16 or bfloat16, with any strides: for channels-last
            logits give `logits_HWC.permute(2, 0, 1)`, which copies nothing.
        size: of the label map.
        corners: `half_pixel` (PyTorch's align_corners=False) or `align_corners`.
        certainty: `probability`: round(255 x softmax of the winner); `margin`: distance to the second-best logit in
            steps of 1/16, at most 255.

    Raises:
        UsageError: an argument is out of its range, or the logits are not on a CUDA device.
        BackendUnavailableError: Triton is not installed.
    """
    check(tuple(logits_CHW.shape), str(logits_CHW.dtype).removeprefix("torch."), size, corners, certainty)
    try:
        from triton import cdiv, knobs

        from .triton_label_head_kernel import COLUMNS, OPTIONS, ROWS, label_head_kernel
    except ImportError as error:
        raise BackendUnavailableError(
            f"the label head for GPUs needs Triton ({error})", fix="pip install triton, which PyTorch for CUDA brings"
        ) from error
    if not logits_CHW.is_cuda and not knobs.runtime.interpret:
        raise UsageError(
            "logits are not on a GPU", where="label head", got=str(logits_CHW.device), allowed="a CUDA device"
        )
    import torch

    labels = torch.empty(tuple(size), dtype=torch.uint8, device=logits_CHW.device)
    levels = torch.empty_like(labels) if certainty else labels
    with torch.cuda.device(logits_CHW.device) if logits_CHW.is_cuda else nullcontext():
        label_head_kernel[(cdiv(size.width, COLUMNS), cdiv(size.height, ROWS))](
            logits_CHW,
            labels,
            levels,
            *logits_CHW.shape,
            *logits_CHW.stride(),
            *size,
            aligned=corners == "align_corners",
            certainty=1 + CERTAINTIES.index(certainty) if certainty else 0,
            rows=ROWS,
            columns=COLUMNS,
            **OPTIONS,
        )
    return (labels, levels) if certainty else labels
