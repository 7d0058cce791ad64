"""Fixtures of the tests of exports."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from synapse_onnx.compiler import _translate


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What is found of each program that is exported: whether it is traced once."""
    results: list[bool] = []
    is_decomposed = _translate._is_decomposed

    def kept(program: torch.export.ExportedProgram, table: Any) -> bool:
        results.append(is_decomposed(program, table))
        return results[-1]

    monkeypatch.setattr(_translate, "_is_decomposed", kept)
    return results
