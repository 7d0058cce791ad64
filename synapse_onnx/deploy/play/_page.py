"""The folder of a page: the model with its spikes as outputs, its description, and the site."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from synapse_onnx.deploy.play._description import MAKER, MODEL, Description
from synapse_onnx.deploy.play._runtime import PROGRAM, SCRIPT, find_runtime
from synapse_onnx.deploy.play._samples import Sample
from synapse_onnx.deploy.play._show import Show
from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.files import write_folder
from synapse_onnx.model.metadata import Metadata

__all__ = ["LARGEST", "page_files", "write_page"]

#: default bound on the size of a model, in bytes: a browser holds several copies of it while it
#: loads, and a tab has 4 GiB at most
LARGEST = 256 << 20

#: files that are the same for every model
_SITE = Path(__file__).parent / "site"

#: name of the description's file
_DESCRIPTION = "model.json"


def page_files(
    model: onnx.ModelProto,
    name: str,
    *,
    samples: Sequence[Sample] = (),
    labels: Sequence[str] = (),
    largest: int = LARGEST,
) -> dict[str, bytes | Path]:
    """Return the files of a page, by name.

    Args:
        model: a model that was exported with ``streaming=True``.
        name: name of the model; its title on the page if the model has none.
        samples: inputs to choose from; they come before those in the model.
        labels: names of the first output's channels, instead of those in the model.
        largest: bound on the size of the model, in bytes.

    Raises:
        ModelError: the model was not written by synapse-onnx.
        InputError: it is not streaming, or too large, or there is no onnxruntime-web.
        ShapeError: a sample does not fit an input, or an input has no known size.
    """
    metadata = Metadata.read(model)
    if not metadata.streaming:
        raise InputError(
            "the model was not exported for streaming, and a page goes step by step; export it "
            "with --streaming, in Python export(..., streaming=True)"
        )
    size = model.ByteSize()
    if size > largest:
        raise InputError(
            f"the model has {size / 1e6:,.1f} MB, and a browser is given {largest / 1e6:,.1f} at "
            f"most; --max-size allows more"
        )
    runtime = find_runtime()
    show = Show.read(model)
    try:
        description = Description(model, metadata)
        shown = description.model()
        document = description.document(name, show, samples, labels)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError | ModelError | ShapeError):
            raise
        # a node of our domain without the attributes or shapes of ours; the class of the error
        # depends on what is missing
        raise ModelError("a layer of the model is not one that synapse-onnx writes") from error
    Show.remove(shown)
    files: dict[str, bytes | Path] = {
        path.name: path for path in sorted(_SITE.iterdir()) if path.is_file()
    }
    files |= {part: runtime / part for part in (SCRIPT, PROGRAM)}
    files[MODEL] = shown.SerializeToString(deterministic=True)
    files[_DESCRIPTION] = json.dumps(document, allow_nan=False).encode()
    return files


def write_page(folder: str | os.PathLike[str], files: Mapping[str, bytes | Path]) -> None:
    """Write a page, whole or not at all; an existing page is replaced.

    Raises:
        InputError: the folder cannot be written, or is no page.
    """

    def is_page(existing: Path) -> bool:
        try:
            document = json.loads((existing / _DESCRIPTION).read_text("utf-8"))
            return document["maker"] == MAKER and set(os.listdir(existing)) <= set(files)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    write_folder(folder, files, is_page)
