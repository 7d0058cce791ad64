"""Recipes: the committed models are what the checkpoints give, and they are as good as they say."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from networks import Mixed, spikes

import synapse_onnx as so
from exporters import _recipe
from exporters.__main__ import Recipes, main
from exporters._recipe import ROOT, Result, draw

RECIPES = Recipes().list_commands(None)  # type: ignore[arg-type]
#: recipes of networks by others, of which nothing is committed: test_published.py
PUBLISHED = [
    name for name in RECIPES if hasattr(importlib.import_module(f"exporters.{name}"), "published")
]


def test_recipes_are_found() -> None:
    assert {"digits", "ndns"} < set(RECIPES)
    assert "ndns" in PUBLISHED
    assert "digits" not in PUBLISHED
    assert not any(name.startswith("_") for name in RECIPES)
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in RECIPES)


def called_once(call: Callable[[], object]) -> float:
    """Stand for a time that no test reads."""
    call()
    return 1.0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in PUBLISHED])
@pytest.mark.gpu
def test_every_recipe_exports_and_verifies_from_its_checkpoint(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recipe, "median_seconds", called_once)
    needs = getattr(importlib.import_module(f"exporters.{recipe}"), "NEEDS", "")
    if needs and not importlib.util.find_spec(needs):
        pytest.skip(f"{needs} is not installed: see peers.txt")
    result = CliRunner().invoke(main, [recipe, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "equal; models and card are in" in result.output
    written = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".png")
    kept_back = (".pt", ".png")
    assert written == sorted(p.name for p in ROOT.glob(f"{recipe}*") if p.suffix not in kept_back)
    models = {path.stem for path in tmp_path.glob("*.onnx")}
    assert {path.stem for path in tmp_path.glob("*.png")} == models
    for picture in tmp_path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    for name in written:
        if name.endswith(".onnx"):
            made, kept = onnx.load(tmp_path / name), onnx.load(ROOT / name)
            # metadata hold versions, which may be others on this machine
            assert made.graph == kept.graph, f"{name} is not what the checkpoint gives"
            assert list(made.functions) == list(kept.functions)


def test_a_recipe_draws_where_matplotlib_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = Mixed().eval()
    inputs = spikes(2, 6, 12)
    report = so.verify(network, so.export(network, inputs), inputs)
    result = Result("q8", tmp_path / "mixed.onnx", report, 1.0, 1.0, 0, 0, 0.0, 0.0)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        draw([result])
    said = capsys.readouterr().out
    assert "no picture: plot.divergence needs the package matplotlib: pip install" in said
    assert "synapse-onnx[report]" in said
    assert not list(tmp_path.iterdir())
    draw([result])
    assert not capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.png"]


def test_digits_keep_what_they_promise() -> None:
    card = (ROOT / "digits.md").read_text()
    rows = dict(re.findall(r"^\| `digits_(\w+)\.onnx` \|(.*)\|$", card, re.MULTILINE))
    figures = {name: [cell.strip() for cell in row.split("|")] for name, row in rows.items()}
    assert set(figures) == {"float", "q8", "stream"}
    for in_torch, in_onnx, *_ in figures.values():
        assert in_torch == in_onnx
        assert float(in_torch.rstrip("%")) >= 96
    assert figures["q8"][2].startswith("0 of ")
    weights = {name: int(row[3].replace(",", "")) for name, row in figures.items()}
    assert weights["q8"] <= 0.26 * weights["float"]


@pytest.mark.parametrize("recipe", ["snntorch_live", "spikingjelly_live"])
def test_live_networks_keep_what_they_promise(recipe: str) -> None:
    card = (ROOT / f"{recipe}.md").read_text()
    rows = re.findall(rf"^\| `{recipe}_(\w+)\.onnx` \|(.*)\|$", card, re.MULTILINE)
    assert [kind for kind, _ in rows] == ["float", "stream"]
    for _, row in rows:
        in_torch, in_onnx, flips, *_ = (cell.strip() for cell in row.split("|"))
        assert in_torch == in_onnx
        assert float(in_torch.rstrip("%")) >= 95
        assert flips.startswith("0 of ")


def test_a_live_recipe_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    result = CliRunner().invoke(main, ["snntorch_live", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "snntorch is not installed; see peers.txt" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_digits_train() -> None:
    """Two epochs lower the loss far below chance; the whole training is the recipe's own."""
    from exporters.digits import data, train

    network = train(epochs=2).eval()
    _, _, spikes, labels = data()
    with torch.no_grad():
        found = network(spikes).sum(-1).argmax(1)
    assert float((found == labels).float().mean()) > 0.6
