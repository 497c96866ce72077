"""The SSR supernet: all networks of an `SSRSearchSpace` in one, with weights shared between depths.

Source: Ye et al., IJCV 2022, section 3.1 and Eq. 2 to 5. Shapes: N batch, C channels, H and W of the input.

The stage at 1/4 may end with fewer channels than it began with, and ERFNet's downsampler makes as many channels by its
convolution as its input lacks: how many is part of the derived network, so it is relaxed here too (`MixedDownsampler`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ERFNetDownsampler
from ...choices import Alive, Cuts, Weights
from ...costs.expected import Part, Price
from ...genotype import SCHEMA
from ...sizes import Size
from ...supernet import Supernet
from . import expected
from ._mixed_layer import EPS, MixedLayer, cut_conv
from .genotype import ClassifierHead, SSRGenotype, SSRLayer, SSRStage
from .search_space import STAGES, SSRSearchSpace

if TYPE_CHECKING:
    from ...genotype import Provenance

# Channel dropout of ERFNet, at 1/4 and at 1/8.
_DROPOUT = (0.03, 0.3)


class MixedDownsampler(nn.Module):
    """The downsampler to 1/8 over the widths that the stage at 1/4 may end with.

    For a width w of its input it is `ERFNetDownsampler(w, channels)`: `channels - w` rows of the convolution, then the
    w pooled channels. Convolution and BatchNorm are shared; the concatenations are mixed by how probable each w is.

    Args:
        widths: ascending; one is a plain downsampler.
        channels: of the output.
    """

    def __init__(self, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.widths, self.channels = widths, channels
        self.conv = nn.Conv2d(widths[-1], channels - widths[0], 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels, eps=EPS)
        self.register_buffer("_chosen", self._selected(), persistent=False)

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        """N x channels x H/2 x W/2 of N x widths[-1] x H x W; `p` has a probability for each of `widths`."""
        y = torch.cat([self.conv(x), F.max_pool2d(x, 2)], dim=1)
        if len(self.widths) > 1:
            chosen: Tensor = self._chosen  # type: ignore[assignment]
            y = F.conv2d(y, torch.einsum("w,wco->co", p, chosen.to(p)).to(y.dtype)[:, :, None, None])
        return F.relu(self.norm(y))

    def _selected(self) -> Tensor:
        """widths x channels x (rows + pooled): which of both each output channel takes."""
        rows, channels = self.conv.out_channels, self.channels
        chosen = torch.zeros(len(self.widths), channels, rows + self.widths[-1])
        for which, width in zip(chosen, self.widths, strict=True):
            made = torch.arange(channels - width)
            which[made, made] = 1
            passed = torch.arange(width)
            which[channels - width + passed, rows + passed] = 1
        return chosen.to(self.conv.weight.device)

    def shrink(self, prefix: str, widths: tuple[int, ...], cuts: Cuts) -> None:
        """Keep these widths of those there are."""
        self.widths = widths
        cut_conv(self.conv, f"{prefix}conv.", self.channels - widths[0], widths[-1], cuts)
        self.register_buffer("_chosen", self._selected(), persistent=False)


class SSRSupernet(Supernet):
    """The relaxed network; logits N x classes x H/8 x W/8.

    Args:
        space: what can be chosen.
        classes: output channels of the classifier, a 1x1 convolution at 1/8 (section 5.2).

    Attributes:
        compute_dtype: of the maps of the searched layers, torch.float32 or torch.bfloat16. Weights, statistics and all
            that mixes stay float32.
        checkpointing: whether layers keep their input alone and compute their operators again in the backward pass.
    """

    def __init__(self, space: SSRSearchSpace, classes: int) -> None:
        super().__init__(space.tables())
        self.compute_dtype, self.checkpointing = torch.float32, False
        self.space, self.classes = space, classes
        self.stem = ERFNetDownsampler(3, space.stem)
        self.down4 = ERFNetDownsampler(space.stem, space.channels[0])
        self.stage4 = self._stage(0)
        self.down8 = MixedDownsampler(space.widths(0), space.channels[1])
        self.stage8 = self._stage(1)
        self.classifier = nn.Conv2d(space.channels[1], classes, 1)
        for index, stage in enumerate(STAGES):
            reached = torch.arange(space.channels[index]) < torch.tensor(space.widths(index))[:, None]
            self.register_buffer(f"_prefixes{stage}", reached.float(), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _stage(self, stage: int) -> nn.ModuleList:
        space = self.space
        candidates = [(f"d{dilation}s{spatial}", dilation, spatial) for dilation, spatial in space.operators()]
        return nn.ModuleList(
            MixedLayer(
                space.channels[stage], candidates, pool=space.pool, mid_norm=space.mid_norm, dropout=_DROPOUT[stage]
            )
            for _ in space.layers(stage)
        )

    def _layers(self, stage: int) -> list[MixedLayer]:
        return list(self.stage8 if stage else self.stage4)  # type: ignore[arg-type]

    def forward(self, image: Tensor, weights: Weights) -> Tensor:
        image = image.to(self.classifier.weight.dtype, memory_format=torch.channels_last)
        x = self._run(0, self.down4(self.stem(image)), weights)
        x = self._run(1, self.down8(x, self._exit_widths(weights)), weights)
        return self.classifier(x)

    def _run(self, stage: int, x: Tensor, weights: Weights) -> Tensor:
        """Eq. 2: the sum over depths of the depth's weight times the output of its last layer."""
        name, operators = STAGES[stage], len(self.space.operators())
        prefixes: Tensor = getattr(self, f"_prefixes{name}")
        mid, out = ((weights[f"{which}{name}"] @ prefixes).unflatten(0, (-1, operators)) for which in ("mid", "out"))
        wide, x = x.dtype, x.to(self.compute_dtype) if self.compute_dtype == torch.bfloat16 else x
        depths = self.space.stage_depths(stage)
        live = self.tables[f"depth{name}"].alive[0]
        first = len(self.space.layers(0)) if stage else 0
        ends: list[Tensor] = []
        for index, layer in enumerate(self._layers(stage)):
            x = layer(x, weights["operator"][first + index], mid[index], out[index], checkpointing=self.checkpointing)
            if index + 1 in depths and live[depths.index(index + 1)]:
                ends.append(x.to(wide) * weights[f"depth{name}"][0, depths.index(index + 1)])
        total = widest = max(ends, key=lambda end: end.shape[1])
        for end in ends:
            if end is not widest:
                missing = total.shape[1] - end.shape[1]
                total = total + (F.pad(end, (0, 0, 0, 0, 0, missing)) if missing else end)
        return total

    def _exit_widths(self, weights: Weights) -> Tensor:
        """How probable each of `down8.widths` is at the end of the stage at 1/4."""
        operators = len(self.space.operators())
        last = [depth - 1 for depth in self.space.stage_depths(0)]
        out = weights["out4"].unflatten(0, (-1, operators))
        found = torch.einsum("d,do,dow->w", weights["depth4"][0], weights["operator"][last], out[last])
        live = [self.space.widths(0).index(width) for width in self.down8.widths]
        return found[live] / found[live].sum()

    def closed(self, alive: Alive) -> Alive:
        alive = {name: mask.copy() for name, mask in alive.items()}
        for stage, name in enumerate(STAGES):
            first = len(self.space.layers(0)) if stage else 0
            deepest = self.space.stage_depths(stage)[int(np.flatnonzero(alive[f"depth{name}"][0])[-1])]
            rows = slice(first, first + len(self.space.layers(stage)))
            alive["operator"][rows][deepest:] = False
            for which in ("mid", "out"):
                alive[f"{which}{name}"][~alive["operator"][rows].flatten()] = False
        return alive

    def shrink(self, alive: Alive) -> Cuts:
        cuts: Cuts = {
            f"choice_tables.{name}.logits": (table.shrink(alive[name]),) for name, table in self.tables.items()
        }
        first = self._shrink_stage(0, alive, cuts)
        self.down8.shrink("down8.", first, cuts)
        second = self._shrink_stage(1, alive, cuts)
        cut_conv(self.classifier, "classifier.", self.classes, second[-1], cuts)
        return cuts

    def _shrink_stage(self, stage: int, alive: Alive, cuts: Cuts) -> tuple[int, ...]:
        """Shrink the layers of a stage; returns the widths that it may end with, ascending."""
        space, name, operators = self.space, STAGES[stage], len(self.space.operators())
        widths = np.array(space.widths(stage))
        live = {which: alive[f"{which}{name}"].reshape(-1, operators, len(widths)) for which in ("mid", "out")}
        depths = [d for d, lives in zip(space.stage_depths(stage), alive[f"depth{name}"][0], strict=True) if lives]
        modules = self.stage8 if stage else self.stage4
        del modules[depths[-1] :]
        channels = space.channels[stage]
        for index, layer in enumerate(self._layers(stage)):
            widest = {which: np.where(masks[index], widths, 0).max(axis=1) for which, masks in live.items()}
            layer.shrink(f"stage{name}.{index}.", channels, widest["mid"].tolist(), widest["out"].tolist(), cuts)
            channels = layer.channels
        ends = np.any([live["out"][depth - 1].any(axis=0) for depth in depths], axis=0)
        return tuple(widths[ends].tolist())

    def parts(self, weights: Weights, size: Size) -> list[Part]:
        return expected.parts(self.space, self.classes, weights, size)

    def cheapest(self, alive: Alive, price: Price, size: Size) -> Alive:
        return expected.cheapest(self.space, self.classes, alive, price, size)

    def derive(self, alive: Alive, provenance: Provenance) -> SSRGenotype:
        return derived(self.space, self.classes, alive, provenance)

    def searched(self, provenance: Provenance) -> tuple[SSRGenotype, dict[str, Tensor]]:
        """The derived network with a classifier head, and `discrete_state`."""
        space = self.space.model_copy(update={"head": "classifier"})
        return derived(space, self.classes, self.alive(), provenance), self.discrete_state()

    def discrete_state(self) -> dict[str, Tensor]:
        """Where every choice is decided: the state dict of the derived network with a `classifier` head.

        Raises:
            ValueError: a choice is undecided.
        """
        if self.undecided():
            raise ValueError("some choice is undecided")
        state = {}
        for name, tensor in self.state_dict().items():
            top, _, rest = name.partition(".")
            if top == "choice_tables":
                continue
            if top in ("stage4", "stage8"):
                index, _, _, inner = rest.split(".", 3)
                name = f"{top}.{int(index) + 1}.{inner}"
            elif top in ("down4", "down8"):
                name = f"stage{top[-1]}.0.{rest}"
            elif top == "classifier":
                name = f"head.conv.{rest}"
            state[name] = tensor.detach().clone()
        return state


def derived(
    space: SSRSearchSpace, classes: int, alive: Mapping[str, np.ndarray], provenance: Provenance
) -> SSRGenotype:
    """The discrete network where each choice that is not pointless has one candidate.

    Raises:
        ValueError: a choice has more than one, or a layer none.
    """

    def only(table: str, row: int) -> int:
        (found,) = np.flatnonzero(alive[table][row])
        return int(found)

    operators, stages = space.operators(), []
    for stage, name in enumerate(STAGES):
        first = len(space.layers(0)) if stage else 0
        widths, layers = space.widths(stage), []
        for index in range(space.stage_depths(stage)[only(f"depth{name}", 0)]):
            column = only("operator", first + index)
            row = index * len(operators) + column
            dilation, spatial = operators[column]
            mid, out = widths[only(f"mid{name}", row)], widths[only(f"out{name}", row)]
            layers.append(SSRLayer(dilation=dilation, spatial=spatial, mid=mid, out=out))
        stages.append(SSRStage(channels=space.channels[stage], layers=tuple(layers)))
    pools = any(layer.spatial == 2 for stage in stages for layer in stage.layers)
    return SSRGenotype(
        schema=SCHEMA,
        space="ssr",
        classes=classes,
        pool=space.pool if pools else "average",
        mid_norm=space.mid_norm,
        stem=space.stem,
        stages=(stages[0], stages[1]),
        head=expected.AGGREGATION if space.head == "aggregation" else ClassifierHead(type="classifier"),
        provenance=provenance,
    )
