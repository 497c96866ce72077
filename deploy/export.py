"""`searchkit export`: a network in, a verified bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from searchkit.errors import VerificationError
from searchkit.label_sets import MAX_CLASSES, generic_labels
from searchkit.normalization import MEAN, STD

from .backends.onnxruntime import BACKEND as ONNXRUNTIME
from .bundle import replace_bundle
from .deployable import Deployable
from .verify import Report, verify


def export(model: Deployable, folder: Path) -> Report:
    """Export, verify and write the bundle; nothing is left under `folder` unless the verification passes.

    Raises:
        VerificationError: the exported model is not the same function as the PyTorch network.
        BackendUnavailableError: ONNX Runtime, which verifies, is not installed.
        UsageError, StorageError: see `write_bundle`.
    """
    ONNXRUNTIME.require("cpu")
    with replace_bundle(folder) as write:
        model_bytes = model.onnx
        report = verify(model, model_bytes)
        if not report.passed:
            raise VerificationError(
                f"verification failed: {'; '.join(report.problems)}",
                where=model.network.name,
                fix="no model was written",
            )
        write(
            {
                "model.onnx": model_bytes,
                "network.json": model.network.to_json().encode(),
                "contract.json": _json(contract_tree(model)),
                "verification.json": _json(report.to_tree()),
            }
        )
    return report


def contract_tree(model: Deployable) -> dict[str, Any]:
    """What a consumer must know to feed the model and to read its answer."""
    count = model.network.classes
    labels = generic_labels(min(count, MAX_CLASSES))
    return {
        "schema": 1,
        "io": model.io,
        "input": model.contract.input_spec(model.size).to_tree(),
        "output": {
            "name": model.contract.output_name,
            "layout": model.contract.output_layout,
            "meaning": model.contract.output_meaning(),
        },
        "resolution": {"height_px": model.size.height, "width_px": model.size.width},
        "normalisation": {"mean": list(MEAN), "std": list(STD), "of": "RGB scaled to [0, 1]"},
        "weights": {
            "trained": model.weights.trained,
            "text": model.weights.text,
            "sha256": model.weights.sha256,
        },
        "classes": [*labels.names, *(f"class {i}" for i in range(MAX_CLASSES, count))],
        "palette": [list(colour) for colour in labels.palette],
        "ignore": labels.ignore,
    }


def _json(tree: object) -> bytes:
    return (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode()
