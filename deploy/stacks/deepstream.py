"""DeepStream 9.1: a configuration of `nvinfer` and the class names. Not run here.

The model lies beside the two files. DeepStream builds its own engine from it and keeps that under the name in
`model-engine-file`; under another name it would build at every start.
"""

from __future__ import annotations

from . import Stack, Subject
from ._names import class_names, identifier, lines

# `network-mode` and how DeepStream spells it in the engine's name. Types stand in the graph (`strongly-typed`), so
# the mode names the file and no more; mode 1 would ask for a calibration table that a graph with scales does not need.
_MODES = {"fp32": (0, "fp32"), "fp16": (2, "fp16"), "int8": (2, "fp16")}


class DeepStreamStack(Stack):
    """`config_infer.txt`, `labels.txt`; add the model."""

    name = "deepstream"
    contracts = ("deepstream",)

    def texts(self, subject: Subject) -> dict[str, str]:
        mode, spelling = _MODES[subject.precision]
        keys: dict[str, object] = {
            "gie-unique-id": 1,
            "onnx-file": subject.model_file,
            "model-engine-file": f"{subject.model_file}_b1_gpu0_{spelling}.engine",
            "labelfile-path": "labels.txt",
            "batch-size": 1,
            "network-mode": mode,
            "strongly-typed": 1,
            "network-type": 2,
            "num-detected-classes": subject.classes,
            "infer-dims": ";".join(map(str, subject.input.shape[1:])),
            # Mean and standard deviation are in the model.
            "net-scale-factor": "1.0",
            "model-color-format": 0,
            "network-input-order": 0,
            "segmentation-threshold": "0.0",
            "segmentation-output-order": 0,
            "output-blob-names": subject.output.name,
        }
        head = [
            f"# {identifier(subject.name)}, {subject.precision}, {subject.size}; softmax, mean and std in the model.",
            "# No offsets, scale 1.0 and threshold 0.0 belong to this model: other values give wrong labels.",
            "[property]",
        ]
        return {
            "config_infer.txt": lines([*head, *(f"{key}={value}" for key, value in keys.items())]),
            "labels.txt": lines(class_names(subject)),
        }


STACK = DeepStreamStack()
