"""Plugins for the inference tuner. The entry point names this module; the tuner imports it whenever it starts."""

from onnx_reference.evaluator import Evaluator
from onnx_reference.rounding import RoundedWeights

__all__ = ["Evaluator", "RoundedWeights"]
