"""Live modules of other frameworks, converted to layers of ours: one framework a file.

Every file here without a leading underscore is found by itself. It defines ``FRAMEWORK``, a
:class:`Framework`: how classes of the framework are recognised, and the function that converts a
layer. The framework itself is never imported, so that it need not be installed.
"""

from synapse_onnx.readers.frameworks._convert import (
    Conversion,
    Framework,
    all_frameworks,
    convert,
)

__all__ = ["Conversion", "Framework", "all_frameworks", "convert"]
