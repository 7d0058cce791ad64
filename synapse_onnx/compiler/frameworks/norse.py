"""Norse: cells take one step and are given their states; other modules run over time."""

from __future__ import annotations

from typing import Any

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]

#: classes of modules that run over the first axis
_OVER_TIME = {"SNN", "SNNRecurrent"}


def _takes_sequences(module: Any) -> bool:
    return not _OVER_TIME.isdisjoint(kind.__name__ for kind in type(module).__mro__)


FRAMEWORK = Framework("norse", takes_sequences=_takes_sequences)
