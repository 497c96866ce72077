"""What an ONNX file must be before a runtime sees a byte of it.

ONNX's own checker lets external data, other domains, control flow and sizes of 2^80 elements through, and runtimes have
opened files outside the model's folder. What is opened here is a closed subset: one self-contained graph of the
operators that searchkit's exporter writes, from one input of a static shape to one output, each tensor of a stated and
bounded size with exactly the bytes that this size needs.

The cost of looking is bounded too: what is not weights is measured on the wire before anything is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchkit.errors import DamagedArtifactError, InputFileError, SearchkitError, shown

from .protobuf_wire import fields

if TYPE_CHECKING:
    import onnx

MAX_MODEL_BYTES = 2**31 - 1  # what protobuf itself can hold
MAX_STRUCTURE_BYTES = 2 * 2**20  # all that is not weights; decoding takes up to 100 times that. Networks here: 0.1 MiB
MAX_FIELDS = 100_000
MAX_NODES = 4096
MAX_INITIALIZERS = 8192
MAX_WEIGHTS = 5 * 10**8
MAX_ELEMENTS = 2**30  # of one activation: 4 GiB as float32
MAX_DIMENSIONS = 8
MAX_ATTRIBUTE_VALUES = 64
MAX_INTEGER = 2**31
MAX_NAME = 1024  # characters
MAX_INTEGERS = 1024  # in one tensor of them
OPSETS = range(13, 22)
IR_VERSIONS = range(7, 12)

#: Every operator in an export of any network here, under any contract and precision; a test collects them again.
EXPORTED = frozenset(
    {
        "Add",
        "ArgMax",
        "AveragePool",
        "Cast",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "DequantizeLinear",
        "Equal",
        "MaxPool",
        "Mul",
        "PRelu",
        "QuantizeLinear",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)
#: One value in, one value out: what networks that are added may use instead of Relu, and as harmless.
ELEMENTWISE = frozenset({"Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh"})
OPERATORS = EXPORTED | ELEMENTWISE

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
# onnx.TensorProto: data type -> numpy name and bytes an element.
_TYPES = {
    1: ("float32", 4),
    2: ("uint8", 1),
    3: ("int8", 1),
    6: ("int32", 4),
    7: ("int64", 8),
    9: ("bool", 1),
    10: ("float16", 2),
}
_INT64 = 7
_EXPORT_AGAIN = "use a model that `searchkit export` wrote"


@dataclass(frozen=True)
class Tensor:
    """The model's input or output: name, numpy dtype, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """What a model that passed takes and gives."""

    input: Tensor
    output: Tensor
    opset: int


def check_onnx(data: bytes, *, where: str, written_here: bool) -> Interface:
    """Look at a serialised ONNX model before any runtime does.

    Args:
        where: the file, for messages.
        written_here: whether searchkit wrote it, as the model of a bundle: what is wrong with it is then damage.

    Raises:
        DamagedArtifactError: it is not such a model, and was written here.
        InputFileError: it is not such a model, and came from somewhere else.
    """
    import onnx
    from google.protobuf.message import DecodeError

    with _refusals(where, written_here):
        _check_size(data)
        try:
            model = onnx.ModelProto.FromString(data)
        except (DecodeError, UnicodeDecodeError) as error:
            raise _refused("not an ONNX model", got=str(error)) from None
        opset = _check_model(model)
        _check_graph(model.graph)
        return _check_shapes(model, opset)


@contextmanager
def _refusals(where: str, written_here: bool) -> Iterator[None]:
    """The place in front, and damage where it is that."""
    try:
        yield
    except InputFileError as error:
        raise _placed(error, where, written_here) from None


def _placed(error: InputFileError, where: str, written_here: bool) -> SearchkitError:
    kind = DamagedArtifactError if written_here else InputFileError
    place = f"{where}: {error.where}" if error.where else where
    return kind(error.problem, where=place, got=error.got, allowed=error.allowed, fix=error.fix)


def _refused(
    problem: str, *, where: str | None = None, got: object = None, allowed: str | None = None
) -> InputFileError:
    return InputFileError(problem, where=where, got=got, allowed=allowed, fix=_EXPORT_AGAIN)


def _require(condition: bool, problem: str, *, where: str = "", got: object = None, allowed: str = "") -> None:
    if not condition:
        raise _refused(problem, where=where or None, got=got, allowed=allowed or None)


def _at_most(count: int, most: int, what: str, *, where: str = "") -> None:
    _require(count <= most, f"too many {what}", where=where, got=count, allowed=f"at most {most}")


def _check_size(data: bytes) -> None:
    """The file, and what of it is not weights, without decoding it."""
    _require(bool(data), "file is empty")
    _at_most(len(data), MAX_MODEL_BYTES, "bytes")
    structure = len(data)
    count = 0
    try:
        for outer in fields(data):
            count += 1
            _at_most(count, MAX_FIELDS, "fields")
            if outer.number != _MODEL_GRAPH or not outer.is_bytes:
                continue
            for inner in fields(data, outer.start, outer.end):
                count += 1
                _at_most(count, MAX_FIELDS, "fields")
                if inner.number == _GRAPH_INITIALIZER and inner.is_bytes:
                    parts = list(_tensor_fields(data, inner.start, inner.end))
                    count += len(parts)
                    structure -= sum(parts)
    except ValueError as error:
        raise _refused("not an ONNX model", got=str(error)) from None
    _at_most(structure, MAX_STRUCTURE_BYTES, "bytes that are not weights")


def _tensor_fields(data: bytes, start: int, end: int) -> Iterator[int]:
    """A tensor's fields as the number of bytes of weights in each."""
    for count, part in enumerate(fields(data, start, end)):
        _at_most(count, MAX_ATTRIBUTE_VALUES, "fields of a tensor")
        yield part.end - part.start if part.number == _TENSOR_RAW_DATA and part.is_bytes else 0


def _check_model(model: onnx.ModelProto) -> int:
    """All but the graph; returns the opset."""
    _require(model.ir_version in IR_VERSIONS, "unknown IR version", got=model.ir_version, allowed=_span(IR_VERSIONS))
    _require(not model.functions, "holds functions")
    _require(not model.training_info, "holds training information")
    _at_most(len(model.metadata_props), MAX_ATTRIBUTE_VALUES, "metadata entries")
    imports = [(entry.domain, entry.version) for entry in model.opset_import]
    _require(
        len(imports) == 1 and imports[0][0] == "",
        "not of the standard operator set alone",
        where="opset_import",
        got=imports,
    )
    opset = imports[0][1]
    _require(opset in OPSETS, "opset out of range", where="opset_import", got=opset, allowed=_span(OPSETS))
    return int(opset)


def _span(numbers: range) -> str:
    return f"{numbers.start} to {numbers.stop - 1}"


def _check_graph(graph: onnx.GraphProto) -> None:
    """Operators, attributes, names and weights."""
    _require(not graph.sparse_initializer, "holds sparse weights", where="graph")
    _require(not graph.quantization_annotation, "holds quantisation annotations", where="graph")
    _require(0 < len(graph.node) <= MAX_NODES, "number of nodes", got=len(graph.node), allowed=f"1 to {MAX_NODES}")
    _at_most(len(graph.initializer), MAX_INITIALIZERS, "weights", where="graph")
    for kind in ("input", "output"):
        count = len(getattr(graph, kind))
        _require(count == 1, f"not one {kind}", where="graph", got=count, allowed="1")
    known = {graph.input[0].name}
    total = 0
    for tensor in graph.initializer:
        _define(tensor.name, known, "weights")
        total += _check_weights(tensor)
    _at_most(total, MAX_WEIGHTS, "weights", where="graph")
    for index, node in enumerate(graph.node):
        _check_node(node, known, f"node {index}")
    _require(graph.output[0].name in known, "the output is never computed", where=_word(graph.output[0].name))


def _define(name: str, known: set[str], what: str) -> None:
    _require(bool(name), f"{what} without a name")
    # Protobuf gives bytes for what is no UTF-8.
    is_text = isinstance(name, str) and name.isprintable() and len(name) <= MAX_NAME
    _require(is_text, "a name that is no text", where=what, got=name)
    _require(name not in known, "a name that is taken", where=what, got=name)
    known.add(name)


def _check_weights(tensor: onnx.TensorProto) -> int:
    """One initialiser; returns how many elements it has."""
    where = _word(tensor.name)
    outside = bool(tensor.external_data) or tensor.data_location != 0
    _require(not outside, "weights in another file", where=where, allowed="weights inside the model")
    _require(not tensor.HasField("segment"), "weights in segments", where=where)
    _require(tensor.data_type in _TYPES, "weights of another type", where=where, got=tensor.data_type, allowed=_types())
    count = _elements(tensor.dims, where, MAX_WEIGHTS)
    if tensor.data_type == _INT64:
        # Shapes, axes and starts; working out shapes looks at each.
        _at_most(count, MAX_INTEGERS, "integers", where=where)
    needed = count * _TYPES[tensor.data_type][1]
    typed = sum(
        len(getattr(tensor, f"{kind}_data")) for kind in ("float", "int32", "int64", "string", "double", "uint64")
    )
    _require(typed == 0, "weights that are not raw bytes", where=where)
    _require(
        len(tensor.raw_data) == needed,
        "weights of another length than their shape",
        where=where,
        got=f"{len(tensor.raw_data)} bytes",
        allowed=f"{needed} bytes",
    )
    return count


def _word(name: str) -> str:
    """A name out of the file, for messages."""
    return shown(name)[1:-1]


def _types() -> str:
    return ", ".join(name for name, _ in _TYPES.values())


def _elements(dims: Iterable[int], where: str, most: int) -> int:
    shape = list(dims)
    _at_most(len(shape), MAX_DIMENSIONS, "dimensions", where=where)
    _require(all(0 <= side <= most for side in shape), "dimension out of range", where=where, got=shape)
    count = math.prod(shape)
    _at_most(count, most, "elements", where=where)
    return count


def _check_node(node: onnx.NodeProto, known: set[str], where: str) -> None:
    where = f"{where} ({_word(node.op_type)})"
    _require(node.domain == "", "operator of another domain", where=where, got=node.domain)
    _require(not node.overload, "operator with an overload", where=where, got=node.overload)
    _require(
        node.op_type in OPERATORS, "operator that is not allowed", where=where, allowed=", ".join(sorted(OPERATORS))
    )
    _at_most(len(node.input), MAX_INITIALIZERS, "inputs", where=where)
    for name in node.input:
        # An empty name stands for an input that is left out.
        _require(name == "" or name in known, "reads what was not computed before", where=where, got=name)
    _require(len(node.output) == 1, "not one output", where=where, got=len(node.output), allowed="1")
    _define(node.output[0], known, where)
    _at_most(len(node.attribute), MAX_ATTRIBUTE_VALUES, "attributes", where=where)
    for attribute in node.attribute:
        _check_attribute(attribute, f"{where}: {_word(attribute.name)}")


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    """Numbers and short texts; no tensor, and above all no graph."""
    _require(not attribute.ref_attr_name, "attribute that refers to a function's", where=where)
    plain = {"FLOAT": 1, "INT": 2, "STRING": 3, "FLOATS": 6, "INTS": 7}
    _require(attribute.type in plain.values(), "attribute of another type", where=where, allowed=", ".join(plain))
    held = [attribute.HasField(kind) for kind in ("t", "g", "sparse_tensor", "tp")]
    held += [bool(getattr(attribute, kind)) for kind in ("tensors", "graphs", "sparse_tensors", "type_protos")]
    _require(not any(held), "attribute that holds a tensor or a graph", where=where)
    for kind in ("ints", "floats", "strings"):
        _at_most(len(getattr(attribute, kind)), MAX_ATTRIBUTE_VALUES, "values", where=where)
    _at_most(len(attribute.s), 256, "bytes", where=where)
    for value in (attribute.i, *attribute.ints):
        _require(abs(value) <= MAX_INTEGER, "integer out of range", where=where, got=value, allowed="+-2^31")


def _check_shapes(model: onnx.ModelProto, opset: int) -> Interface:
    """Every activation's shape: stated by the graph, and worked out from its operators."""
    import onnx

    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        _tensor(value)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:
        # ONNX's own kinds of exception differ by release; each says why the graph makes no sense.
        reason = str(error).partition("\n")[0]
        raise _refused("shapes do not fit each other", where="graph", got=reason) from None
    values = {value.name: _tensor(value) for value in (*inferred.value_info, *inferred.output)}
    for node in graph.node:
        _require(node.output[0] in values, "tensor of unknown shape", where=_word(node.output[0]))
    return Interface(_tensor(inferred.input[0]), values[graph.output[0].name], opset)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    """A value with a type and a static, bounded shape."""
    where = _word(value.name)
    _require(value.type.HasField("tensor_type"), "not a tensor", where=where)
    stated = value.type.tensor_type
    _require(stated.elem_type in _TYPES, "tensor of another type", where=where, got=stated.elem_type, allowed=_types())
    _require(stated.HasField("shape"), "tensor of unknown shape", where=where)
    dims = list(stated.shape.dim)
    _at_most(len(dims), MAX_DIMENSIONS, "dimensions", where=where)
    _require(all(side.HasField("dim_value") for side in dims), "dynamic shape", where=where, allowed="numbers")
    shape = tuple(int(side.dim_value) for side in dims)
    _require(all(side >= 1 for side in shape), "dimension out of range", where=where, got=list(shape))
    _elements(shape, where, MAX_ELEMENTS)
    return Tensor(value.name, _TYPES[stated.elem_type][0], shape)
