"""The label head as a plugin of TensorRT 10 and newer; `CMakeLists.txt` builds it where its headers and nvcc are.

The plugin is `LabelHead`, version 1, of the namespace `searchkit`. Not run here on a GPU.
"""

from __future__ import annotations

from ..onnx_operator import DOMAIN, OPERATOR, with_label_head

VERSION = "1"

_UINT8 = 2


def with_plugin(model: bytes) -> bytes | None:
    """A serialised model whose last operators are replaced by the plugin, for TensorRT's parser of ONNX.

    Replaced is what `deploy.native.onnx_operator.with_label_head` replaces. A plugin cannot write uint8, so a Cast to
    the labels follows. None where the model does not end so. TensorRT must have the plugin's library loaded when it
    parses the model and whenever it reads the engine: `tensorrt.get_plugin_registry().load_library(path)`.
    """
    import onnx

    fused = with_label_head(model)
    if fused is None:
        return None
    changed = onnx.load_from_string(fused)
    head = next(node for node in changed.graph.node if node.op_type == OPERATOR and node.domain == DOMAIN)
    # The parser does not everywhere take the operator's domain for the namespace of a plugin.
    head.attribute.append(onnx.helper.make_attribute("plugin_namespace", DOMAIN))
    head.attribute.append(onnx.helper.make_attribute("plugin_version", VERSION))
    labels = head.output[0]
    head.output[0] = f"{labels}_int32"
    changed.graph.node.append(onnx.helper.make_node("Cast", [head.output[0]], [labels], to=_UINT8))
    return bytes(changed.SerializeToString(deterministic=True))
