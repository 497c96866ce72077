"""What stands in for pydantic where `make gpu` finds none and may install nothing: it reads the shipped genotypes.

Those were validated when they were written, and their digests are tested against pydantic's. Types, missing and unknown
fields, literals and `model_validator` are checked; limits such as `Field(ge=1)` are not, so it is put on the path by
`bench.gpu_run` alone, and only if pydantic is missing.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from . import config as config

ConfigDict = dict
_MISSING = object()


class ValidationError(ValueError):
    """A value does not fit; `errors` says one thing that is wrong, as pydantic would."""

    def __init__(self, message: str, loc: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self._loc = loc

    def errors(self, **_: Any) -> list[dict[str, Any]]:
        return [{"type": "value_error", "loc": self._loc, "msg": str(self), "input": None}]


class FieldInfo:
    """What `Field` was told, as far as it matters here."""

    def __init__(self, default: Any, alias: str | None) -> None:
        self.default, self.alias = default, alias


def Field(default: Any = _MISSING, *, alias: str | None = None, **_: Any) -> Any:  # noqa: N802
    """Limits and descriptions are dropped."""
    return FieldInfo(default, alias)


class BeforeValidator:
    """Kept so that annotations can hold it; not called."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function


def model_validator(*, mode: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a method that is called once all fields are set; `mode` is always `after` here."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        vars(function)["validates"] = mode
        return function

    return mark


class BaseModel:
    """Frozen fields by annotation, to and from plain JSON values."""

    model_config: typing.ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        fields = dict(_fields(type(self)))
        aliases = {info.alias or name: name for name, (_, info) in fields.items()}
        given = {aliases.get(key, key): value for key, value in values.items()}
        for name in given:
            if name not in fields:
                raise ValidationError(f"unknown field {name}", (name,))
        for name, (kind, info) in fields.items():
            value = given.get(name, info.default)
            if value is _MISSING:
                raise ValidationError(f"missing field {name}", (name,))
            self.__dict__[name] = _converted(kind, value, name)
        for member in list(vars(type(self)).values()):
            if getattr(member, "validates", None):
                member(self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    @classmethod
    def model_validate(cls, tree: Any) -> Any:
        """Plain values, or an instance as it is."""
        return _converted(cls, tree, cls.__name__)

    @classmethod
    def model_validate_json(cls, data: str | bytes) -> Any:
        """`model_validate` of JSON."""
        return cls.model_validate(json.loads(data))

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Only asked for where a file is wrong."""
        return {"title": cls.__name__}

    def model_dump(self, *, mode: str = "json", by_alias: bool = False, exclude: Any = ()) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        fields = dict(_fields(type(self)))
        return {
            (info.alias if by_alias and info.alias else name): _plain(self.__dict__[name], by_alias)
            for name, (_, info) in fields.items()
            if name not in exclude
        }


def _fields(model: type) -> Iterator[tuple[str, tuple[Any, FieldInfo]]]:
    """Base classes first; a field that a subclass states again keeps its place."""
    hints = typing.get_type_hints(model, include_extras=True)
    names = dict.fromkeys(name for base in reversed(model.__mro__) for name in vars(base).get("__annotations__", {}))
    for name in names:
        if typing.get_origin(hints[name]) is not typing.ClassVar:
            default = getattr(model, name, _MISSING)
            yield name, (hints[name], default if isinstance(default, FieldInfo) else FieldInfo(default, None))


def _converted(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _converted(inner[0], value, where)
    if origin is typing.Literal:
        if not any(type(value) is type(one) and value == one for one in inner):
            raise ValidationError(f"{where}: {value!r} is none of {inner}", (where,))
        return value
    if origin in (types.UnionType, typing.Union):
        return _either(inner, value, where)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return tuple(_converted(one, item, where) for one, item in zip(kinds, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return value if isinstance(value, kind) else kind(**value)
    if origin is None and type(value) is not kind:
        raise ValidationError(f"{where}: {value!r} is no {kind.__name__}", (where,))
    return value


def _either(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first that fits."""
    for kind in kinds:
        if value is None and kind is type(None):
            return None
        try:
            return _converted(kind, value, where)
        except (ValidationError, TypeError):
            continue
    raise ValidationError(f"{where}: {value!r} fits nothing that is allowed", (where,))


def _plain(value: Any, by_alias: bool) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=by_alias)
    return [_plain(item, by_alias) for item in value] if isinstance(value, tuple) else value
