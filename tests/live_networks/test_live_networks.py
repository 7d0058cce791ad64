"""Networks of the collection are right, or refused with a sentence, as their entries say.

All of them take half an hour, and are run by ``python -m tests.live_networks``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import synapse_onnx as so

from . import collection, measure
from .distance import Distance
from .network import Network, numbers
from .pages import file_name, write_page

ROOT = Path(__file__).parents[2]

#: networks of plain torch that are compared in every run: one of each kind
QUICK = {
    "plain_torch_networks": ("stacked spikes", "batch first"),
    "plain_loops_networks": ("feedback through two layers",),
    "plain_refused_networks": ("if t == 7", "noise in the step"),
}


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("name", [(file, name) for file in QUICK for name in QUICK[file]], ids=str)
def test_some_networks_of_plain_torch(name: tuple[str, str]) -> None:
    framework = collection.load(name[0])
    _check([measure.measure(framework.name, framework.networks[name[1]])])


@pytest.mark.slow
@pytest.mark.parametrize("file", collection.files())
def test_a_part_of_every_file(file: str) -> None:
    framework = collection.load(file)
    if framework.missing:
        pytest.skip(framework.missing)
    if "zoo" in file:
        pytest.skip("networks of minutes each: python -m tests.live_networks has them")
    # the loop finder has a test for each idiom, and each framework tests of its neurons
    networks = list(framework.networks.values())[:: 6 if file.startswith("plain") else 16]
    # verify runs the same network again, and has tests of its own
    results = [measure.measure(framework.name, each, verify=False) for each in networks]
    if file.startswith("plain"):
        _check(results)
    # of frameworks the table says what is refused; no file may be wrong
    assert not [each.name for each in results if each.verdict not in ("right", "refused")]


def _check(results: list[measure.Measured]) -> None:
    surprises = [
        f"{each.name}: {each.verdict} {each.sentence}" for each in results if not each.as_declared
    ]
    assert not surprises, "\n".join(surprises)
    assert not {each.name: each.silent for each in results if each.silent}


# -- the measurement itself ------------------------------------------------------------------------


class Line(nn.Module):
    """A network without a loop, which is exported at once."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(4, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.fc(x) > 0).float()


def _line(make: Any = Line, **kwargs: Any) -> Network:
    return Network("line", make, lambda t, n: (numbers(n, 4),), **kwargs)


def test_a_right_file_is_right() -> None:
    result = measure.measure("tests", _line())
    assert (result.verdict, result.sentence, result.as_declared) == ("right", "", True)
    assert (result.distance.flips, result.batch, result.lines) == (0, "N", 2)
    assert result.sizes == list(measure.SIZES)


@pytest.mark.parametrize(
    ("other", "sentence"), [(Line(), "flips"), (Line(5), "shape (3, 5) instead of (3, 3)")]
)
def test_a_wrong_file_is_wrong(
    other: nn.Module, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = so.export
    monkeypatch.setattr(so, "export", lambda net, *args, **kwargs: export(other, *args, **kwargs))
    result = measure.measure("tests", _line())
    assert result.verdict == "WRONG"
    assert sentence in result.sentence
    assert not result.as_declared


def test_a_changed_module_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    export = so.export

    def changing(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
        model = export(net, *args, **kwargs)
        net.fc.bias.data += 1
        return model

    monkeypatch.setattr(so, "export", changing)
    result = measure.measure("tests", _line())
    assert "has changed fc.bias in the caller's module" in result.sentence


def test_refusals_must_say_what_the_entry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise so.ExportError("for a reason")

    monkeypatch.setattr(so, "export", refusing)
    assert measure.measure("tests", _line(refused="a reason")).as_declared
    assert not measure.measure("tests", _line(refused="another reason")).as_declared
    assert not measure.measure("tests", _line()).as_declared


def test_a_foreign_exception_is_told() -> None:
    def fails() -> nn.Module:
        raise KeyError("gone")

    result = measure.measure("tests", _line(fails))
    assert (result.verdict, result.sentence) == ("exception", "KeyError: 'gone'")
    assert not result.as_declared


def test_silent_layers_are_named() -> None:
    network = _line(lambda: nn.Sequential(Line(), nn.Threshold(2.0, 0.0)))
    assert measure.measure("tests", network).silent == ["1"]


def test_a_missing_framework_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ImportError("No module named 'snntorch'")

    monkeypatch.setattr(collection.importlib, "import_module", fails)
    missing = "snntorch_networks cannot be imported: No module named 'snntorch'"
    assert collection.load("snntorch_networks").missing == missing
    assert collection.frameworks()["snntorch"].networks == {}


def test_files_are_found() -> None:
    assert {"plain_torch_networks", "snntorch_networks"} <= set(collection.files())
    assert "test_live_networks" not in collection.files()


@pytest.mark.parametrize(("added", "error"), [(0.0, 1e-3), (9.0, 1e-4)])
def test_an_error_is_relative_to_what_was_taken_off(added: float, error: float) -> None:
    distance = Distance()
    one = np.array([0.5, 1.0])
    assert not distance.add(one, np.array([0.5, 1.001]), added)
    assert distance.error == pytest.approx(error)


@pytest.mark.parametrize("prefix", sorted({name.split("_")[0] for name in collection.files()}))
def test_the_documentation_has_a_row_for_every_network(prefix: str) -> None:
    parts = [collection.load(name) for name in collection.files() if name.startswith(prefix)]
    if any(part.missing for part in parts):
        pytest.skip(parts[0].missing)
    folder = ROOT / "docs/reference/live-networks"
    page = (folder / f"{file_name(parts[0].name)}.md").read_text()
    first = page.partition("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in first.splitlines() if " | " in line]
    assert rows[1:] == [name for part in parts for name in part.networks]
    assert " 0 wrong, 0 exceptions; " in page
    assert "; 0 not as declared" in page


def test_a_page_says_what_share_is_right(tmp_path: Path) -> None:
    rows = [
        measure.Measured("tests", "one", verdict="right", gap=True),
        measure.Measured("tests", "two", verdict="refused", gap=True, sentence="not | yet"),
        measure.Measured("tests", "three", verdict="refused", as_declared=True),
    ]
    write_page(tmp_path, "plain tests", rows)
    page = (tmp_path / "plain-tests.md").read_text()
    assert page.startswith("# Plain tests\n")
    assert "3 networks: 1 right, 2 refused, 0 wrong" in page
    assert "50.0 % right of the 2 that a file can be right for" in page
    assert "refused: not \\| yet" in page
