"""What a search step of FasterSeg keeps in memory, counted on the meta device: four ways of making the same passes.

The passes are those of the paper (appendix F): teacher, student, widest and narrowest, each with all its heads. The
release runs a cell once for each of its inputs, mixes the outputs, and goes backward once, from the sum of all losses.
Counted are the maps that live at one time, pictures and intermediate ones included; weights, their gradients and the
optimisers' state are the same in all forms and left out, as is what kernels take for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from searchkit.choices import Weights
from searchkit.sizes import Size
from searchkit.spaces.fasterseg._cells import plus
from searchkit.spaces.fasterseg._running import Running
from searchkit.spaces.fasterseg.search_space import RATES, FasterSegSearchSpace
from searchkit.spaces.fasterseg.supernet import FasterSegSupernet
from searchkit.training.dry_run import Ledger

from .protocol import Scalar

SCHEMA = 1
CLASSES = 19
BASELINE = "outputs mixed, one backward of the sum"
GIB = 2**30

#: Measured for the release's own supernet, weight step at 256x512 and batch 3, in GiB.
RELEASE_GIB = {
    BASELINE: 4.396,
    "outputs mixed, a backward each": 1.622,
    "inputs mixed, a backward each": 1.199,
    "inputs mixed, a backward each, checkpointing": 0.198,
}


class OutputsMixed(FasterSegSupernet):
    """The plain form: each cell runs once for each predecessor, and what it gives is mixed by Eq. 1's weights."""

    def _maps(self, running: Running, x: Tensor) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor]]:
        incoming: dict[int, list[tuple[float | Tensor, Tensor]]] = {0: [(1.0, x)]}
        exits: dict[tuple[int, int], Tensor] = {}
        ends: dict[int, Tensor] = {}
        for layer in range(self.space.layers):
            last = layer + 1 == self.space.layers
            outgoing: dict[int, list[tuple[float | Tensor, Tensor]]] = {}
            for rate, inputs in incoming.items():
                cell = self.cells[f"{RATES[rate]}_{layer}"]
                outputs: list[Tensor | None] = [None, None]
                for weight, one in inputs:
                    for end in running.ends:
                        out = running.exits(end, rate, layer)
                        if not (isinstance(out, float) and out == 0.0):
                            exits[end, rate] = plus(exits.get((end, rate)), one * weight, out)
                    given = cell(one, running.same(rate, layer), running.down(rate, layer))
                    outputs = [t if y is None else plus(t, y, weight) for t, y in zip(outputs, given, strict=True)]
                same, down = outputs
                if same is not None and last:
                    ends[rate] = same
                elif same is not None:
                    outgoing.setdefault(rate, []).append((running.from_same(rate, layer + 1), same))
                if down is not None:
                    outgoing.setdefault(rate + 1, []).append((running.from_finer(rate + 1, layer + 1), down))
            incoming = dict(sorted(outgoing.items()))
        return ends, exits


@dataclass(frozen=True)
class Form:
    """One way to make a step."""

    network: type[FasterSegSupernet]
    together: bool
    checkpointing: bool = False


FORMS = {
    BASELINE: Form(OutputsMixed, together=True),
    "outputs mixed, a backward each": Form(OutputsMixed, together=False),
    "inputs mixed, one backward of the sum": Form(FasterSegSupernet, together=True),
    "inputs mixed, a backward each": Form(FasterSegSupernet, together=False),
    "inputs mixed, a backward each, checkpointing": Form(FasterSegSupernet, together=False, checkpointing=True),
}


def losses_of(network: FasterSegSupernet, images: Tensor, labels: Tensor, weights: Weights) -> Tensor:
    """Of all heads, summed."""
    logits = network(images, weights)
    return torch.stack([F.cross_entropy(each, labels) for each in logits]).sum()


def backward(network: FasterSegSupernet, images: Tensor, labels: Tensor, weights: Weights, *, together: bool) -> None:
    """All passes of a step, and one backward of the sum or one for each."""
    total: Tensor | None = None
    for each in network.passes(weights, warmup=False):
        loss = losses_of(network, images, labels, each)
        if not together:
            loss.backward()
            continue
        total = loss if total is None else total + loss
        del loss
    if total is not None:
        total.backward()


def activation_bytes(
    form: Form, space: FasterSegSearchSpace, size: Size, batch: int, *, architecture: bool, device: str = "meta"
) -> int:
    """The most that maps take at one time in an update of the weights, or of the architecture.

    The student's widths are drawn by torch's generator, from a uniform distribution.
    """
    with torch.device(device):
        network = form.network(space, CLASSES)
    network.checkpointing = form.checkpointing
    for parameter in network.network_parameters().values():
        parameter.requires_grad_(not architecture)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    ledger = Ledger()
    ledger.follow([*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters())])
    kept = ledger.live_bytes
    torch.manual_seed(0)
    with ledger:
        relaxed = {name: table.dense().softmax(1).detach() for name, table in network.tables.items()}
        weights = {name: each.requires_grad_(architecture) for name, each in relaxed.items()}
        images = torch.zeros(batch, 3, *size, device=device)
        labels = torch.zeros(batch, size.height // 8, size.width // 8, dtype=torch.long, device=device)
        backward(network, images, labels, weights, together=form.together)
    return ledger.peak_bytes - kept


def fasterseg_step(
    size: Size,
    batch: int,
    machine: Mapping[str, Scalar],
    space: FasterSegSearchSpace | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Count every form; plain JSON values."""
    searched = space or FasterSegSearchSpace()
    found: dict[str, dict[str, int]] = {}
    for name, form in FORMS.items():
        progress(name)
        found[name] = {
            step: activation_bytes(form, searched, size, batch, architecture=step == "architecture")
            for step in ("weights", "architecture")
        }
    worst = {name: max(each.values()) for name, each in found.items()}
    return {
        "schema": SCHEMA,
        "kind": "fasterseg step, activation memory, counted on the meta device",
        "machine": dict(machine),
        "setting": {"space": searched.model_dump(mode="json"), "resolution": str(size), "batch": batch},
        "activation_bytes": found,
        "share_of_baseline": {name: each / worst[BASELINE] for name, each in worst.items()},
        "release_gib": RELEASE_GIB,
    }
