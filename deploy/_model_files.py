"""Facts of ONNX and safetensors files, read without running them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

_MAX_TEXT = 120
_MAX_TENSORS = 16
_MAX_JSON_BYTES = 16 << 20

# Fields of onnx.ModelProto and their wire types: 0 is a number, 2 is bytes with a length.
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH, _OPSET = 7, 8


@dataclass(frozen=True)
class ModelFacts:
    """What a file says: the version of its format, facts by name, remarks, and why it cannot be whole."""

    version: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    damage: str | None = None


def plain(text: object) -> str:
    """A stranger's text without characters that a terminal would act on; what was cut off is shown as `...`."""
    whole = str(text)
    cut = whole if len(whole) <= _MAX_TEXT else f"{whole[: _MAX_TEXT - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def looks_like_onnx(data: bytes, complete: bool) -> bool:
    """Whether the top level of a protobuf message is that of an ONNX model.

    Args:
        complete: whether `data` is the whole file; a prefix may end before the graph. Inside it may end either: a
            copy that was cut short is still known for what it was.
    """
    try:
        numbers = set(_fields(data))
    except ValueError:
        return False
    return 1 in numbers and (_GRAPH in numbers or not complete)


def _fields(data: bytes) -> Iterator[int]:
    """Numbers of the top-level fields; raises ValueError for what no ONNX model has."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if _MODEL_FIELDS.get(number) != wire:
            raise ValueError(f"field {number} of wire type {wire}")
        value, position = _varint(data, position)
        yield number
        if wire == 2:
            position += value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than ten bytes")


def onnx_facts(data: bytes, complete: bool) -> ModelFacts:
    """Version of the format, opset, producer, inputs and outputs of an ONNX model; nothing is checked or run."""
    if not complete:
        return ModelFacts(notes=("an ONNX model is read whole or not at all; this is its beginning",))
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(data)
        return _described(model)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        return ModelFacts(damage=plain(f"cut short or altered: {str(error).partition(chr(10))[0]}"))


def _described(model: onnx.ModelProto) -> ModelFacts:
    opsets = ", ".join(f"{plain(o.domain) or 'ai.onnx'} {o.version}" for o in model.opset_import[:_MAX_TENSORS])
    facts = {
        "ir_version": str(model.ir_version),
        "opset": opsets or "none",
        "producer": plain(f"{model.producer_name} {model.producer_version}".strip()) or "not named",
        "nodes": str(len(model.graph.node)),
    }
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialisers]
    for kind, values in (("input", inputs), ("output", list(model.graph.output))):
        facts |= {f"{kind} {plain(value.name)}": _tensor(value) for value in values[:_MAX_TENSORS]}
    facts |= {plain(entry.key): plain(entry.value) for entry in model.metadata_props[:64]}
    external = any(tensor.data_location == tensor.EXTERNAL for tensor in model.graph.initializer)
    notes = ("its weights are in another file: searchkit does not open such a model",) if external else ()
    return ModelFacts(version=f"IR {model.ir_version}", facts=facts, notes=notes)


def _tensor(value: onnx.ValueInfoProto) -> str:
    import onnx

    tensor = value.type.tensor_type
    known = onnx.TensorProto.DataType.DESCRIPTOR.values_by_number.get(tensor.elem_type)
    # protobuf gives bytes where a name is no text.
    dims = "x".join(
        str(dim.dim_value) if dim.HasField("dim_value") else plain(dim.dim_param or "?") for dim in tensor.shape.dim
    )
    return plain(f"{known.name.lower() if known else f'type {tensor.elem_type}'} {dims or 'scalar'}")


def safetensors_facts(data: bytes, size: int) -> ModelFacts | None:
    """Tensors, parameters and metadata of a safetensors file; None for any other file."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or not 2 <= length <= min(size - 8, _MAX_JSON_BYTES):
        return None
    if len(data) < 8 + length:
        return ModelFacts(notes=("its list of tensors is longer than what was read",))
    tree = json_object(data[8 : 8 + length])
    if tree is None:
        return ModelFacts(damage="its list of tensors is not JSON")
    metadata = tree.pop("__metadata__", {})
    facts = {"tensors": str(len(tree))}
    if isinstance(metadata, dict):
        facts |= {plain(key): plain(value) for key, value in metadata.items()}
    ends = [entry["data_offsets"][1] for entry in tree.values() if _has_offsets(entry)]
    expected = 8 + length + max(ends, default=0)
    damage = None if len(ends) == len(tree) and expected == size else f"it says {expected} bytes and has {size}"
    return ModelFacts(facts=facts, damage=damage)


def json_object(text: bytes) -> dict[str, Any] | None:
    """A JSON object for display; None for anything else. Looser than `strict_json`: others write these files."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _has_offsets(entry: object) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(type(value) is int for value in offsets)
