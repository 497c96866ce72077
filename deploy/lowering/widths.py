"""Maps that carry more channels than the network has: which are its own, and how every reader is told.

The extra channels never reach a result: a convolution that reads them has zeros in those columns of its weights, and
where a reader is no convolution they are sliced off. So they may hold anything finite.
"""

from __future__ import annotations

import numpy as np
import onnx

from .editing import Editor, is_channel_concat, is_plain_conv, weights_of

#: Float32 values in a vector of AVX-512, and channels in a block of oneDNN and of ONNX Runtime there.
WIDTH = 16

#: Each channel of the result comes from the channel of that number.
CHANNELWISE = ("Relu", "MaxPool", "AveragePool", "Resize")
_SIZES = 3


def rounded_up(channels: int) -> int:
    """The next multiple of `WIDTH`."""
    return -(-channels // WIDTH) * WIDTH


class Widths:
    """Which channels of a widened tensor are the network's own.

    Attributes:
        own: tensor -> for each channel the number it has in the network, or -1 where it has none. Tensors that are as
            the network has them are not listed.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.own: dict[str, np.ndarray] = {}
        self._cuts: dict[str, str] = {}

    def of(self, name: str) -> int:
        """How many channels of a tensor are the network's own."""
        return int((self.own[name] >= 0).sum()) if name in self.own else self.editor.shape(name)[1]

    def can_widen(self, name: str) -> bool:
        """Whether a plain convolution makes this tensor, directly or through a Resize, for one reader alone."""
        node = self.editor.producer(name)
        if node is None or self.editor.only_reader(name) is None:
            return False
        if node.op_type == "Resize":
            return _has_sizes(self.editor, node) and self.can_widen(node.input[0])
        return is_plain_conv(self.editor, node)

    def widen(self, name: str, channels: int) -> None:
        """Give the tensor of `can_widen` zeros for further channels."""
        node = self.editor.producer(name)
        assert node is not None
        if node.op_type == "Resize":
            self.widen(node.input[0], channels)
            self._follow(node)
        else:
            self.widen_conv(node, channels)

    def widen_conv(self, conv: onnx.NodeProto, channels: int) -> None:
        """Give a plain convolution zero filters, so that it makes so many channels."""
        real = self.of(conv.output[0])
        weight, bias = weights_of(self.editor, conv)
        missing = channels - len(weight)
        wide = np.pad(weight, ((0, missing), (0, 0), (0, 0), (0, 0)))
        self.editor.reweigh(conv, wide, np.pad(bias, (0, missing)) if len(conv.input) > 2 else None)
        self.own[conv.output[0]] = _prefix(real, channels)

    def settle(self, name: str, real: int, channels: int) -> None:
        """State that a tensor, just made, has its first `real` channels from the network."""
        self.own[name] = _prefix(real, channels)

    def read(self, node: onnx.NodeProto) -> None:
        """Make a node right for its inputs, whose producers were looked at before."""
        if not any(name in self.own for name in node.input):
            return
        if is_plain_conv(self.editor, node):
            self._read_by_conv(node)
        elif self.passes(node):
            self._follow(node)
        else:
            self.cut(node)

    def passes(self, node: onnx.NodeProto) -> bool:
        """Whether a node may hand further channels on to its readers."""
        if self.editor.is_output(node.output[0]):
            return False
        if is_channel_concat(node):
            return all(is_plain_conv(self.editor, reader) for reader in self.editor.readers(node.output[0]))
        return node.op_type in CHANNELWISE and (node.op_type != "Resize" or _has_sizes(self.editor, node))

    def cut(self, node: onnx.NodeProto) -> None:
        """Slice the further channels off in front of a node that cannot do with them."""
        for index, name in enumerate(node.input):
            if name not in self.own:
                continue
            if name not in self._cuts:
                real = self.of(name)
                # A tensor is only cut where its own channels come first.
                assert (self.own[name][:real] >= 0).all()
                self._cuts[name] = self._slice(node, name, real)
            node.input[index] = self._cuts[name]

    def _slice(self, before: onnx.NodeProto, name: str, channels: int) -> str:
        batch, _, height, width = self.editor.shape(name)
        bounds = [self.editor.constant(f"{name}.{key}", np.array([v])) for key, v in (("start", 0), ("end", channels))]
        axis = self.editor.constant(f"{name}.axis", np.array([1]))
        node = self.editor.node("Slice", [name, *bounds, axis], name, (batch, channels, height, width))
        self.editor.insert(before, node)
        return str(node.output[0])

    def _follow(self, node: onnx.NodeProto) -> None:
        """Hand the channels on."""
        parts = [name for name in node.input if name and not self.editor.is_constant(name)]
        owns, start = [], 0
        for name in parts:
            own = self.own.get(name, np.arange(self.editor.shape(name)[1]))
            owns.append(np.where(own >= 0, own + start, -1))
            start += self.of(name)
        result, own = node.output[0], np.concatenate(owns)
        batch, _, height, width = self.editor.shape(result)
        if node.op_type == "Resize":
            sizes = np.array([batch, len(own), height, width])
            node.input[_SIZES] = self.editor.constant(f"{result}.sizes", sizes)
        self.editor.set_shape(result, (batch, len(own), height, width))
        self.own[result] = own

    def _read_by_conv(self, conv: onnx.NodeProto) -> None:
        own = self.own[conv.input[0]]
        weight, bias = weights_of(self.editor, conv)
        wide = np.zeros((len(weight), len(own), *weight.shape[2:]))
        wide[:, own >= 0] = weight[:, own[own >= 0]]
        self.editor.reweigh(conv, wide, bias if len(conv.input) > 2 else None)


def _prefix(real: int, channels: int) -> np.ndarray:
    return np.where(np.arange(channels) < real, np.arange(channels), -1)


def _has_sizes(editor: Editor, resize: onnx.NodeProto) -> bool:
    """Whether a Resize states the size of its result, as the exporter writes it."""
    return len(resize.input) > _SIZES and editor.is_constant(resize.input[_SIZES])
