"""Recipes of networks that others published: their tables are in docs/reference/published.md."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from published import FOLDER

import synapse_onnx as so
from exporters import _published as published
from exporters import brf, ndns, neurobench, nir_paper
from exporters.__main__ import Recipes, main

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "published.md"
reference = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no folder {FOLDER}")
# of snnTorch's and neurobench's own code
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]


def peer(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: see peers.txt")


def called(recipe: str, folder: Path, *options: object) -> tuple[Result, str]:
    """Run a recipe; return its result, and its section of a page."""
    page = folder / "page.md"
    page.write_text(f"# Page\n\n<!-- python -m exporters {recipe} -->\n<!-- end -->\n\nMore.\n")
    given = ["--page", page, "--output", folder / "files", *options]
    result = CliRunner().invoke(main, [recipe, *map(str, given)])
    text = page.read_text()
    assert text.endswith("<!-- end -->\n\nMore.\n")
    return result, published.section(text, recipe)


def rows(section: str) -> dict[str, list[list[str]]]:
    """The tables of a section: title -> rows, without the head."""
    tables: dict[str, list[list[str]]] = {}
    for part in section.split("**")[1:]:
        if "|" not in part:
            title = part
            continue
        lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.strip()]
        tables[title] = lines[2:]
    return tables


def compare(found: str, recipe: str, exact: Sequence[int], close: Sequence[int] = ()) -> None:
    """Compare a section with the page's: columns that are equal, and figures within 0.1 %.

    The page may have more networks than are here.
    """
    kept = rows(published.section(PAGE.read_text(), recipe))
    tables = rows(found)
    assert tables.keys() == kept.keys()
    for title, lines in tables.items():
        known = {tuple(line[:2]) if "Braille" in title else line[0]: line for line in kept[title]}
        assert lines
        for line in lines:
            old = known[tuple(line[:2]) if "Braille" in title else line[0]]
            for i in exact:
                if i < len(line):
                    assert line[i] == old[i], (title, line, old)
            for i in close:
                if i < len(line) and "metrics" in title:
                    values = (float(cell[i].replace(",", "")) for cell in (line, old))
                    assert next(values) == pytest.approx(next(values), rel=1e-3)


# -- N-DNS ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ndns_without_weights_proves_a_file_with_delays_of_64_steps(tmp_path: Path) -> None:
    result, section = called("ndns", tmp_path, "--steps", 90)
    assert result.exit_code == 0, result.output
    assert "the network has random weights and delays, and denoises nothing" in " ".join(
        result.output.split()
    )
    assert "equal; files are in" in result.output
    (row,) = rows(section)["N-DNS baseline, random magnitudes"]
    assert row[:2] == ["random", "64, 64"]
    assert row[4:6] == ["0", "0"]
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == ["ndns_random.onnx", "ndns_random_stream.onnx"]
    # what the random network does is not the identity
    x = ndns.magnitudes(1, 90)
    y = so.Session(tmp_path / "files" / "ndns_random.onnx").run(x.numpy())
    assert float((y != x.numpy()).mean()) > 0.01


@pytest.mark.slow
def test_ndns_takes_a_checkpoint_and_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ndns.untrained(seed=3)
    torch.save(network.state_dict(), tmp_path / "network.pt")
    stored = ndns.trained(tmp_path / "network.pt")
    x = ndns.magnitudes(1, 80)
    with torch.no_grad():
        assert torch.equal(stored(x), network(x))
        # the 65th step is the first that the longest delay reaches
        network.blocks[2].delay.delay.data[:] = 63
        assert not torch.equal(stored(x), network(x))
    real = so.Session.run

    def off(self: so.Session, *inputs: Any) -> Any:
        y = real(self, *inputs)
        return y if isinstance(y, tuple) else y + 0.01  # verify asks for all layers

    monkeypatch.setattr(so.Session, "run", off)
    result, _ = called("ndns", tmp_path, "--checkpoint", tmp_path / "network.pt", "--steps", 20)
    assert result.exit_code == 1
    assert "NOT equal: ndns_checkpoint: off by 1.0e-02" in result.output


def test_a_net_file_is_compared_behind_the_steps_of_training() -> None:
    network = ndns.untrained()
    x = ndns.magnitudes(1, 90)

    class Sooner(torch.nn.Module):
        """Stands for what load_net returns of the same network: it does not wait two steps."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in network.blocks:
                x = layer(x)
            return torch.roll(x, -2, -1)

    assert ndns.apart_by(network, Sooner(), x) == (0, 2)
    difference, _ = ndns.apart_by(network, torch.nn.Identity(), x)
    assert difference > 0.1


def test_the_longest_delay_is_of_64_steps() -> None:
    network = ndns.untrained()
    assert list(ndns.delays_of(network)) == [64, 64]
    assert network.blocks[1].delay.max_delay == 64
    impulse = torch.zeros(1, ndns.HIDDEN, 70)
    impulse[0, -1, 0] = 1
    with torch.no_grad():
        assert int(network.blocks[1].delay(impulse)[0, -1].argmax()) == 64


# -- the NIR paper --------------------------------------------------------------------------------


@pytest.mark.slow
@reference
def test_the_neuron_and_the_letters_of_the_nir_paper(tmp_path: Path) -> None:
    peer("nir")
    result, section = called("nir_paper", tmp_path, "--reference", FOLDER)
    assert result.exit_code == 0, result.output
    compare(section, "nir_paper", exact=(0, 1, 2, 3, 4, 5, 6, 7))
    neurons, letters = rows(section).values()
    assert {line[0] for line in neurons} == {
        "Norse", "Rockpool", "sinabs", "snnTorch", "Nengo", "Spyx"
    }  # fmt: skip
    assert all(line[2:4] == ["4", "4"] and line[6] == "0" for line in neurons)
    # flips are shown as they are recorded: Spyx reports a step later
    assert {line[0]: line[4] for line in neurons}["Spyx"] == "8"
    assert [line[1] for line in letters] == ["zero", "subtract"]
    assert all(line[4] == line[7] == "0" for line in letters)


@reference
def test_another_convention_shows_its_flips(tmp_path: Path) -> None:
    peer("nir")
    sinabs = next(s for s in nir_paper.SIMULATORS if s.name == "sinabs")
    # norm_input is another scale of the input, by which the neuron never spikes
    other = nir_paper.Simulator("sinabs", "sinabs", {**sinabs.how, "enters": "lost"})
    folder = FOLDER / "nir_paper"
    recording, graph = folder / "lif_sinabs.csv", folder / "lif_norse.nir"
    row, faults = nir_paper.neuron(other, recording, graph, tmp_path)
    assert (row[3], row[4], faults) == ("0", "4", [])


def test_the_second_reset_of_snntorch_is_that_of_its_synaptic() -> None:
    snn = peer("snntorch")
    weights = {"lif2.alpha": torch.tensor(0.5), "lif2.beta": torch.tensor(0.8),
               "lif2.threshold": torch.tensor(0.3)}  # fmt: skip
    for reset in ("zero", "subtract"):
        synaptic = snn.Synaptic(
            alpha=0.5, beta=0.8, threshold=0.3, reset_mechanism=reset, reset_delay=False
        )
        syn, mem = synaptic.init_synaptic()
        authors = nir_paper.Authors(weights, reset, twice=True)
        once = nir_paper.Authors(weights, reset)
        ours = theirs = single = (torch.zeros(()), torch.zeros(2, 5), torch.zeros(2, 5))
        theirs = (theirs[0], syn, mem)
        differs = False
        for current in torch.randn(40, 2, 5, generator=torch.Generator().manual_seed(0)):
            ours = authors._fired(current, *ours[1:], "lif2")
            single = once._fired(current, *single[1:], "lif2")
            theirs = synaptic(current, *theirs[1:])
            assert torch.equal(ours[0], theirs[0])
            differs |= not torch.equal(ours[0], single[0])
        assert differs == (reset == "subtract")


# -- NeuroBench -----------------------------------------------------------------------------------


@pytest.mark.slow
@reference
def test_the_networks_of_neurobench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer("snntorch")
    result, section = called("neurobench", tmp_path, "--reference", FOLDER)
    assert result.exit_code == 0, result.output
    files, metrics = rows(section).values()
    assert [line[0] for line in files] == ["gsc", "reaching_indy_20160622_01"]
    assert [line[4:6] for line in files] == [["0", "0"], ["0", "readout"]]
    compare(section, "neurobench", exact=(0, 1), close=(3, 4, 5, 6, 7, 8))
    assert {line[-1] for line in metrics} <= {"equal", "not installed"}
    assert "dvs_gesture: no file dvs_gesture/model_data/dvs_gesture_snn, left out" in result.output
    wrong = {"Footprint": 1}
    monkeypatch.setattr(neurobench, "package", lambda *_: wrong)
    example = next(e for e in neurobench.EXAMPLES if e.name == "gsc")
    path = FOLDER / "neurobench" / "s2s_gsc_snntorch"
    model = tmp_path / "files" / "neurobench_gsc.onnx"
    row, faults = neurobench._measured(example, path, example.inputs(1)[:, :5], model)
    assert row[-1] == "differs"
    assert any(fault.startswith("gsc: neurobench gives") for fault in faults)
    # of 5 steps, not of NeuroBench's 200
    assert any("published dense operations 29,030,400.0" in fault for fault in faults)


@reference
def test_accuracy_on_real_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer("snntorch")
    example = next(e for e in neurobench.EXAMPLES if e.name == "gsc")
    path = FOLDER / "neurobench" / "s2s_gsc_snntorch"
    x = example.inputs(4)[:, :60]
    classes = neurobench.live(example.load(path), x)[0].sum(1).argmax(1)
    labels = np.where(np.arange(4) == 0, classes + 1, classes)  # one of them is wrong
    np.save(tmp_path / "gsc_inputs.npy", x.numpy())
    np.save(tmp_path / "gsc_labels.npy", labels)
    model = tmp_path / "gsc.onnx"
    so.export(so.over_time(example.load(path), axes="NTC"), x, model)
    assert neurobench._scored(example, path, model, tmp_path) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "gsc: 4 samples, accuracy 75.00% in ONNX Runtime, 75.00% in snnTorch, 0 flips" in said
    assert neurobench._scored(example, path, model, FOLDER) == []  # no such files there


def test_shapes_of_neurobenchs_networks_are_what_its_checkpoints_have() -> None:
    peer("snntorch")
    examples = {example.name: example for example in neurobench.EXAMPLES}
    networks = {name: example.make() for name, example in examples.items()}
    for name, network in networks.items():
        stored = [*network.parameters(), *network.buffers()]
        size = sum(tensor.numel() * tensor.element_size() for tensor in stored)
        assert examples[name].footprint in (None, size), name
    assert len(networks) == 9


# -- what they share ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["neurobench", "nir_paper"])
def test_a_recipe_without_its_networks_says_where_they_are(recipe: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"exporters.{recipe}")
    peer(module.NEEDS)
    result, section = called(recipe, tmp_path, "--reference", tmp_path / "none")
    assert result.exit_code == 2
    assert "give --" in result.output
    assert not section


@pytest.mark.parametrize("recipe", ["neurobench", "nir_paper"])
def test_a_recipe_says_which_package_it_needs(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = importlib.import_module(f"exporters.{recipe}").NEEDS
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    result, _ = called(recipe, tmp_path)
    assert result.exit_code == 2
    assert f"{needs} is not installed; see peers.txt" in result.output


def test_pages_have_a_section_for_each_recipe() -> None:
    page = PAGE.read_text()
    for name in ("ndns", "neurobench", "nir_paper"):
        assert rows(published.section(page, name))
    with pytest.raises(click.UsageError, match="the page has no section"):
        published.section(page, "digits")


def test_every_simulator_and_network_is_on_the_page() -> None:
    page = PAGE.read_text()
    neurons, letters = rows(published.section(page, "nir_paper")).values()
    assert [line[0] for line in neurons] == [s.shown for s in nir_paper.SIMULATORS]
    assert len(letters) == 4
    files, metrics = rows(published.section(page, "neurobench")).values()
    names = [example.name for example in neurobench.EXAMPLES]
    assert [line[0] for line in files] == [line[0] for line in metrics] == names
    assert {line[-1] for line in metrics} == {"equal"}


def test_flips_are_of_arrays_of_one_shape() -> None:
    assert published.flips(np.array([0, 1, 2]), np.array([1, 1, 0])) == 2
    with pytest.raises(click.ClickException, match="outputs of shapes"):
        published.flips(np.zeros(3), np.zeros(1))


# -- electrocardiograms ---------------------------------------------------------------------------


def test_every_recipe_has_a_section_of_the_page() -> None:
    for name in Recipes().list_commands(None):  # type: ignore[arg-type]
        if hasattr(importlib.import_module(f"exporters.{name}"), "published"):
            assert "|" in published.section(PAGE.read_text(), name)


@pytest.mark.slow
@reference
def test_electrocardiograms_give_the_table_of_the_page(tmp_path: Path) -> None:
    result, section = called("brf", tmp_path)
    assert result.exit_code == 0, result.output
    found, kept = (rows(text) for text in (section, published.section(PAGE.read_text(), "brf")))
    (title,) = found
    assert [line[:6] for line in found[title]] == [line[:6] for line in kept[title]]
    assert [line[4:6] for line in found[title]] == [["0", "0"]] * 2


@pytest.mark.slow
@reference
def test_accuracies_are_counted_after_the_steps_that_are_left_out(tmp_path: Path) -> None:
    x = brf.signals(40, 5)
    network = brf.trained(FOLDER / "brf" / "ecg_alif.pt", brf.Adaptive())
    with torch.no_grad():
        classes = network(x).argmax(dim=2)
    classes[:10] = (classes[:10] + 1) % brf.CLASSES  # wrong, and left out
    classes[10:12] = (classes[10:12] + 1) % brf.CLASSES  # 2 of 30 steps
    y = torch.nn.functional.one_hot(classes, brf.CLASSES).float()
    padding = torch.full((1, 5, brf.CHANNELS), -1.0), torch.full((1, 5, brf.CLASSES), -1.0)
    data = {
        name: torch.cat((values, last)).transpose(0, 1).numpy()
        for name, values, last in zip("xy", (x, y), padding, strict=True)
    }
    scipy = peer("scipy.io")
    scipy.savemat(tmp_path / "test.mat", data)
    result, section = called("brf", tmp_path, "--data", tmp_path / "test.mat")
    assert result.exit_code == 0, result.output
    accuracies = rows(section)["Electrocardiograms, accuracy"]
    assert accuracies[1][1:4] == ["70.75%", "93.33%", "93.33%"]
    assert accuracies[1][5] == "100.000%"


def test_without_the_weights_the_recipe_says_where_it_looked(tmp_path: Path) -> None:
    result, _ = called("brf", tmp_path, "--reference", tmp_path)
    assert result.exit_code == 2
    assert f"no brf/ecg_rf.pt in {tmp_path}" in " ".join(result.output.split())
