"""Pydantic's complaints about a genotype, said for the person who wrote the file.

A message names the place as the file has it, what stands there, and what may stand there. All three come from the JSON
Schema of the space, so that a new field or a new space is explained without a word being written for it.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from .errors import InputFileError
from .strict_json import Spelling, member, place

Schema = dict[str, Any]

_SEE = "see `searchkit schema`"


def input_error(error: ValidationError, schema: Schema, where: str) -> InputFileError:
    """The complaint that explains the most; how many others there are is said.

    Args:
        error: from validating a genotype.
        schema: the JSON Schema of its space.
        where: the file.
    """
    details = error.errors(include_url=False)
    # A misspelt field is missing as well as unknown, and the unknown name is what a person can find in the file.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    found = _explained(first["type"], first, schema, where)
    if len(details) > 1:
        found.problem += f", the first of {len(details)} problems"
    return found


def _explained(kind: str, detail: Any, schema: Schema, where: str) -> InputFileError:
    loc, given = detail["loc"], detail["input"]
    path, node = _locate(schema, loc)
    here = place(where, path)
    if kind == "extra_forbidden":
        return _unknown_field(str(loc[-1]), _locate(schema, loc[:-1])[1], here)
    if kind == "missing" and isinstance(loc[-1], int):
        path, node = _locate(schema, loc[:-1])
        return _wrong(place(where, path), Spelling(_items(len(given))), _allowed(node, schema))
    if kind == "missing":
        return InputFileError("missing field", where=here, allowed=_allowed(node, schema), fix=f"add it; {_SEE}")
    if kind in ("too_long", "too_short"):
        return _wrong(here, Spelling(_items(len(given))), _allowed(node, schema))
    if kind.startswith("union_tag") and isinstance(given, dict):
        return _wrong_tag(given, node, place(where, member(path, _tag(node))))
    if kind == "value_error":
        return InputFileError(detail["msg"].removeprefix("Value error, "), where=here)
    return _wrong(here, Spelling.of(given), _allowed(node, schema))


def _wrong(where: str, got: Spelling, allowed: str) -> InputFileError:
    return InputFileError("wrong value", where=where, got=got, allowed=allowed, fix=f"correct the field; {_SEE}")


def _unknown_field(name: str, parent: Schema, where: str) -> InputFileError:
    known = sorted(parent.get("properties", {}))
    close = [key for key in known if name and (key.startswith(name) or name.startswith(key))]
    close = close or difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean {close[0]}?" if close else "delete it"
    return InputFileError("unknown field", where=where, got=Spelling.of(name), allowed=", ".join(known), fix=fix)


def _tag(node: Schema) -> str:
    name: str = node["discriminator"]["propertyName"]
    return name


def _wrong_tag(given: Schema, node: Schema, where: str) -> InputFileError:
    """An object that can be of several types says none, or one that there is not."""
    allowed = _or(f'"{tag}"' for tag in node["discriminator"]["mapping"])
    if _tag(node) not in given:
        return InputFileError("missing field", where=where, allowed=allowed, fix=f"say which it is; {_SEE}")
    return _wrong(where, Spelling.of(given[_tag(node)]), allowed)


def _locate(schema: Schema, loc: tuple[int | str, ...]) -> tuple[str, Schema]:
    """A pydantic location as `stages[1].layers[3].dilation`, and the schema of what belongs there.

    Pydantic puts the tag of a union into the location although the file has no such level; the schema tells tags from
    fields.
    """
    node, path = schema, ""
    for part in loc:
        tags = node.get("discriminator", {}).get("mapping", {})
        if isinstance(part, int):
            path += f"[{part}]"
            fixed = node.get("prefixItems", [])
            node = fixed[part] if part < len(fixed) else node.get("items") or {}
        elif part in tags:
            node = {"$ref": tags[part]}
        else:
            path = member(path, part)
            node = node.get("properties", {}).get(part, {})
        node = _resolved(node, schema)
    return path, node


def _resolved(node: Schema, schema: Schema) -> Schema:
    reference = node.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[1]] if reference else node


def _allowed(node: Schema, schema: Schema) -> str:
    """What a schema accepts, in words."""
    node = _resolved(node, schema)
    if "discriminator" in node:
        return f"an object whose `{_tag(node)}` is {_or(node['discriminator']['mapping'])}"
    if "anyOf" in node:
        return _or(_allowed(choice, schema) for choice in node["anyOf"])
    values = node.get("enum", [node["const"]] if "const" in node else [])
    if values:
        return _or(Spelling.of(value) for value in values)
    return _allowed_of_type(node)


def _allowed_of_type(node: Schema) -> str:
    match node.get("type"):
        case "integer":
            return _range("an integer", node.get("minimum"), node.get("maximum"))
        case "boolean":
            return "true or false"
        case "string":
            return str(node.get("$comment", "text"))
        case "array":
            return "an array of " + _count(node.get("minItems", 0), node.get("maxItems"))
        case "object":
            return "an object with " + ", ".join(node.get("properties", {}))
        case other:
            return str(other)


def _range(noun: str, low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    return f"{noun} of at least {low}" if low is not None else noun


def _count(low: int, high: int | None) -> str:
    if high is None:
        return f"at least {_items(low)}"
    if low == high:
        return f"exactly {_items(high)}"
    return f"{low} to {_items(high)}" if low else f"at most {_items(high)}"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _or(words: Any) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else str(last)
