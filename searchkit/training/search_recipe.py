"""Recipes of searches: space, strategy, both optimisers and the budgets, as a strict TOML file, and the presets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from ..errors import InputFileError, UsageError, unknown_name
from ..spaces import SPACES
from .recipe import (
    Augmentation,
    Cosine,
    CrossEntropy,
    Exponential,
    Ohem,
    Optimiser,
    Part,
    Poly,
    Positive,
    Schedule,
    Side,
    check_schedule,
    read_toml,
    validated,
)

#: The preset where none is named: the paper's own search.
DEFAULT_PRESET = "paper"

Batch = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=10**8)]
#: A limit that has a default: TOML has no word for none but "none".
Unlimited = Annotated[Positive | None, BeforeValidator(lambda value: None if value == "none" else value)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
#: How much the choices of each level count.
Levels = dict[Text, Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]]


class StrategyChoice(Part):
    """A search strategy by name, and its settings where they differ from the published ones."""

    name: Text = "ssr"
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class Weights(Part):
    """How the network's weights are trained. SSR's release: Adam 3e-4 with decay 1e-4, poly 0.9."""

    optimiser: Optimiser = Optimiser(name="adam", lr=3e-4, weight_decay=1e-4)
    schedule: Schedule = Poly(type="poly", power=0.9)
    clip_norm: Positive | None = None

    @model_validator(mode="after")
    def _falling(self) -> Self:
        check_schedule(self.schedule, self.optimiser.lr)
        return self


class Architecture(Part):
    """How the architecture parameters are trained, by Adam. SSR's release: 2e-3, decay 1e-3, gradients clipped at 5.

    Attributes:
        lr: constant over the search.
        betas: Adam's; the release leaves PyTorch's.
        clip_norm: greatest norm of all gradients together; "none": whatever they have.
        loss_scale: the loss of the architecture step is multiplied by it. Adam itself takes no notice, its decay and
            the clipping do: SSR's release multiplies the losses that the paper prints by 100, and its decay of 1e-3
            beside losses of the printed size would keep all candidates of a choice equal (measured).
    """

    lr: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip_norm: Unlimited = 5.0
    loss_scale: Positive = 1.0


class Budgets(Part):
    """Limits of the derived network, each as on the command line; see `searchkit.costs.budget`.

    Attributes:
        macs, params: such as "7.8G" and "1.1M".
        latency: such as "5ms", the sum of a latency table's entries.
        latency_table: path of that table.
        resolution: HxW of the network's input at which they hold; that of the search if left out.
        weight: of the penalty in the loss of the architecture step.
        levels: how much the choices of each level feel it; those that are not named do not at all. All alike if left
            out. FasterSeg (Eq. 3): { operator = 0.001, path = 0.997, width = 0.002 }.
    """

    macs: Text | None = None
    params: Text | None = None
    latency: Text | None = None
    latency_table: Text | None = None
    resolution: Text | None = None
    weight: Positive = 1.0
    levels: Levels | None = None

    @model_validator(mode="after")
    def _has_a_table(self) -> Self:
        if (self.latency is None) != (self.latency_table is None):
            raise ValueError("latency: a limit and the table it is counted by go together")
        return self


class Cost(Part):
    """What the expected cost of the network adds to the loss of the architecture step; see `searchkit.costs.loss`.

    Attributes:
        price: what is paid for.
        form: `linear` in ms, G MACs or M parameters, as in FasterSeg; `log` of microseconds, MACs or parameters, as in
            LGCNet.
        weight: what it is multiplied by: 0.01 in FasterSeg's release, 0.005 in LGCNet.
        levels: how much the choices of each level count, the others' weights held still; all 1 if left out. FasterSeg:
            0.001, 0.997 and 0.002 for `operator`, `path` and `width`.
        latency_table: path of a table; that of the budgets if left out.
        resolution: HxW of the network's input; that of the search if left out, for a latency always the table's.
        fps: a band of the expected rate, such as [155, 175]: at each decision point the weight is halved above it and
            doubled below.
    """

    price: Literal["latency", "macs", "params"]
    form: Literal["linear", "log"] = "linear"
    weight: Positive
    levels: Levels | None = None
    latency_table: Text | None = None
    resolution: Text | None = None
    fps: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _of_a_latency(self) -> Self:
        if self.price != "latency" and (self.latency_table is not None or self.fps is not None):
            raise ValueError("price: a latency table and a band of rates go with a latency")
        if self.price == "latency" and self.resolution is not None:
            raise ValueError("resolution: a latency is of the input size of its table")
        if self.fps is not None and self.fps[0] > self.fps[1]:
            raise ValueError("fps: the lower rate comes first")
        return self


class Pretraining(Part):
    """What differs while only the weights learn, in the steps of the warm-up; what is left out is as in the search.

    A recipe with this table has two phases, as FasterSeg's release has two programs: each has its own epochs, the
    schedule of the learning rate is that of each phase's own steps, and with the search the optimiser of the weights
    starts afresh, and decision points are counted from there.

    Attributes:
        batch: pictures of a step.
        crop: height and width in px, in place of the augmentation's.
        lr, schedule: of the weights.
    """

    batch: Batch | None = None
    crop: tuple[Side, Side] | None = None
    lr: Positive | None = None
    schedule: Schedule | None = None


class SearchRecipe(Part):
    """A whole search. Exactly one of `steps` and `epochs` is given; a step is one architecture and one weight step.

    An epoch is one pass through the pictures that the weights are trained on. Those of the warm-up are counted in.

    Attributes:
        space: settings of the search space.
        resolution: height and width in px of the search, where the command names none.
        batch: pictures of each of the two updates of a step.
        warmup_steps, warmup_epochs: without architecture steps and decisions; at most one of the two.
        pretraining: what differs in these; one phase with all that comes after if left out.
        decide_every: steps between two decision points; an epoch if left out. The end is one in any case.
        split: "half": weights learn from one half of the training split and the architecture from the other, by a
            seeded shuffle; "same": both learn from the same batches, as in SSR's release.
        loss: of both updates, at 1/8 of the resolution.
        training_pictures, validation_pictures: of each split, so many are used, evenly spread; all if left out.
        validate_every: decision points between two validations of the supernet; never but at the end if left out.
        stored: samples are cached at this multiple of the resolution; the augmentation's scale is relative to that.
        amp: "bf16" computes convolutions in bfloat16.
        checkpointing: activations are computed again in the backward pass instead of kept, where the supernet can.
        compile: the supernet goes through torch.compile, anew whenever it has shrunk.
        stop_when_discrete: ends once every choice is decided; otherwise the weights are trained on.
    """

    batch: Batch
    steps: Count | None = None
    epochs: Annotated[int, Field(ge=1, le=10**6)] | None = None
    resolution: tuple[Side, Side] | None = None
    space: dict[str, JsonValue] = Field(default_factory=dict)
    strategy: StrategyChoice = StrategyChoice()
    weights: Weights = Weights()
    architecture: Architecture = Architecture()
    warmup_steps: Annotated[int, Field(ge=0, le=10**8)] = 0
    warmup_epochs: Annotated[int, Field(ge=0, le=10**6)] = 0
    pretraining: Pretraining | None = None
    decide_every: Count | None = None
    split: Literal["half", "same"] = "half"
    loss: Annotated[Ohem | CrossEntropy, Field(discriminator="type")] = CrossEntropy(type="cross_entropy")
    augmentation: Augmentation = Augmentation()
    training_pictures: Annotated[int, Field(ge=2)] | None = None
    validation_pictures: Annotated[int, Field(ge=1)] | None = None
    validate_every: Count | None = None
    stored: Annotated[int, Field(ge=1, le=4)] = 1
    amp: Literal["none", "bf16"] = "none"
    channels_last: bool = False
    checkpointing: bool = False
    compile: bool = False
    stop_when_discrete: bool = True
    budgets: Budgets = Budgets()
    cost: Cost | None = None

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("steps: give either steps or epochs")
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError("warmup_steps: give either warmup_steps or warmup_epochs")
        tables = (self.budgets.latency_table, self.cost.latency_table if self.cost else None)
        if self.cost is not None and self.cost.price == "latency" and not any(tables):
            raise ValueError("cost: a latency needs a latency_table, here or in the budgets")
        return self

    @model_validator(mode="after")
    def _pretrains(self) -> Self:
        if self.pretraining is not None:
            if not self.warmup_steps and not self.warmup_epochs:
                raise ValueError("pretraining: it lasts as long as the warm-up, so set warmup_epochs or warmup_steps")
            weights = self.in_pretraining().weights
            check_schedule(weights.schedule, weights.optimiser.lr)
        return self

    def to_tree(self) -> dict[str, Any]:
        """Every field as plain JSON values; `pretraining` only where there is one, so that what a search is known by
        is what it was before there was this table."""
        tree = self.model_dump(mode="json")
        return tree if self.pretraining else {key: value for key, value in tree.items() if key != "pretraining"}

    def in_pretraining(self) -> SearchRecipe:
        """The recipe as it is in the steps of the warm-up; itself where `pretraining` changes nothing."""
        if (early := self.pretraining) is None:
            return self
        lr, schedule = early.lr or self.weights.optimiser.lr, early.schedule or self.weights.schedule
        optimiser = self.weights.optimiser.model_copy(update={"lr": lr})
        return self.model_copy(
            update={
                "batch": early.batch or self.batch,
                "augmentation": self.augmentation.model_copy(update={"crop": early.crop or self.augmentation.crop}),
                "weights": self.weights.model_copy(update={"optimiser": optimiser, "schedule": schedule}),
            }
        )

    def weight_pictures(self, pictures: int) -> int:
        """How many of `pictures` training pictures the weights learn from; see `split`."""
        return pictures - pictures // 2 if self.split == "half" else pictures

    def epoch_steps(self, pictures: int) -> int:
        """Steps of an epoch of the search, for a training split of so many pictures."""
        return -(-self.weight_pictures(pictures) // self.batch)

    def length(self, pictures: int) -> int:
        """Number of steps, for a training split of so many pictures."""
        if self.steps is not None:
            return self.steps
        total = (self.epochs or 1) * self.weight_pictures(pictures)
        if self.pretraining is None:
            return -(-total // self.batch)
        batch = self.in_pretraining().batch
        early = self.warmup_steps * batch or self.warmup_epochs * self.weight_pictures(pictures)
        # The last batch of each phase may begin another pass.
        return -(-min(early, total) // batch) + -(-max(0, total - early) // self.batch)

    def warmup(self, pictures: int) -> int:
        """Steps before the first architecture step, for a training split of so many pictures."""
        batch = self.in_pretraining().batch
        return self.warmup_steps or -(-self.warmup_epochs * self.weight_pictures(pictures) // batch)

    def decision_steps(self, pictures: int) -> tuple[int, ...]:
        """After how many steps there are decision points: at the end, and at multiples of `decide_every` behind the
        warm-up; with `pretraining`, at so many steps behind it."""
        steps, every = self.length(pictures), self.decide_every or self.epoch_steps(pictures)
        warmup = self.warmup(pictures)
        first = warmup + every if self.pretraining else (warmup // every + 1) * every
        return (*range(first, steps, every), steps)


def presets(space: str) -> list[str]:
    """Names of the recipes that a space ships, in the folder `presets` beside its code."""
    return sorted(path.stem for path in (SPACES.folder(space) / "presets").glob("*.toml"))


def load_search_recipe(space: str, *, preset: str | None = None, path: Path | None = None) -> dict[str, Any]:
    """The tree of a shipped recipe or of a file, to be changed and then checked by `parse_search_recipe`.

    Raises:
        UsageError: there is no such preset; the nearest names are listed.
        InputFileError: the file is no TOML.
    """
    if path is None:
        name, known = preset or DEFAULT_PRESET, presets(space)
        if not known:
            raise UsageError(f"{space} has networks, but no recipe of a search", where="SPACE")
        if name not in known:
            raise unknown_name("preset", name, known, where="--preset")
        path = SPACES.folder(space) / "presets" / f"{name}.toml"
    return read_toml(path)


def parse_search_recipe(tree: Mapping[str, Any], *, where: str) -> SearchRecipe:
    """Validate a recipe as plain values; raises `InputFileError` naming the field, with what is allowed."""
    models = (
        SearchRecipe,
        StrategyChoice,
        Weights,
        Architecture,
        Budgets,
        Cost,
        Pretraining,
        Augmentation,
        Optimiser,
        Ohem,
        Poly,
        Exponential,
        Cosine,
    )
    names = sorted({name for model in models for name in model.model_fields})
    return validated(SearchRecipe, dict(tree), where=where, names=names)


def changed(tree: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A recipe's tree with some fields set, each as `a.b=VALUE` with a TOML value; what is no TOML value is text.

    `strategy.NAME` means `strategy.settings.NAME` unless it is `strategy.name`.

    Raises:
        UsageError: no `=`, or a field of what is no table.
    """
    found = _copied(tree)
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = key.split(".")
        if not equals or not all(path):
            raise UsageError(
                "not a setting", where="--set", got=setting, allowed="FIELD=VALUE, such as space.depths=[[1],[2]]"
            )
        if path[0] == "strategy" and path[1:] not in ([], ["name"], ["settings"]) and path[1:2] != ["settings"]:
            path.insert(1, "settings")
        table = found
        for name in path[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UsageError("not a table of the recipe", where="--set", got=setting)
        table[path[-1]] = _value(text)
    return found


def _copied(value: Any) -> Any:
    return {key: _copied(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def with_strategy(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A recipe's tree with another strategy, in its published settings unless it is the recipe's own."""
    given = tree.get("strategy", {})
    same = isinstance(given, Mapping) and given.get("name", "ssr") == name
    return dict(tree) | {"strategy": given if same else {"name": name}}


def merged_error(error: InputFileError) -> UsageError:
    """What a recipe's refusal is called where the command line has changed the recipe."""
    return UsageError(error.problem, where=error.where, got=error.got, allowed=error.allowed, fix=error.fix)
