"""A supernet that is small enough to check by hand, and searches from start to end, for tests of all that searches."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from searchkit.choices import ChoiceTable
from searchkit.cost import StageCounter
from searchkit.costs.expected import Grid, Operator, Part
from searchkit.genotype import Genotype, Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size, SizeRule
from searchkit.strategies import STRATEGIES
from searchkit.supernet import Supernet, weights_of

LAYERS, KERNELS, WIDTHS = 3, (1, 3, 5), (2, 4, 8)


class ToyGenotype(Genotype):
    """Layers of (kernel, width) behind a strided stem."""

    space: Literal["toy"]
    layers: tuple[tuple[int, int], ...]
    size_rule: ClassVar[SizeRule] = SizeRule(multiple=8, minimum=8)

    def stage_costs(self, size):
        counter = StageCounter("all")
        size = counter.conv(3, 8, (8, 8), size, stride=8)
        for kernel, width in self.layers:
            counter.conv(8, width, (kernel, kernel), size)
            counter.conv(width, 8, (1, 1), size)
        counter.conv(8, self.classes, (1, 1), size, bias=True, norm=False)
        yield counter.stage()


def operator(inputs, outputs, kernel, cells, *, bias=False, norm=True):
    weights = inputs * outputs * kernel * kernel
    return Operator(f"conv{kernel}_{inputs}_{outputs}_{cells}", weights * cells, weights + outputs * (bias + 2 * norm))


class ToyLayer(nn.Module):
    """x + narrow(mask * wide_k(x)), mixed over kernels; widths by prefix masks."""

    def __init__(self):
        super().__init__()
        self.wide = nn.ModuleDict({f"k{k}": nn.Conv2d(8, 8, k, padding=k // 2, bias=False) for k in KERNELS})
        self.narrow = nn.ModuleDict({f"k{k}": nn.Conv2d(8, 8, 1, bias=False) for k in KERNELS})


class ToySupernet(Supernet):
    """Level `path`: one to three layers; level `operator`: their kernels; level `width`: their inner widths."""

    def __init__(self, classes=5):
        names = [f"layer{i}" for i in range(LAYERS)]
        rows = [f"{layer}.k{k}" for layer in names for k in KERNELS]
        tables = [
            ChoiceTable("depth", "path", ("all",), ("1", "2", "3")),
            ChoiceTable("kernel", "operator", names, tuple(f"k{k}" for k in KERNELS)),
            ChoiceTable("width", "width", rows, tuple(map(str, WIDTHS))),
        ]
        super().__init__({table.name: table for table in tables})
        self.classes = classes
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8, bias=False), nn.BatchNorm2d(8))
        self.layers = nn.ModuleList(ToyLayer() for _ in range(LAYERS))
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, image, weights):
        x, out = self.stem(image), 0
        masks = (torch.arange(8)[None] < torch.tensor(WIDTHS)[:, None]).float().to(image.device)
        for index, layer in enumerate(self.layers):
            for column, k in enumerate(KERNELS):
                if f"k{k}" in layer.wide:
                    wide, narrow = layer.wide[f"k{k}"], layer.narrow[f"k{k}"]
                    mask = (weights["width"][index * len(KERNELS) + column] @ masks)[: wide.out_channels]
                    x = x + weights["kernel"][index, column] * narrow(F.relu(wide(x)) * mask.view(1, -1, 1, 1))
            out = out + weights["depth"][0, index] * x
        return self.head(out)

    def closed(self, alive):
        alive = {name: mask.copy() for name, mask in alive.items()}
        deepest = np.flatnonzero(alive["depth"][0])[-1]
        alive["kernel"][deepest + 1 :] = False
        alive["width"][~alive["kernel"].flatten()] = False
        return alive

    def shrink(self, alive):
        cuts = {f"choice_tables.{name}.logits": (table.shrink(alive[name]),) for name, table in self.tables.items()}
        for index, layer in enumerate(self.layers):
            for column, k in enumerate(KERNELS):
                name, mask = f"k{k}", alive["width"][index * len(KERNELS) + column]
                if not mask.any():
                    if name in layer.wide:
                        del layer.wide[name], layer.narrow[name]
                    continue
                width = WIDTHS[np.flatnonzero(mask)[-1]]
                if width < layer.wide[name].out_channels:
                    kept = torch.arange(width)
                    wide, narrow = layer.wide[name], layer.narrow[name]
                    wide.weight, wide.out_channels = nn.Parameter(wide.weight.detach()[:width].clone()), width
                    narrow.weight, narrow.in_channels = nn.Parameter(narrow.weight.detach()[:, :width].clone()), width
                    cuts[f"layers.{index}.wide.{name}.weight"] = (kept, None, None, None)
                    cuts[f"layers.{index}.narrow.{name}.weight"] = (None, kept, None, None)
        return cuts

    def parts(self, weights, size):
        grids = self.__dict__.setdefault("_grids", {})
        if size not in grids:
            cells = (size.height // 8) * (size.width // 8)
            fixed = (operator(3, 8, 8, cells), operator(8, self.classes, 1, cells, bias=True, norm=False))
            layer = [o for k in KERNELS for w in WIDTHS for o in (operator(8, w, k, cells), operator(w, 8, 1, cells))]
            grids[size] = (Grid(fixed, (2,)), Grid(layer, (len(KERNELS), len(WIDTHS), 2)))
        fixed, layer = grids[size]
        found = [Part("all", fixed, torch.ones(2))]
        for index in range(LAYERS):
            reach = weights["depth"][0, index:].sum()
            widths = weights["width"][index * len(KERNELS) : (index + 1) * len(KERNELS)]
            p = reach * weights["kernel"][index][:, None, None] * widths[:, :, None]
            found.append(Part("all", layer, p.expand(-1, -1, 2)))
        return found

    def networks(self, alive):
        """Every network that `alive` holds, by brute force."""
        for depth in np.flatnonzero(alive["depth"][0]):
            per_layer = []
            for index in range(depth + 1):
                options = []
                for column in np.flatnonzero(alive["kernel"][index]):
                    row = index * len(KERNELS) + column
                    options += [(column, row, width) for width in np.flatnonzero(alive["width"][row])]
                per_layer.append(options)
            for picked in itertools.product(*per_layer):
                found = {name: np.zeros_like(mask) for name, mask in alive.items()}
                found["depth"][0, depth] = True
                for index, (column, row, width) in enumerate(picked):
                    found["kernel"][index, column] = True
                    found["width"][row, width] = True
                yield found

    def cheapest(self, alive, price, size):
        def cost(network):
            weights = weights_of(network)
            return sum(
                float((part.probabilities.flatten() * torch.tensor([price(o) for o in part.grid.operators])).sum())
                for part in self.parts(weights, size)
            )

        return min(self.networks(alive), key=cost)

    def derive(self, alive, provenance):
        assert all((mask.sum(axis=1) <= 1).all() for mask in alive.values())
        depth = int(np.flatnonzero(alive["depth"][0])[0]) + 1
        layers = []
        for index in range(depth):
            column = int(np.flatnonzero(alive["kernel"][index])[0])
            width = WIDTHS[int(np.flatnonzero(alive["width"][index * len(KERNELS) + column])[0])]
            layers.append((KERNELS[column], width))
        return ToyGenotype(schema=1, space="toy", classes=self.classes, layers=tuple(layers), provenance=provenance)


@pytest.fixture
def toy_supernet():
    """A `ToySupernet` with all alive, drawn from seed 0; its logits are 0."""
    torch.manual_seed(0)
    return ToySupernet()


@pytest.fixture
def toy_size():
    return Size(16, 32)


@pytest.fixture(scope="session")
def toy_supernet_type():
    """The class, for supernets of another seed."""
    return ToySupernet


@pytest.fixture(scope="session")
def search_job():
    """`search_job(build, recipe, pictures, size)` is a search on the CPU of what `build` makes."""
    from searchkit.training.search_job import SearchJob
    from searchkit.training.search_recipe import SearchRecipe, parse_search_recipe

    def make(build, recipe, pictures, size, *, strategy="darts", settings=None, validation=1, **more):
        """`strategy` is a class or a name; so many of the pictures are validated on; `more` are fields of the job."""
        kind = STRATEGIES.load(strategy) if isinstance(strategy, str) else strategy
        chosen = parse_settings(kind.settings_type, settings or {}, what="strategy")
        found = SearchJob(
            build=build,
            lead=lambda levels: kind(chosen, levels),
            recipe=recipe if isinstance(recipe, SearchRecipe) else parse_search_recipe(recipe, where="test"),
            resolution=size,
            seed=3,
            train=pictures,
            validation=pictures[:validation],
            identity="f" * 64,
            device=torch.device("cpu"),
        )
        return replace(found, **more)

    return make


@pytest.fixture(scope="session")
def searched():
    """`searched(job, folder)` searches to the end, or goes on with what is in the folder; what `conclude` returns."""
    from searchkit.training.search import Searcher
    from searchkit.training.search_end import conclude
    from searchkit.training.search_folder import SearchFolder

    def run(job, path, **more):
        path.mkdir(exist_ok=True)
        searcher = Searcher(job, SearchFolder(path), **more)
        # A search by the command has a config before its first step.
        if (path / "config.json").exists():
            searcher.resume()
        (path / "config.json").write_text("{}")
        assert searcher.run()
        return conclude(searcher, Provenance(name="found"))

    return run


@pytest.fixture(scope="session")
def files_of():
    """`files_of(folder)`: the bytes of all files that a search left, but for the times."""

    def read(path):
        found = (each for each in sorted(path.rglob("*")) if each.is_file() and each.name != "times.jsonl")
        return {str(each.relative_to(path)): each.read_bytes() for each in found}

    return read
