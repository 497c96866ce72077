"""Numeric precisions of an exported model, as types in the ONNX graph: one file then serves every consumer.

Build flags, calibrators and weak typing are gone from today's TensorRT; what remains everywhere is a graph that says
what each tensor is.
"""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "int8")
