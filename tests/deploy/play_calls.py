"""Models that have a page, and calls of synapse-onnx play."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from synapse_onnx.cli import main

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
SITE = ROOT / "synapse_onnx" / "deploy" / "play" / "site"
DIGITS, TONES = MODELS / "digits_stream.onnx", MODELS / "tones_stream.onnx"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["play", *map(str, arguments)])


def refused(result: Result) -> str:
    """The one sentence of a call that is at fault."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line
