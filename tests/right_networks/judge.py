"""The verdict on one network."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import torch

import synapse_onnx as so
from synapse_onnx.errors import SynapseError

from .draw import Drawn

#: verdicts, from right to wrong
KINDS = (
    "equal", "refused", "UNCLEAR", "FALSE ALARM", "FOREIGN EXCEPTION", "CHANGED",
)  # fmt: skip

#: words of the tracer, which say neither cause nor remedy to a user
_OF_THE_TRACER = re.compile(
    r"TORCH_LOGS|onnx\.checker|github|UserError|fake ?tensor|proxy|dynamo|guard|symint|"
    r"\b[su]\d+\b|Traceback|cannot be traced[^:]*: \w+(Error|Exception)|cannot be converted",
    re.IGNORECASE,
)


@dataclass
class Verdict:
    """What came of one network: one of KINDS, and the sentence with it."""

    kind: str
    why: str = ""

    @property
    def wrong(self) -> bool:
        return self.kind not in ("equal", "refused")


def judge(
    drawn: Drawn,
    spoil: Callable[[onnx.ModelProto], None] | None = None,
    *,
    native: bool | None = False,
) -> Verdict:
    """Export a network and verify it; ``spoil`` may put a fault into the model in between."""
    before = [x.detach().clone() for x in drawn.inputs]
    weights = {name: value.clone() for name, value in drawn.module.state_dict().items()}
    try:
        model = so.export(drawn.module, drawn.arguments, **drawn.options)
    except SynapseError as error:
        return judge_sentence(str(error))
    except Exception as error:
        return Verdict("FOREIGN EXCEPTION", f"export: {type(error).__name__}: {error}")
    if spoil is not None:
        spoil(model)
    try:
        report = so.verify(drawn.module, model, drawn.arguments, native=native)
    except Exception as error:
        return Verdict("FOREIGN EXCEPTION", f"verify: {type(error).__name__}: {error}")
    if not all(torch.equal(x, y) for x, y in zip(before, drawn.inputs, strict=True)):
        return Verdict("CHANGED", "an input has other values")
    after = drawn.module.state_dict()
    if weights.keys() != after.keys() or not all(
        torch.equal(v, after[k]) for k, v in weights.items()
    ):
        return Verdict("CHANGED", "a parameter or buffer has other values")
    return Verdict("equal") if report.ok else Verdict("FALSE ALARM", str(report))


def judge_sentence(sentence: str) -> Verdict:
    """Judge the sentence of a refusal."""
    clear = "\n" not in sentence and not _OF_THE_TRACER.search(sentence)
    return Verdict("refused" if clear else "UNCLEAR", sentence)
