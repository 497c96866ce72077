"""`searchkit export`: from a network to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import JsonOption, check_json, err, out, write_json
from .deploy_cli import progress

if TYPE_CHECKING:
    from deploy.deployable import Deployable
    from deploy.export import Exported
    from deploy.precision.calibration import Calibration

    from .data import Dataset
    from .networks import Network

NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="A genotype file, the folder of a bundle or a search, or a name from `searchkit networks`.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Trained weights (.safetensors), or `streets` for those that come with ssr and fasterseg; "
        "seeded ones if left out.",
    ),
]
Resolution = Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width of the input.")]
Io = Annotated[
    str,
    typer.Option(
        "--io",
        metavar="CONTRACT",
        help="raw: float NCHW to logits; labels: uint8 NHWC to a uint8 label map; logits: raw at full resolution; "
        "softmax, or one for a stack: deepstream, triton, isaac-ros, autoware, apollo.",
    ),
]
Precision = Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8: what the ONNX model computes in.")]
CalibrationData = Annotated[
    str | None,
    typer.Option("--calibration", metavar="NAME[:PATH]", help="Data set that int8 learns its ranges from."),
]
Method = Annotated[
    str | None,
    typer.Option("--calibration-method", help="minmax, percentile or entropy (the default)."),
]
Pictures = Annotated[
    int | None, typer.Option("--calibration-pictures", min=1, help="How many to learn ranges from; 64 if left out.")
]
Drop = Annotated[
    float | None,
    typer.Option(
        "--max-miou-drop",
        metavar="POINTS",
        help="Points of mIoU that the precision may cost; the most sensitive layers are kept higher until it holds.",
    ),
]
Rest = Annotated[
    str | None, typer.Option("--int8-rest", help="fp32 (the default) or fp16, for GPUs: what int8 leaves of the model.")
]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", metavar="BACKEND", help="Build an engine as well: tensorrt-rtx, ... May be repeated."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="A device to build for, and to ask what it refuses: sm75, rtx2080ti, ... May be repeated.",
    ),
]
LoweringNames = Annotated[
    str,
    typer.Option(
        "--lowering",
        metavar="NAME,...|auto|none",
        help="Rewrites of the graph, each the same function; `auto` keeps those that a measurement finds faster here.",
    ),
]
LoweringBackend = Annotated[
    str | None,
    typer.Option("--lowering-backend", metavar="NAME[:MODE]", help="What `auto` measures on; onnxruntime if left out."),
]
LoweringThreads = Annotated[
    int | None,
    typer.Option("--lowering-threads", min=1, max=1024, help="CPU threads of that; the backend's default if left out."),
]
Resize = Annotated[
    str, typer.Option("--resize", help="stretch or letterbox: how pictures of other sizes are to be fitted.")
]
ExportFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Bundle folder; NETWORK-CONTRACT-HxW if left out."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the weights where none are given.")]


def export(
    network: NetworkArgument,
    weights: Weights = None,
    resolution: Resolution = "512x1024",
    io: Io = "raw",
    precision: Precision = "fp32",
    calibration: CalibrationData = None,
    calibration_method: Method = None,
    calibration_pictures: Pictures = None,
    max_miou_drop: Drop = None,
    int8_rest: Rest = None,
    engine: Engines = None,
    target: Targets = None,
    lowering: LoweringNames = "none",
    lowering_backend: LoweringBackend = None,
    lowering_threads: LoweringThreads = None,
    resize: Resize = "stretch",
    output: ExportFolder = None,
    seed: Seed = 0,
    json: JsonOption = None,
) -> None:
    """Export a network to ONNX, verify it against PyTorch, and write a bundle."""
    from deploy.engine_order import known_targets, order_engines
    from deploy.letterbox import ResizeRule
    from deploy.lowering.choice import Lowering

    from .networks import resolve
    from .sizes import parse_size
    from .trained import find_weights

    # All that can be refused is refused before torch is imported.
    check_json(json)
    found, size = resolve(network), parse_size(resolution)
    _check_contract(io)
    rule = ResizeRule(resize)
    _check_precision(precision, calibration, calibration_method, calibration_pictures, max_miou_drop, int8_rest)
    orders = order_engines(engine or [], target or [])
    gpus = known_targets(target or [], orders)
    rewrites = Lowering.parse(lowering, lowering_backend, lowering_threads)
    found.check(size)
    file = find_weights(weights, found.name) if weights else None
    dataset = _dataset(calibration, found) if calibration else None
    folder = output or Path("-".join([found.name, io, str(size), *([] if precision == "fp32" else [precision])]))

    from deploy.deployable import Deployable
    from deploy.export import export as export_bundle

    _tell(f"building {found.name} at {size}, contract {io}")
    with progress() as advance:
        learning = _calibration(dataset, calibration_method, calibration_pictures, max_miou_drop, int8_rest, advance)
        rewriting = replace(rewrites, tell=_tell) if rewrites else None
        given: dict[str, Any] = {"precision": precision, "calibration": learning, "lowering": rewriting}
        model = Deployable(found, size, io, weights=file, seed=seed, **given)
        if not model.weights.trained:
            _tell(f"weights are {model.weights.text}: speed is real, the labels mean nothing")
        _tell(f"exporting in {precision}")
        exported = export_bundle(model, folder, resize=rule, engines=orders, targets=gpus, tell=_tell)
    _answer(model, exported, folder, json)


def _tell(text: str) -> None:
    err().print(text, markup=False)


def _check_contract(io: str) -> None:
    from deploy.contracts import CONTRACTS

    from .errors import unknown_name

    if io.replace("_", "-") not in CONTRACTS.names():
        raise unknown_name("tensor contract", io, CONTRACTS.names(), where="--io")


def _answer(model: Deployable, exported: Exported, folder: Path, json: str | None) -> None:
    if json:
        write_json(_export_tree(model, exported, folder), json)
    if json != "-":
        _print_export(model, exported, folder)


def _check_precision(precision: str, calibration: str | None, *settings: object) -> None:
    from deploy.precision import PRECISIONS

    from .errors import UsageError, unknown_name

    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS, where="--precision")
    if precision == "int8" and not calibration:
        raise UsageError(
            "int8 needs pictures to learn its ranges from",
            where="--calibration",
            allowed="a data set, NAME or NAME:PATH",
            fix="add --calibration streets, or the data set that the network was trained on",
        )
    if precision == "fp32" and calibration:
        raise UsageError("fp32 needs no calibration", where="--calibration", fix="leave it out, or add --precision")
    if not calibration and any(setting is not None for setting in settings):
        raise UsageError(
            "settings of a calibration without one", where="--calibration", fix="name a data set, or leave them out"
        )


def _dataset(argument: str, network: Network) -> Dataset:
    from .data import open_dataset
    from .training.evaluate import check_dataset

    dataset = open_dataset(argument)
    for split in dataset.splits()[:1]:
        check_dataset(dataset, split, network.classes, network=network.name)
    return dataset


def _calibration(
    dataset: Dataset | None,
    method: str | None,
    pictures: int | None,
    max_miou_drop: float | None,
    rest: str | None,
    tell: Callable[[str, int, int], None],
) -> Calibration | None:
    if dataset is None:
        return None
    from deploy.precision.calibration import Calibration

    given: dict[str, Any] = {"method": method, "pictures": pictures, "max_miou_drop": max_miou_drop, "rest": rest}
    return Calibration(dataset, progress=tell, **{k: v for k, v in given.items() if v is not None})


def _print_export(model: Deployable, exported: Exported, folder: Path) -> None:
    from deploy.lowering.record import sentence

    report = exported.report
    worst = max(c.max_abs_error for c in report.comparisons)
    agreement = min(c.label_agreement for c in report.comparisons)
    clear = min(c.masked_agreement for c in report.comparisons)
    console = out()
    console.print(
        f"{folder}: model.onnx, {len(model.onnx) / 1e6:.1f} MB, {model.precision}, verified: max abs error "
        f"{worst:.1e}, labels agree on {agreement:.4%} of pixels and on {clear:.4%} of clear ones, "
        f"{report.comparisons[0].classes_in_reference} classes seen",
        markup=False,
    )
    if report.miou:
        miou = report.miou
        console.print(
            f"{model.precision} costs {miou['drop_points']:.2f} points of mIoU on {miou['dataset']}, "
            f"{miou['limit_points']:.2f} are allowed",
            markup=False,
        )
    if model.lowering_record:
        console.print(f"rewrites: {sentence(model.lowering_record)}", markup=False)
    for engine in exported.engines:
        console.print(
            f"engine {engine.backend} {engine.version} for {', '.join(engine.targets)}: "
            f"{len(engine.data) / 1e6:.1f} MB in {engine.seconds:.1f} s",
            markup=False,
        )
    for gpu, refusals in exported.refusals.items():
        if not refusals:
            console.print(f"{gpu}: nothing is known that speaks against this model", markup=False)


def _export_tree(model: Deployable, exported: Exported, folder: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "network": model.network.name,
        "digest": model.network.digest,
        "resolution": str(model.size),
        "io": model.io,
        "precision": model.precision,
        "lowering": model.lowering_record,
        "trained": model.weights.trained,
        "onnx_bytes": len(model.onnx),
        "onnx_sha256": model.onnx_sha256,
        "bundle": str(folder),
        "engines": [
            {
                "backend": engine.backend,
                "version": engine.version,
                "targets": list(engine.targets),
                "bytes": len(engine.data),
                "seconds": engine.seconds,
            }
            for engine in exported.engines
        ],
        "refusals": exported.refusals,
        "verification": exported.report.to_tree(),
    }
