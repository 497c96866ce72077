"""The one name of `pydantic.config` that is used."""

from typing import Any

JsonDict = dict[str, Any]
