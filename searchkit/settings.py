"""Settings of a plug-in as plain values, such as a table of a TOML file, checked against its pydantic model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import UsageError, nearest

Model = TypeVar("Model", bound=BaseModel)


def parse_settings(model: type[Model], values: Mapping[str, Any], *, what: str) -> Model:
    """A model out of plain values; what is left out takes its default.

    Args:
        what: where the values stand, for messages.

    Raises:
        UsageError: naming the first field that is refused, and what is allowed.
    """
    try:
        # In JSON mode a strict tuple takes an array, and nothing else loosens.
        return model.model_validate_json(json.dumps(dict(values), allow_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([what, *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            names = sorted(model.model_fields)
            close = nearest(str(first["loc"][-1]), names)
            raise UsageError("unknown setting", where=where, allowed=", ".join(close) or "none") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            "wrong setting", where=where, got=first["input"], allowed=message[:1].lower() + message[1:]
        ) from None
    except (TypeError, ValueError):
        raise UsageError("a value is neither text, number nor boolean", where=what) from None
