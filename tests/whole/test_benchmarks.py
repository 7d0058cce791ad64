"""Benchmarks: every contestant runs, the file's spikes are torch's, and the figures are written."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks._measure import exponent, turns
from benchmarks.contestants import UnsupportedError, contestants_found
from synapse_onnx.runtime import native

NETWORKS = command.NETWORKS
CONTESTANTS = contestants_found()


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command.main, list(arguments))
    assert result.exit_code == 0, result.output
    assert torch.is_grad_enabled(), "what is measured without gradients leaves them on behind it"
    return result.output


def test_contestants_are_found() -> None:
    known = {"onnx", "torch", "loop", "snnTorch", "SpikingJelly", "Norse", "lava-dl"}
    assert known | {"floor", "unrolled", "native"} <= set(CONTESTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", ["q8", "float"])
@pytest.mark.parametrize("letter", NETWORKS)
def test_contestants_compute_the_same_network(letter: str, numbers: str) -> None:
    network = NETWORKS[letter]
    network = network.in_q8() if numbers == "q8" else network
    spikes = network.spikes(2, 24, rate=0.3)
    outputs = {}
    for name, contestant in CONTESTANTS.items():
        with contextlib.suppress(UnsupportedError):
            found = contestant.make(network, spikes)()
            if found is not None:
                outputs[name] = np.asarray(found)
    assert {"onnx", "torch", "loop"} <= set(outputs)
    assert "floor" not in outputs, "no neuron runs there"
    expected = outputs["torch"]
    assert 0 < expected.mean() < 1, "a network that is silent, or never is, shows nothing"
    for name, found in outputs.items():
        assert found.shape == expected.shape, name
        if CONTESTANTS[name].exact and numbers == "q8":
            np.testing.assert_array_equal(found, expected)
    if numbers == "float" and letter != "d":  # a phase near zero flips with a rounding
        # the same equation in floats: what flips is a rounding at the threshold
        assert (outputs["loop"] != expected).mean() < 0.02
        assert (outputs["unrolled"] != expected).mean() < 0.02


def test_a_wrong_file_stops_the_comparison() -> None:
    network = NETWORKS["e"].in_q8()
    ones = np.ones((1, 20, 4), np.float32)
    runs = {"torch": lambda: ones, "onnx": lambda: ones}
    assert command.check(network, runs) == (1.0, 0)
    with pytest.raises(command.click.ClickException, match="80 spikes differ"):
        command.check(network, runs | {"onnx": lambda: 1 - ones})


@pytest.mark.slow
def test_figures_are_printed_and_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    short = ("--seconds", "0.01", "--json", str(path))
    shown = run("networks", "--only", "e", "--batch", "1,2", "--steps", "4", *short)
    assert "e q8" in shown
    found = json.loads(path.read_text())
    assert [(row["numbers"], row["batch"]) for row in found["networks"]] == [
        ("q8", 1), ("q8", 2), ("float", 1), ("float", 2),
    ]  # fmt: skip
    assert all(row["ms"]["onnx"] > 0 and row["flips"] == 0 for row in found["networks"][:2])
    assert found["machine"]["cores"] >= 1
    run("growth", "--only", "e", "--time", "2,20", "--batch", "1,8", "--numbers", "q8", *short)
    assert {row["axis"] for row in json.loads(path.read_text())["growth"]} == {"T", "N"}
    run("stream", "--only", "e", "--steps", "20", "--numbers", "q8", *short)
    assert json.loads(path.read_text())["stream"][0]["p99_us"] > 0
    run("options", "--only", "e", "--numbers", "q8", *short)
    (row,) = json.loads(path.read_text())["options"]
    assert {"default", "no memory pattern", "one thread"} <= set(row["ms"])
    run("memory", "--only", "e", "--steps", "4", "--numbers", "q8", *short)
    (row,) = json.loads(path.read_text())["memory"]
    assert row["allowed_mb"] > 0
    assert row["above_idle_mb"] > 0
    run("export", "--only", "e", "--time", "4", "--numbers", "q8", *short)
    assert json.loads(path.read_text())["export"][0]["bytes"] > 0


@pytest.mark.slow
def test_costs_of_single_nodes(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    short = ("--seconds", "0.01", "--json", str(path))
    assert "Cast double to int32" in run("nodes", "--neurons", "300,4000", *short)
    costs = json.loads(path.read_text())["nodes"]
    assert set(costs) == {"300", "4000"}
    assert costs["4000"]["Div int32"] > costs["300"]["Div int32"]
    assert "bytes, spikes" in run("dense", "--inputs", "16", "--outputs", "8", *short)
    assert min(json.loads(path.read_text())["dense"]["8"].values()) > 0
    run("norm", "--neurons", "8", "--steps", "5", *short)
    costs = json.loads(path.read_text())["norm"]["8"]
    forms = ("bias", "norm", "integrators")
    assert {f"{form}, portable" for form in forms} <= costs.keys()
    assert min(costs.values()) > 0


@pytest.mark.slow
def test_costs_of_synapses_over_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("images", "--only", "transposed 32-16")
    refused = CliRunner().invoke(command.main, only)
    assert (refused.exit_code, "Traceback" in refused.output) == (1, False)
    assert "there are no native kernels" in " ".join(refused.output.split())
    monkeypatch.undo()  # the environment as it was given, which may name a library
    if reason := native.problem():
        pytest.skip(f"there are no native kernels: {reason}")
    path = tmp_path / "figures.json"
    run(*only, "--steps", "2", "--seconds", "0.01", "--json", str(path))
    costs = json.loads(path.read_text())["images"]
    assert set(costs) == {f"{kind}transposed 32-16, 3x3, stride 2" for kind in ("", "complex ")}
    assert all(took[way] > 0 for took in costs.values() for way in ("body", "kernel"))


@pytest.mark.slow
def test_costs_of_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the environment as it was given, which may name a library
    if reason := native.problem():
        pytest.skip(f"there are no native kernels: {reason}")
    path = tmp_path / "figures.json"
    short = ("--seconds", "0.01", "--json", str(path))
    assert "LIF, N = 3" in run("scans", "--batch", "3", "--neurons", "40", "--steps", "20", *short)
    costs = json.loads(path.read_text())["scans"]
    assert {name for name, us in costs.items() if "own kernel" in us} == {"LIF, N = 3"}
    assert all(us[way] > 0 for us in costs.values() for way in ("Scan", "kernel"))


def test_wrong_options_get_a_sentence() -> None:
    for arguments, said in (
        (["networks", "--only", "x"], "there are networks a, b"),
        (["networks", "--batch", "many"], "whole numbers"),
        (["networks", "--batch", "0"], "at least 1"),
        (["images", "--only", "dense"], "there are conv"),
    ):
        result = CliRunner().invoke(command.main, arguments)
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert said in result.output


def test_medians_and_exponents() -> None:
    calls = []
    assert turns({"one": lambda: calls.append(1)}, 0.0, least=3)["one"] > 0
    assert len(calls) >= 5
    assert exponent([10, 100, 1000], [1.0, 7.0, 70.0]) == pytest.approx(1.0)
    assert exponent([1, 2], [1.0, 4.0]) == pytest.approx(2.0)
