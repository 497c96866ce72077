"""`searchkit export`: a network in, a verified bundle out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchkit import __version__, strict_json
from searchkit.errors import DamagedArtifactError, VerificationError
from searchkit.label_sets import MAX_CLASSES, LabelSet, generic_labels
from searchkit.normalization import MEAN, STD

from .backends import Engine
from .backends.onnxruntime import BACKEND as ONNXRUNTIME
from .bundle import replace_bundle
from .bundle_readme import readme
from .contracts import TensorSpec
from .deployable import Deployable
from .engine_order import EngineOrder
from .engine_record import EngineRecord, engine_files
from .golden import FILE as GOLDEN
from .golden import make_golden
from .letterbox import ResizeRule
from .lowering.record import FILE as LOWERING
from .onnx_gate import Interface, check_onnx
from .planner import RUNTIMES, check_export
from .stacks import STACKS, Subject, readers
from .verify import Report, verify

#: Called with what is being done.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        report: the comparison with PyTorch.
        engines: those in the bundle.
        refusals: target to what its runtimes refuse of the model, as far as it is known; empty lists where nothing is.
    """

    report: Report
    engines: tuple[Engine, ...]
    refusals: dict[str, list[str]]


def export(
    model: Deployable,
    folder: Path,
    *,
    resize: ResizeRule | None = None,
    engines: Sequence[EngineOrder] = (),
    targets: Sequence[str] = (),
    tell: Tell = lambda _: None,
) -> Exported:
    """Export, verify, compile and write the bundle; nothing is left under `folder` unless all of it succeeds.

    Args:
        resize: how pictures of other sizes are to be fitted; stretched if None.
        engines: what to compile the model to, one a backend.
        targets: GPUs, as `planner.plan` takes them, to ask what they would refuse.
        tell: told what is being done.

    Raises:
        VerificationError: the exported model is not the same function as the PyTorch network, or a compiler refuses it.
        BackendUnavailableError: ONNX Runtime, which verifies, or a compiler is not installed.
        UsageError, StorageError: see `write_bundle`.
    """
    ONNXRUNTIME.require("cpu")
    with replace_bundle(folder) as write:
        model_bytes = model.onnx
        interface = _gated(model)
        tell("verifying against PyTorch")
        report = verify(model, model_bytes)
        if not report.passed:
            raise VerificationError(
                f"verification failed: {'; '.join(report.problems)}",
                where=model.network.name,
                fix="no model was written",
            )
        refusals = {target: _refusals(target, model, engines, tell) for target in targets}
        built = [_built(order, model, tell) for order in engines]
        write(_files(model, interface, report, resize or ResizeRule(), built))
    return Exported(report, tuple(built), refusals)


def _gated(model: Deployable) -> Interface:
    """What a reader of the bundle would refuse is never written."""
    try:
        return check_onnx(model.onnx, where="model.onnx", written_here=True)
    except DamagedArtifactError as error:
        raise VerificationError(
            f"this network's model could not be opened again: {error.problem}",
            where=f"{model.network.name}: {error.where}",
            got=error.got,
            allowed=error.allowed,
            fix="no model was written; replace this part of the network",
        ) from None


def _refusals(target: str, model: Deployable, engines: Sequence[EngineOrder], tell: Tell) -> list[str]:
    """What stands against the model on a target, for the runtimes that engines are built with, or the recommended."""
    compilers = [order.compiler.name.replace("-", "_") for order in engines]
    runtimes: list[str | None] = [name for name in compilers if name in RUNTIMES]
    found = [
        problem
        for runtime in runtimes or [None]
        for problem in check_export(target, model.io, model.precision, model.onnx, runtime=runtime)
    ]
    for problem in found:
        tell(f"warning: {problem}")
    return found


def _built(order: EngineOrder, model: Deployable, tell: Tell) -> Engine:
    tell(f"building an engine with {order.compiler.name} for {', '.join(order.targets)}")
    return order.compiler.build(model, order.targets)


def _files(
    model: Deployable, interface: Interface, report: Report, resize: ResizeRule, engines: Sequence[Engine]
) -> dict[str, bytes]:
    contract = contract_tree(model, interface, resize)
    labels = _labels(model.network.classes)
    compiled, records = engine_files(engines, model.onnx_sha256)
    stacks = _stack_files(model, interface, labels, records)
    names = sorted({name.split("/")[1] for name in stacks})
    files = {
        "model.onnx": model.onnx,
        "network.json": model.network.to_json().encode(),
        "weights.safetensors": _weights(model),
        "contract.json": _json(contract),
        "verification.json": _json(report.to_tree()),
        GOLDEN: make_golden(model).to_bytes(),
        "labels.txt": "".join(f"{name}\n" for name in contract["classes"]).encode(),
        "palette.csv": _palette(labels),
        "README.md": readme(contract, interface.opset, __version__, records, names, model.lowering_record),
        **compiled,
        **stacks,
    }
    if model.precision_record is not None:
        files["precision.json"] = _json(model.precision_record)
    if model.lowering_record is not None:
        files[LOWERING] = _json(model.lowering_record)
    return files


def _weights(model: Deployable) -> bytes:
    """The network's weights as a file that `--weights` takes."""
    from safetensors.torch import save

    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.built.state_dict().items()
    }
    # One entry: safetensors writes several in any order.
    return bytes(save(tensors, metadata={"digest": model.network.digest}))


def _labels(classes: int) -> LabelSet:
    """Names of all classes, colours of as many as a label map of bytes can tell apart."""
    known = generic_labels(min(classes, MAX_CLASSES))
    names = (*known.names, *(f"class {label}" for label in range(MAX_CLASSES, classes)))
    return replace(known, names=names)


def _palette(labels: LabelSet) -> bytes:
    rows = ["id,name,r,g,b"]
    for index, (red, green, blue) in enumerate(labels.palette):
        rows.append(f"{index},{labels.names[index]},{red},{green},{blue}")
    return "".join(f"{row}\n" for row in rows).encode()


def _stack_files(
    model: Deployable, interface: Interface, labels: LabelSet, records: Sequence[EngineRecord]
) -> dict[str, bytes]:
    """What each stack that can read the contract needs beside the model."""
    found = [record for record in records if record.backend == "tensorrt"]
    subject = Subject(
        name=model.network.name,
        io=model.io,
        size=model.size,
        input=model.contract.input_spec(model.size),
        output=_output(model, interface),
        labels=labels,
        precision=model.precision,
        mean=MEAN,
        std=STD,
        engines={target: Path(record.file).name for record in found for target in record.targets},
    )
    return {
        f"stacks/{stack}/{path}": data
        for stack in readers(model.io)
        for path, data in STACKS.load(stack).files(subject).items()
    }


def _output(model: Deployable, interface: Interface) -> TensorSpec:
    """The output with the shape that the model has: the contract may leave it to the network."""
    return replace(model.contract.output_spec(model.size, model.network.classes), shape=interface.output.shape)


def contract_tree(model: Deployable, interface: Interface, resize: ResizeRule) -> dict[str, Any]:
    """What a consumer must know to feed the model and to read its answer."""
    labels = _labels(model.network.classes)
    return {
        "schema": 2,
        "network": {"name": model.network.name, "digest": model.network.digest},
        "io": model.io,
        "precision": model.precision,
        "input": model.contract.input_spec(model.size).to_tree(),
        "output": _output(model, interface).to_tree(),
        "resolution": {"height_px": model.size.height, "width_px": model.size.width},
        "resize": resize.to_tree(),
        "normalisation": {
            "mean": list(MEAN),
            "std": list(STD),
            "of": "RGB scaled to [0, 1]",
            "in_model": model.contract.normalisation_in_graph,
        },
        "weights": {
            "trained": model.weights.trained,
            "text": model.weights.text,
            "sha256": model.weights.sha256,
        },
        "classes": list(labels.names),
        "palette": [list(colour) for colour in labels.palette],
        "ignore": labels.ignore,
    }


def _json(tree: Mapping[str, Any]) -> bytes:
    """As people read it; and never what a reader of the bundle would refuse."""
    data = (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode()
    strict_json.loads(data, where="bundle")
    return data
