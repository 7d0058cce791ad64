"""Readers of networks that were trained elsewhere: one file format a file.

Every file here without a leading underscore is found by itself: it registers a :class:`Reader`,
its function ``load_<file name>`` is ``so.load_<file name>``, and the command line reads files with
one of its suffixes. :mod:`synapse_onnx.readers.frameworks` converts live modules.
"""

from synapse_onnx.readers._registry import Reader, all_readers, reader_for, register

__all__ = ["Reader", "all_readers", "reader_for", "register"]
