"""Recipes: the committed models are what the checkpoints give, and they are as good as they say."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner

from exporters.__main__ import Recipes, main
from exporters._recipe import ROOT

RECIPES = Recipes().list_commands(None)  # type: ignore[arg-type]


def test_recipes_are_found() -> None:
    assert "digits" in RECIPES
    assert not any(name.startswith("_") for name in RECIPES)
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_exports_and_verifies_from_its_checkpoint(recipe: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [recipe, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "equal; models and card are in" in result.output
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in ROOT.glob(f"{recipe}*") if path.suffix != ".pt")
    for name in written:
        if name.endswith(".onnx"):
            made, kept = onnx.load(tmp_path / name), onnx.load(ROOT / name)
            # metadata hold versions, which may be others on this machine
            assert made.graph == kept.graph, f"{name} is not what the checkpoint gives"
            assert list(made.functions) == list(kept.functions)


def test_digits_keep_what_they_promise() -> None:
    card = (ROOT / "digits.md").read_text()
    rows = dict(re.findall(r"^\| `digits_(\w+)\.onnx` \|(.*)\|$", card, re.MULTILINE))
    figures = {name: [cell.strip() for cell in row.split("|")] for name, row in rows.items()}
    assert set(figures) == {"float", "q8"}
    for in_torch, in_onnx, *_ in figures.values():
        assert in_torch == in_onnx
        assert float(in_torch.rstrip("%")) >= 96
    assert figures["q8"][2].startswith("0 of ")
    weights = {name: int(row[3].replace(",", "")) for name, row in figures.items()}
    assert weights["q8"] <= 0.26 * weights["float"]


def test_digits_train() -> None:
    """Two epochs lower the loss far below chance; the whole training is the recipe's own."""
    from exporters.digits import data, train

    network = train(epochs=2).eval()
    _, _, spikes, labels = data()
    with torch.no_grad():
        found = network(spikes).sum(-1).argmax(1)
    assert float((found == labels).float().mean()) > 0.6
