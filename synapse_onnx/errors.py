"""Exceptions of synapse-onnx: one clear sentence each, of a class that callers can catch.

Every class derives from :class:`SynapseError` and from the builtin that fits, so that
``except ValueError`` and ``except synapse_onnx.SynapseError`` both work.
"""

__all__ = [
    "ExportError",
    "InputError",
    "ModelError",
    "QuantizationError",
    "RegistryError",
    "ShapeError",
    "SynapseError",
]


class SynapseError(Exception):
    """Base class of every error that synapse-onnx raises on purpose."""


class ShapeError(SynapseError, ValueError):
    """A tensor has the wrong rank, channel count or spatial size."""


class InputError(SynapseError, ValueError):
    """An argument or an input file is not what the call needs."""


class QuantizationError(SynapseError, ValueError):
    """A ``pre_hook_fx`` returned something that is no weight of its synapse."""


class ExportError(SynapseError, RuntimeError):
    """A module cannot be expressed as an ONNX graph."""


class ModelError(SynapseError, ValueError):
    """A file is no ONNX model, or not one that can be run here."""


class RegistryError(SynapseError, RuntimeError):
    """Two ops claim one name, or an op is declared inconsistently."""
