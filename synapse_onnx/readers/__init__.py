"""Readers of networks that were trained elsewhere; each file here reads one format.

Every file here without a leading underscore is found by itself: it registers a :class:`Reader`,
and the command line reads files whose names end in one of its suffixes.
"""

from synapse_onnx.readers._registry import Reader, all_readers, reader_for, register

__all__ = ["Reader", "all_readers", "reader_for", "register"]
