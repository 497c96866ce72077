"""Triton: a model folder for its repository. Not run here.

`NAME/config.pbtxt` and `NAME/labels.txt`; the model goes into the version folder `NAME/1`, which the copy makes. With
TensorRT engines the configuration names one a compute capability and they are what is copied; without, it runs the
ONNX model in ONNX Runtime. An engine needs the very TensorRT version of the container.

`labels.txt` is for clients. It is not tied to the output by `label_filename`: that is for outputs that hold one score a
class, and a label map does not.
"""

from __future__ import annotations

from ..contracts import CONTRACTS, TensorSpec
from . import Stack, Subject
from ._names import class_names, identifier, lines
from ._text_proto import Enum, Message

_TYPES = {"uint8": "TYPE_UINT8", "float16": "TYPE_FP16", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}


class TritonStack(Stack):
    """`NAME/config.pbtxt`, `NAME/labels.txt`; add `NAME/1/` with the model or the engines."""

    name = "triton"
    contracts = ("triton", *(name for name in CONTRACTS.names() if name != "triton"))
    half = True

    def texts(self, subject: Subject) -> dict[str, str]:
        folder = identifier(subject.name)
        comment = [f"{subject.precision}, {subject.size}. Batch 1 is one of the dimensions, so max_batch_size is 0."]
        return {
            f"{folder}/config.pbtxt": _config(subject, folder).text(comment=comment),
            f"{folder}/labels.txt": lines(class_names(subject)),
        }


def _config(subject: Subject, name: str) -> Message:
    zeros = Message([*_tensor(subject.input).fields[1:], ("zero_data", True)])
    warm_up = Message([("key", subject.input.name), ("value", zeros)])
    return Message(
        [
            ("name", name),
            *_runtime(subject),
            ("max_batch_size", 0),
            ("input", _tensor(subject.input)),
            ("output", _tensor(subject.output)),
            ("model_warmup", Message([("name", "zeros"), ("batch_size", 1), ("inputs", warm_up)])),
        ]
    )


def _runtime(subject: Subject) -> list[tuple[str, str | Message]]:
    """Which backend runs which file, and on what."""
    if not subject.engines:
        group = Message([("kind", Enum("KIND_AUTO")), ("count", 1)])
        return [
            ("backend", "onnxruntime"),
            ("default_model_filename", subject.model_file),
            ("instance_group", group),
        ]
    engines = [
        ("cc_model_filenames", Message([("key", _capability(target)), ("value", file)]))
        for target, file in sorted(subject.engines.items())
    ]
    group = Message([("kind", Enum("KIND_GPU")), ("count", 1)])
    return [("platform", "tensorrt_plan"), *engines, ("instance_group", group)]


def _capability(target: str) -> str:
    """`sm75` as `7.5`, `sm120` as `12.0`."""
    digits = target.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}"


def _tensor(spec: TensorSpec) -> Message:
    return Message([("name", spec.name), ("data_type", Enum(_TYPES[spec.dtype])), ("dims", spec.shape)])


STACK = TritonStack()
