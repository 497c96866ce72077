"""One layer of the SSR supernet: the live operators of Eq. 3 and 4, their weights, and what these are cut to.

A layer is ReLU(sum over operators o of p_o * out_o * (branch_o(x) + x)), branch_o being pooling, 3x1 convolution,
BatchNorm, the mid mask, ReLU, 1x3 convolution, BatchNorm, resizing and channel dropout. Masks are vectors in [0, 1]
over channels: the mixture of the prefix masks of Eq. 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...choices import Cuts
from ._mixing import Branch, Mix, Plan, Running

#: ERFNet's BatchNorm epsilon, as in the discrete network.
EPS = 1e-3
#: PyTorch's default, of the running statistics.
MOMENTUM = 0.1


def cut_tensor(module: nn.Module, prefix: str, name: str, sizes: tuple[int, ...], cuts: Cuts) -> None:
    """Keep the first `sizes` entries of a parameter or buffer of a module, and note it where that removes any."""
    tensor = getattr(module, name)
    if tensor is None or tuple(tensor.shape) == sizes:
        return
    kept = tensor.detach()[tuple(slice(size) for size in sizes)].clone(memory_format=torch.contiguous_format)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(kept, requires_grad=tensor.requires_grad))
    else:
        module.register_buffer(name, kept)
    cuts[f"{prefix}{name}"] = tuple(
        None if new == old else torch.arange(new, device=tensor.device)
        for new, old in zip(sizes, tensor.shape, strict=True)
    )


def cut_conv(conv: nn.Conv2d, prefix: str, out_channels: int, in_channels: int, cuts: Cuts) -> None:
    """Keep the first output and input channels of a convolution."""
    cut_tensor(conv, prefix, "weight", (out_channels, in_channels, *conv.weight.shape[2:]), cuts)
    cut_tensor(conv, prefix, "bias", (out_channels,), cuts)
    conv.out_channels, conv.in_channels = out_channels, in_channels


def cut_norm(norm: nn.Module, prefix: str, channels: int, cuts: Cuts) -> None:
    """Keep the first channels of a BatchNorm; nothing for an identity."""
    if isinstance(norm, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            cut_tensor(norm, prefix, name, (channels,), cuts)
        norm.num_features = channels


class MixedOperator(nn.Module):
    """Weights of one operator at the widest live widths: named as those of the discrete network's block."""

    def __init__(self, channels: int, dilation: int, spatial: int, *, mid_norm: bool) -> None:
        super().__init__()
        self.dilation, self.spatial = dilation, spatial
        self.conv3x1 = nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.norm3x1 = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM) if mid_norm else nn.Identity()
        self.conv1x3 = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm1x3 = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)

    @property
    def mid(self) -> int:
        """Output channels of the 3x1 convolution."""
        return self.conv3x1.out_channels

    @property
    def out(self) -> int:
        """Output channels of the 1x3 convolution."""
        return self.conv1x3.out_channels

    def cut(self, prefix: str, inputs: int, mid: int, out: int, cuts: Cuts) -> None:
        """Keep the first channels of everything; `prefix` is the operator's in the state dict."""
        cut_conv(self.conv3x1, f"{prefix}conv3x1.", mid, inputs, cuts)
        cut_norm(self.norm3x1, f"{prefix}norm3x1.", mid, cuts)
        cut_conv(self.conv1x3, f"{prefix}conv1x3.", out, mid, cuts)
        cut_norm(self.norm1x3, f"{prefix}norm1x3.", out, cuts)


class MixedLayer(nn.Module):
    """All live operators of a layer.

    Args:
        channels: of the input and the output, before anything is cut.
        candidates: name, dilation and spatial resolution (1 or 2) of each operator.
        pool: "average" or "max", of spatial 2.
        mid_norm: BatchNorm between the two convolutions.
        dropout: rate of the channel dropout, in training.

    Attributes:
        operators: those that live, by name.
        columns: their columns in the table of operators.
    """

    def __init__(
        self,
        channels: int,
        candidates: Sequence[tuple[str, int, int]],
        *,
        pool: str,
        mid_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool, self.dropout = pool, dropout
        self.operators = nn.ModuleDict(
            {
                name: MixedOperator(channels, dilation, spatial, mid_norm=mid_norm)
                for name, dilation, spatial in candidates
            }
        )
        self.columns = list(range(len(candidates)))

    def live(self) -> list[MixedOperator]:
        """The operators, in the order of `columns`."""
        return list(self.operators.values())  # type: ignore[arg-type]

    @property
    def channels(self) -> int:
        """Channels of the output: those of the widest operator."""
        return max(operator.out for operator in self.live())

    def pooled(self, x: Tensor) -> Tensor:
        """The input of the operators at half the resolution."""
        return F.avg_pool2d(x, 2) if self.pool == "average" else F.max_pool2d(x, 2)

    def draw_dropout(self, x: Tensor) -> Tensor | None:
        """Which channels stay: operators x N x channels of 0 and 1 in the type of x, or None for all."""
        if not (self.training and self.dropout):
            return None
        shape = (len(self.columns), x.shape[0], self.channels)
        return torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.dropout)

    def forward(self, x: Tensor, p: Tensor, mid: Tensor, out: Tensor, *, checkpointing: bool = False) -> Tensor:
        """Mix the operators.

        Args:
            x: N x C x H x W, in the type of computation.
            p: weights of the operators, one a column.
            mid, out: columns x channels, the mixed prefix masks.
            checkpointing: compute the operators again in the backward pass.
        """
        live = self.live()
        if len(live) < len(p):
            p, mid, out = p[self.columns], mid[self.columns], out[self.columns]
        drop = self.draw_dropout(x)
        weighted = out[:, : self.channels] * p[:, None]
        first, running1 = _affine([(o.conv3x1, o.norm3x1) for o in live])
        second, running2 = _affine([(o.conv1x3, o.norm1x3) for o in live])
        masks = mid[:, : first[0].shape[1]], (weighted if drop is None else weighted / (1 - self.dropout))
        plan = Plan(
            tuple(
                Branch(o.dilation, o.spatial == 2, norms)
                for o, norms in zip(live, zip(running1, running2, strict=True), strict=True)
            ),
            EPS,
            checkpointing,
        )
        pooled = self.pooled(x) if any(o.spatial == 2 for o in live) else None
        weights = [weight for o in live for weight in (o.conv3x1.weight, o.conv1x3.weight)]
        result: Tensor = Mix.apply(
            plan,
            x,
            pooled,
            weighted.sum(0),
            drop,
            first[0] * masks[0],
            first[1] * masks[0],
            second[0] * masks[1],
            second[1] * masks[1],
            *weights,
        )
        if self.training:
            _complete_statistics(live)
        return result

    def shrink(self, prefix: str, inputs: int, mid: list[int], out: list[int], cuts: Cuts) -> None:
        """Remove operators and channels.

        Args:
            prefix: the layer's in the state dict.
            inputs: channels of its input from now on.
            mid, out: widest live widths, one a column; 0 where the operator is gone.
            cuts: what was cut is added here.
        """
        names = dict(zip(self.columns, list(self.operators), strict=True))
        self.columns = [column for column in self.columns if out[column]]
        for column, name in names.items():
            operator = self.operators[name]
            if not out[column]:
                del self.operators[name]
            else:
                assert isinstance(operator, MixedOperator)
                operator.cut(f"{prefix}operators.{name}.", inputs, mid[column], out[column], cuts)


def _affine(pairs: list[tuple[nn.Conv2d, nn.Module]]) -> tuple[tuple[Tensor, Tensor], list[Running | None]]:
    """Scale and shift behind convolutions without their bias: operators x channels each; and what a BatchNorm over the
    batch updates.

    Without statistics of the batch the bias is part of the shift, and so are running statistics.
    """
    biases = _stacked([conv.bias for conv, _ in pairs])
    norms = [norm for _, norm in pairs if isinstance(norm, nn.BatchNorm2d)]
    if not norms:
        return (torch.ones_like(biases), biases), [None] * len(pairs)
    scale, shift = _stacked([norm.weight for norm in norms]), _stacked([norm.bias for norm in norms])
    if norms[0].training:
        running = [Running(norm.running_mean, norm.running_var, MOMENTUM) for norm in norms]  # type: ignore[arg-type]
        # A bias in front of a BatchNorm over the batch has no effect, hence a gradient of zero.
        return (scale, shift + 0 * biases), list(running)
    scale = scale * (_stacked([norm.running_var for norm in norms]) + EPS).rsqrt()
    return (scale, shift + scale * (biases - _stacked([norm.running_mean for norm in norms]))), [None] * len(pairs)


@torch.no_grad()
def _complete_statistics(operators: list[MixedOperator]) -> None:
    """Count the batch, and add to the running means what convolutions without their biases left out."""
    pairs = [pair for o in operators for pair in ((o.conv3x1, o.norm3x1), (o.conv1x3, o.norm1x3))]
    counts, means, biases = [], [], []
    for conv, norm in pairs:
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.num_batches_tracked is not None
            assert norm.running_mean is not None
            assert conv.bias is not None
            counts.append(norm.num_batches_tracked)
            means.append(norm.running_mean)
            biases.append(conv.bias)
    torch._foreach_add_(counts, 1)
    torch._foreach_add_(means, biases, alpha=MOMENTUM)


def _stacked(rows: list[Tensor | None]) -> Tensor:
    """Vectors as rows, shorter ones filled with zeros."""
    return nn.utils.rnn.pad_sequence([row for row in rows if row is not None], batch_first=True)
