"""A streaming model live in a web page: ``synapse-onnx play``, and what a model says of its page.

The page is a folder of static files that any web server gives out. It holds the model with the
spikes of its layers as further outputs, a description of it, and onnxruntime-web, which runs the
graph on the reader's machine.
"""

from __future__ import annotations

from synapse_onnx.deploy.play._page import LARGEST, Sample, page_files, samples_of, write_page
from synapse_onnx.deploy.play._runtime import (
    VERSION,
    fetch_runtime,
    find_runtime,
)
from synapse_onnx.deploy.play._server import Server
from synapse_onnx.deploy.play._show import DECODES, Show, Wave

__all__ = [
    "DECODES",
    "LARGEST",
    "VERSION",
    "Sample",
    "Server",
    "Show",
    "Wave",
    "fetch_runtime",
    "find_runtime",
    "page_files",
    "samples_of",
    "write_page",
]
