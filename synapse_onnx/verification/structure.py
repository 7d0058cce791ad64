"""What a model holds against its module: names of inputs, layers, parameters. No run is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.compiler.freezer import deployables
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.neuron import base
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.subject import Subject

__all__ = ["compare_parameters", "compare_structure", "value_differences"]


def compare_structure(subject: Subject, findings: Findings) -> None:
    """Compare names, and take over the notes of the export.

    A reference of another kind has names of its own, which are not compared.
    """
    for note in subject.metadata.notes if subject.metadata is not None else ():
        findings.note(note)
    for path, layer in deployables(subject.frozen):
        if isinstance(layer, base.Neuron) and layer.never_spikes and not subject.spares_layer(path):
            findings.note(
                f"{path or layer.kind}: its threshold is beyond Loihi's 24 bits, so it never spikes"
            )
    if subject.reference is not None:
        return
    expected = subject.arguments.names(subject.module)
    names = subject.session.inputs
    if expected and list(names) != expected[: len(names)]:
        findings.problem(
            f"the model's inputs are named {', '.join(names)} and forward() takes "
            f"{', '.join(expected)}"
        )
    # modules of any kind: one of the user's may call an op of ours by itself
    known = {path for path, _ in subject.module.named_modules(remove_duplicate=False)}
    foreign = [
        path for path in subject.nodes if path not in known and not subject.spares_layer(path)
    ]
    if foreign:
        findings.problem(f"the model has layers that the module lacks: {', '.join(foreign)}")


def compare_parameters(subject: Subject, findings: Findings) -> None:
    """Compare every parameter that bears the same name on both sides.

    A wrong decay need not show in the spikes of a few samples. Where two whole files are compared,
    their initialisers are among what is.
    """
    expected = subject.frozen.state_dict()
    for tensor in without_tiles(subject.model).graph.initializer:
        value = expected.get(tensor.name)
        if value is None or subject.spares_value(tensor.name):
            continue
        stored = onnx.numpy_helper.to_array(tensor)
        for sentence in value_differences(tensor.name, stored, value.numpy()):
            findings.problem(sentence)


def value_differences(name: str, stored: NDArray[Any], reference: NDArray[Any]) -> Iterator[str]:
    """Yield a sentence if the values of a model, ``stored``, are not those of its network."""
    if stored.shape != reference.shape:
        yield f"{name}: of shape {reference.shape} in the module and {stored.shape} in the model"
        return
    differs: Any = stored != reference
    if stored.dtype.kind == "f" and reference.dtype.kind == "f":  # atan2(-0.0, -1) is another angle
        differs = differs | (np.signbit(stored) != np.signbit(reference))
    if differs.any():
        yield (
            f"{name}: {int(differs.sum())} of {reference.size} values differ between the frozen "
            f"module and the model"
        )
