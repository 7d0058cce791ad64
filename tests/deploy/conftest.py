"""Folders with and without onnxruntime-web."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import synapse_onnx as so
from synapse_onnx.deploy.play import _runtime


@pytest.fixture
def without_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the install nor the cache has onnxruntime-web; the folder that it would go to."""
    folder = tmp_path / "cache" / "web"
    monkeypatch.setenv("SYNAPSE_ONNX_WEB_FOLDER", str(folder))
    return folder


@pytest.fixture
def stand_in(without_runtime: Path) -> Path:
    """A folder that looks like onnxruntime-web, for what does not run it."""
    without_runtime.mkdir(parents=True)
    for name in _runtime._MEMBERS:
        (without_runtime / name).write_bytes(b"\0asm")
    about = {"name": "onnxruntime-web", "version": so.play.VERSION}
    (without_runtime / "package.json").write_text(json.dumps(about))
    return without_runtime
