"""Recipes: how a discrete network is trained, as a strict TOML file, and the shipped presets.

A recipe is a list of stages. What stages have in common may stand in a `[common]` table: each of its keys is taken by
every stage that does not say otherwise. Nothing is guessed: unknown, mistyped and out-of-range values are refused.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputFileError, UsageError, unknown_name
from ..files import read_bytes
from ..sizes import MAX_SIDE_PX, Size

PRESETS = Path(__file__).parent / "presets"
_MAX_BYTES = 1 << 20

Positive = Annotated[float, Field(gt=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=16, le=MAX_SIDE_PX)]


Model = TypeVar("Model", bound=BaseModel)


class Part(BaseModel):
    """Base of all tables of recipes: frozen, strict in its types, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Ohem(Part):
    """Cross-entropy on the hard pixels: true-class probability under `threshold`, but at least `kept` of all pixels.

    FasterSeg's release: threshold 0.7, kept 1/16.
    """

    type: Literal["ohem"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    kept: Fraction = 1 / 16


class CrossEntropy(Part):
    """Plain cross-entropy, the mean over all labelled pixels."""

    type: Literal["cross_entropy"]


class Optimiser(Part):
    """Adam (betas 0.9 and 0.999) or SGD; `momentum` belongs to SGD alone. Decay is L2, as in both papers."""

    name: Literal["adam", "sgd"]
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Poly(Part):
    """lr x (1 - step / steps) ** power."""

    type: Literal["poly"]
    power: Positive = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Exponential(Part):
    """lr x gamma ** (step // every), `every` being the steps of an epoch of the paper."""

    type: Literal["exponential"]
    gamma: Annotated[float, Field(gt=0, le=1)]
    every: Annotated[int, Field(ge=1)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Cosine(Part):
    """Half a cosine from lr to `last_lr`, which the last step has: behind a warm-up of w out of n steps, step w + t has

        last_lr + (lr - last_lr) x (1 + cos(pi x t / (n - w - 1))) / 2.

    SGDR, Loshchilov and Hutter, ICLR 2017, Eq. 5, without restarts. LGCNet: from 0.025 to 0.001.
    """

    type: Literal["cosine"]
    last_lr: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0


#: How the learning rate moves from step to step.
Schedule = Annotated[Poly | Exponential | Cosine, Field(discriminator="type")]


def check_schedule(schedule: Schedule, lr: float) -> None:
    """Raise `ValueError` where a schedule that falls would rise."""
    if isinstance(schedule, Cosine) and schedule.last_lr > lr:
        raise ValueError(f"schedule: last_lr = {schedule.last_lr:g} is greater than the lr that it starts from, {lr:g}")


class Augmentation(Part):
    """What is done to a sample at random.

    Attributes:
        crop: height and width in px; the resolution of the run if left out.
        scale: smallest and largest factor, of the stored sample (see `Recipe.stored`).
        flip: mirror half of the samples, left to right.
        jitter: brightness, contrast and saturation change by up to this share, each on its own.
    """

    crop: tuple[Side, Side] | None = None
    scale: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]] = (1.0, 1.0)
    flip: bool = True
    jitter: Fraction = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the smaller factor comes first")
        return self

    def crop_at(self, resolution: Size) -> Size:
        return Size(*self.crop) if self.crop else resolution


class Stage(Part):
    """One phase with its own length, loss resolution and schedule; the optimiser starts afresh in each.

    Exactly one of `steps` and `epochs` is given; an epoch is as many pictures as the training split has. BatchNorm
    behind a pooling to 1x1 needs at least two pictures in a batch.
    """

    loss_at: Literal["eighth", "full"]
    batch: Annotated[int, Field(ge=2, le=4096)]
    steps: Annotated[int, Field(ge=1, le=10**8)] | None = None
    epochs: Annotated[int, Field(ge=1, le=10**6)] | None = None
    loss: Annotated[Ohem | CrossEntropy, Field(discriminator="type")]
    optimiser: Optimiser
    schedule: Schedule
    augmentation: Augmentation = Augmentation()
    clip_norm: Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("steps: give either steps or epochs")
        return self

    @model_validator(mode="after")
    def _falling(self) -> Stage:
        check_schedule(self.schedule, self.optimiser.lr)
        return self

    def length(self, pictures: int) -> int:
        """Its number of steps, for a training split of so many pictures."""
        if self.steps is not None:
            return self.steps
        return -(-(self.epochs or 1) * pictures // self.batch)


class Distillation(Part):
    """Kullback-Leibler divergence between a student and its teacher (FasterSeg, Eq. 4), where a run has a teacher.

    `direction` "student||teacher" is Eq. 4 as printed. FasterSeg's release has "teacher||student", as most
    distillation has: the divergence from what the teacher says.

    `mean` over "pixels" is the expectation of Eq. 4. The release takes PyTorch's default, over "elements", which
    divides by the number of classes too: with 19 of them it is 19 times weaker.
    """

    weight: Positive = 1.0
    temperature: Positive = 1.0
    mean: Literal["pixels", "elements"] = "pixels"
    direction: Literal["student||teacher", "teacher||student"] = "student||teacher"


class Recipe(Part):
    """A whole training.

    Attributes:
        stored: samples are cached at this multiple of the run's resolution; `scale` is relative to that.
        validate_every: steps between two validations and checkpoints; the end of a stage has one in any case.
        validation_pictures: of the validation split, so many are used; all if left out.
        ema_decay: of the running mean of the weights that is validated and kept; none if left out.
        amp: "bf16" computes convolutions in bfloat16.
        auxiliary_weight: of the loss of each auxiliary head.
        distillation: used where the run has a teacher.
    """

    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]
    stored: Annotated[int, Field(ge=1, le=4)] = 1
    validate_every: Annotated[int, Field(ge=1)] = 1000
    validation_pictures: Annotated[int, Field(ge=1)] | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    amp: Literal["none", "bf16"] = "none"
    channels_last: bool = False
    auxiliary_weight: Annotated[float, Field(ge=0, le=10)] = 0.2
    distillation: Distillation = Distillation()

    def to_tree(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return self.model_dump(mode="json")


def presets() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name: str) -> Recipe:
    """A shipped recipe; raises `UsageError` with the nearest names where there is none of that name."""
    if name not in presets():
        raise unknown_name("preset", name, presets(), where="--preset")
    return load_recipe(PRESETS / f"{name}.toml")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        InputFileError: not TOML, or not a recipe; the field is named, with what is allowed.
    """
    return parse_recipe(read_toml(path), where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A recipe file as plain values; raises `InputFileError` where it is no TOML."""
    data = read_bytes(path, limit_bytes=_MAX_BYTES, what="recipe")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputFileError("not a TOML file", where=str(path), got=str(error), fix="correct the syntax") from None


def parse_recipe(tree: dict[str, Any], *, where: str) -> Recipe:
    """Validate a recipe as plain values; see `load_recipe`."""
    return validated(Recipe, _with_common(tree, where), where=where, names=_field_names())


def validated(model: type[Model], tree: dict[str, Any], *, where: str, names: Sequence[str]) -> Model:
    """A recipe of some kind as plain values, checked.

    Args:
        names: of all fields, for the message about one that is unknown.

    Raises:
        InputFileError: the field is named, with what is allowed.
    """
    try:
        text = json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError):
        raise InputFileError("a value is neither text, number nor boolean", where=where, fix="delete it") from None
    try:
        # In JSON mode a strict tuple takes an array, and nothing else loosens.
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _refusal(error, where, names) from None


def _with_common(tree: dict[str, Any], where: str) -> dict[str, Any]:
    common, stages = tree.get("common", {}), tree.get("stages")
    if not isinstance(common, dict):
        raise InputFileError("wrong value", where=f"{where}: common", allowed="a table of fields of a stage")
    rest = {key: value for key, value in tree.items() if key != "common"}
    if isinstance(stages, list):
        rest["stages"] = [common | stage if isinstance(stage, dict) else stage for stage in stages]
    return rest


def _refusal(error: ValidationError, where: str, names: Sequence[str]) -> InputFileError:
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    place = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        fix = f"did you mean {' or '.join(close)}?" if close else "delete it"
        return InputFileError("unknown field", where=place, fix=fix)
    if first["type"] == "missing":
        return InputFileError("missing field", where=place, fix="add it")
    message = first["msg"].removeprefix("Value error, ")
    return InputFileError("wrong value", where=place, got=first["input"], allowed=message[:1].lower() + message[1:])


def _field_names() -> list[str]:
    models: tuple[type[BaseModel], ...] = (
        Recipe,
        Stage,
        Augmentation,
        Optimiser,
        Ohem,
        Poly,
        Exponential,
        Cosine,
        Distillation,
    )
    return sorted({name for model in models for name in model.model_fields} | {"common"})


def check_crops(recipe: Recipe, resolution: Size) -> None:
    """Raise `UsageError` where a stage cuts out more than the largest sample can ever fill."""
    for index, stage in enumerate(recipe.stages):
        crop, largest = stage.augmentation.crop_at(resolution), stage.augmentation.scale[1] * recipe.stored
        limit = Size(round(resolution.height * largest), round(resolution.width * largest))
        if crop.height > limit.height or crop.width > limit.width:
            raise UsageError(
                f"the crop of stage {index + 1} is larger than its pictures",
                where="--resolution",
                got=str(crop),
                allowed=f"at most {limit} at {resolution}",
                fix="raise the resolution, or take a recipe without a fixed crop",
            )
