"""Apollo: a text prototype with the fields of its segmentation detector. Not run here.

The file and the model lie in `modules/perception/data/models/NAME`. The message is that of Apollo's darkSCNN lane
detector, the one segmentation network it ships. Two limits of that detector, read in its source: it counts pixels in
a table of 13 classes, and it states no shape for its output blob, which the ONNX loader (unlike the Caffe one) needs.
So for a network of ours the message is read by a component of one's own.
"""

from __future__ import annotations

from . import Stack, Subject
from ._names import identifier
from ._text_proto import Message


class ApolloStack(Stack):
    """`segmentation.pb.txt`; add the model."""

    name = "apollo"
    contracts = ("apollo",)

    def texts(self, subject: Subject) -> dict[str, str]:
        model = Message(
            [
                ("model_name", identifier(subject.name)),
                ("model_type", "Onnx"),
                # The ONNX loader reads the first; the second must not point at the default, a Caffe file.
                ("proto_file", subject.model_file),
                ("weight_file", subject.model_file),
                ("input_offset_y", 0),
                ("input_offset_x", 0),
                ("crop_height", 1080),
                ("crop_width", 1920),
                ("resize_height", subject.size.height),
                ("resize_width", subject.size.width),
                # In the model; and the fields hold whole numbers only.
                ("mean_b", 0),
                ("mean_g", 0),
                ("mean_r", 0),
                ("is_bgr", True),
                ("confidence_threshold", 0.5),
            ]
        )
        network = Message([("input_blob", subject.input.name), ("seg_blob", subject.output.name)])
        comment = [
            f"{subject.precision}, {subject.size}, {subject.classes} classes. The crop is the camera's size: set it.",
            "Above a threshold of 0.5 at most one class can be; below it a pixel has none.",
        ]
        return {"segmentation.pb.txt": Message([("model_param", model), ("net_param", network)]).text(comment=comment)}


STACK = ApolloStack()
