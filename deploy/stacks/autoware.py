"""Autoware: label file, colour map and parameters of a segmentation node. Not run here.

The three files and the model lie in `$(data_path)/NAME`. Autoware has no node for a network that only segments: its
segmentation heads are further outputs of a detector. The parameters are those that its camera nodes and
`autoware_tensorrt_common` share; a node of one's own hands them to `TrtCommonConfig`.
"""

from __future__ import annotations

from . import Stack, Subject
from ._names import class_names, colours, identifier, lines
from ._ros_parameters import Parameters, parameter_file


class AutowareStack(Stack):
    """`label.txt`, `semseg_color_map.csv`, `segmentation.param.yaml`; add the model."""

    name = "autoware"
    contracts = ("autoware",)

    def texts(self, subject: Subject) -> dict[str, str]:
        names = class_names(subject)
        rows = [
            f"{index},{name},{red},{green},{blue}"
            for index, (name, (red, green, blue)) in enumerate(zip(names, colours(subject), strict=True))
        ]
        return {
            "label.txt": lines(names),
            "semseg_color_map.csv": lines(["id,name,r,g,b", *rows]),
            "segmentation.param.yaml": _parameters(subject, names),
        }


def _parameters(subject: Subject, names: list[str]) -> str:
    folder = f"$(var data_path)/{identifier(subject.name)}"
    parameters: Parameters = {
        "model_path": f"{folder}/{subject.model_file}",
        "label_path": f"{folder}/label.txt",
        "color_map_path": f"{folder}/semseg_color_map.csv",
        # Strongly typed: the model says what it computes in.
        "precision": "as-is",
        "dla_core_id": -1,
        "profile_per_layer": False,
        "preprocess_on_gpu": True,
        "gpu_id": 0,
        "build_only": False,
        "is_publish_color_mask": True,
        "class_names": names,
    }
    comment = [
        f"{subject.precision}, {subject.size}. Input BGR 0 to 255, letterbox 114, norm_factor 1.0; output softmax.",
        'Load it with <param from="..." allow_substs="true"/>.',
    ]
    return parameter_file({"/**": parameters}, comment=comment)


STACK = AutowareStack()
