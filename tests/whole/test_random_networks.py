"""A share of the random networks, what the generator covers, and every case that once failed.

``python tests/random_networks`` runs for hours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import random_networks as rn
import torch

import synapse_onnx as so
from synapse_onnx.ops import all_ops

FILES = sorted(rn.CASES.glob("*.json"))


@pytest.fixture(scope="module")
def drawn() -> list[rn.Case]:
    """Random cases, not run: each has been built layer by layer when it was drawn."""
    found: list[rn.Case] = []

    @hypothesis.settings(
        max_examples=60, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(rn.cases())
    def collect(case: rn.Case) -> None:
        found.append(case)

    for seed in range(6):  # one run draws many that are alike
        hypothesis.seed(seed)(collect)()
    return found


def all_layers(layers: list[rn.Layer]) -> Iterator[rn.Layer]:
    """Every layer, those of branches too."""
    for layer in layers:
        yield layer
        for arm in layer.get("arms", ()):
            yield from all_layers(arm)


# -- the share -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.gpu
def test_random_networks_are_equal(seed: int) -> None:
    tally = rn.Tally()
    rn.hunt(seed, 7, tally)
    assert not tally.failures, "{1}\n{0}".format(*tally.failures[0])
    assert tally.networks >= 5, str(tally)
    assert tally.exact >= 1, str(tally)
    assert tally.comparisons > 4 * tally.networks, str(tally)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
@pytest.mark.gpu
def test_a_case_that_once_failed_is_equal(path: Path) -> None:
    case = rn.read(path)
    verdict = rn.judge(case)
    assert not verdict.problems, verdict.problems[0]
    # what must be refused says by which sentence
    assert case.get("refused", "") in verdict.refused
    assert bool(verdict.refused) is ("refused" in case)
    assert bool(verdict.comparisons) is ("refused" not in case)


# -- the generator -------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_synapse_neuron_block_and_weight_is_drawn(drawn: list[rn.Case]) -> None:
    layers = [layer for case in drawn for layer in all_layers(case["layers"])]
    synapses = {(x["name"], x["complex"]) for x in layers if x["is"] == "synapse"}
    assert synapses == {(name, part) for name in rn.SYNAPSES for part in (False, True)}
    neurons = [x for x in layers if x["is"] == "neuron"]
    neurons += [x["neuron"] for x in layers if x["is"] == "block" and "synapse" not in x]
    ran = {(n["name"], n["arguments"].get("regime")) for n in neurons}
    kinds = so.neuron.kinds()
    assert ran >= {(kind, regime) for kind in kinds for regime in rn.regimes(kind)}
    made = {x["block"] for x in layers if x["is"] == "block"}
    assert made == {name for kind in kinds for name in getattr(so.block, kind).__all__}
    assert {x["weights"] for x in layers if "weights" in x} == {"default", *rn.WEIGHTS}
    assert {x["is"] for x in layers} == set(rn.MAKERS)
    arguments = [n["arguments"] for n in neurons]
    assert any(a.get("graded_spike") for a in arguments)
    assert any(a.get("shared_param") is False for a in arguments)
    assert {n["norm"] for n in neurons if "norm" in n} == set(rn.NORMS)
    assert {x["each"] for x in layers if x["is"] == "delay"} == {"one", "channel", "neuron"}


@pytest.mark.slow
def test_every_geometry_input_and_way_to_run_is_drawn(drawn: list[rn.Case]) -> None:
    layers = [layer for case in drawn for layer in all_layers(case["layers"])]
    shapes = [x["geometry"] for x in layers if "geometry" in x]
    seen = Counter(
        name
        for geometry in shapes
        for name, value in geometry.items()
        if value is True or value not in (False, None, 1, [1, 1], [0, 0])
    )
    wanted = {"kernel_size", "stride", "padding", "dilation", "groups", "merge_channels"}
    assert set(seen) == wanted
    assert {x["join"] for x in layers if x["is"] == "split"} == {"sum", "cat"}
    assert {case["input"]["kind"] for case in drawn} == set(rn.INPUTS)
    assert {case["input"]["pair"] for case in drawn} == {False, True}
    assert {len(case["input"]["sizes"]) for case in drawn} == {1, 3}
    assert {variant for case in drawn for variant in case["variants"]} == set(rn.VARIANTS)
    for name, values in {
        "streaming": {False, True}, "dynamic": {False, True}, "layout": {"NCT", "TNC"},
        "input_type": {"float32", "uint8"}, "opset": {21, 22, 24},
    }.items():  # fmt: skip
        assert {case["export"][name] for case in drawn} == values
    assert {1} < {case["batch"] for case in drawn}
    assert {1} < {case["steps"] for case in drawn}


@pytest.mark.slow
def test_a_case_is_rebuilt_from_json(drawn: list[rn.Case]) -> None:
    for case in drawn[::15]:
        again = json.loads(json.dumps(case))
        assert again == case
        first, second = rn.build(case).state_dict(), rn.build(again).state_dict()
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_op_can_stand_in_a_random_network() -> None:
    """Each op belongs to a layer that is drawn: a synapse, a neuron, or one of a few by itself."""
    single = {
        "Average", "Delay", "Delta", "LeakyIntegrator", "LeakyIntegratorFloat", "Normalize",
        "Sigma", "Spike", "TimeDecimation",
    }  # fmt: skip
    names = set(rn.SYNAPSES) | {
        module.Neuron.equation.name
        for module in so.neuron.kinds().values()
        if hasattr(module.Neuron, "equation")
    }
    stray = {op for op in all_ops() if not any(name in op for name in names)} - single
    assert not stray


def test_a_failure_is_shrunk_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported: a judge that refuses weights stands in."""

    def judge(case: rn.Case) -> rn.Verdict:
        bad = any("weights" in layer for layer in case["layers"])
        return rn.Verdict(["weights"] if bad else [], comparisons=1)

    monkeypatch.setattr(rn.compare, "judge", judge)
    tally = rn.Tally()
    rn.hunt(3, 25, tally)
    ((case, why),) = tally.failures
    assert why == "weights"
    assert len(case["layers"]) <= 2
    path = rn.write(case, why, tmp_path)
    assert rn.write(case, why, tmp_path) != path
    assert {"found": [why], **case} == rn.read(path)
