"""A streaming model in a web page: ``synapse-onnx play``, and settings of the page in a model.

The page is a folder of static files for any web server. It holds the model with the spikes of its
layers as additional outputs, a description of the model, and onnxruntime-web, which runs it in the
browser.
"""

from __future__ import annotations

from synapse_onnx.deploy.play._page import LARGEST, page_files, write_page
from synapse_onnx.deploy.play._runtime import VERSION, fetch_runtime, find_runtime
from synapse_onnx.deploy.play._server import Server
from synapse_onnx.deploy.play._show import DECODES, Sample, Show, Wave, samples_of

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
