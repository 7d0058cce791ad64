"""What ``load_nir`` is given holds; what it assumes is said in a sentence, and nothing else."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nir_graphs import DT, NEURONS, SETTLED, WEIGHT, lif, line, many, read, recurrent

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.readers._nir.convention import CONVENTIONS, Convention


def sentences(graph: Any, **how: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        so.load_nir(graph, **how)
    assert all(warning.category is UserWarning for warning in caught)
    texts = [str(warning.message) for warning in caught]
    assert all("\n" not in text and "assumed " in text for text in texts)
    return texts


# -- what is given ---------------------------------------------------------------------------------


def test_every_field_of_the_convention_can_be_given() -> None:
    names = {field.name for field in fields(Convention)} - {"source"}
    assert names < set(inspect.signature(so.load_nir).parameters)
    for name in names:
        assert f"\n        {name}: " in (so.load_nir.__doc__ or "")


@pytest.mark.parametrize("kind", ["CubaLIF", "LIF", "IF", "recurrent"])
@pytest.mark.parametrize("framework", sorted(set(SETTLED)))
@pytest.mark.parametrize("reset", ["zero", "subtract", "delayed", "delayed_zero"])
def test_a_given_reset_is_never_another(framework: str, kind: str, reset: str) -> None:
    graph = recurrent(np.eye(4), nested=False) if kind == "recurrent" else line(NEURONS[kind][0])
    how = {"dt": DT, "tau_unit": 1.0, "max_spikes": 1, "min_v_mem": "none", "strict": True}
    if framework == "norse":
        how["rest"] = "zero"
    net = read(graph, framework, **how, reset=reset)
    (layer,) = (part for part in net.modules() if isinstance(part, so.neuron.lif.Neuron))
    assert layer.reset_kind == reset


def test_a_reset_of_the_metadata_is_no_other_either() -> None:
    node = NEURONS["CubaLIF"][0]
    net: Any = so.load_nir(line(node, framework="snntorch", reset="zero"))
    assert net.layers.n0.reset_kind == "zero"
    later = read(line(node), "snntorch", reset="zero", zero_behind="delayed_zero")
    assert later.layers.n0.reset_kind == "delayed_zero"


@pytest.mark.parametrize(
    ("field", "value", "kind", "gain"),
    [
        ("tau_unit", 2.0, "LIF", 3 * DT / 2.6e-3),
        ("enters", "whole", "LIF", 3.0),
        ("enters", "kept", "LIF", 3 * (DT / 1.3e-3) / (1 - DT / 1.3e-3)),
        ("readout_enters", "whole", "LI", 3.0),
        ("arrives", "jump", "CubaLIF", 9 * DT / 1.3e-3 * 1.5),
        ("integrate", "step", "IF", 3000.0),
        ("integration", "exponential", "LIF", 3 * -math.expm1(-DT / 1.3e-3)),
    ],
)
def test_a_given_field_settles_the_gain(field: str, value: Any, kind: str, gain: float) -> None:
    net = read(line(NEURONS[kind][0]), **{field: value})
    assert float(net.layers.n0.gain.detach()[0]) == pytest.approx(gain, rel=1e-6)


def test_given_rest_and_strictness() -> None:
    node = nir.LIF(many(1e-3), many(1), many(0.25), many(1.0), many(0.0))
    net = read(line(node), rest="v_leak", strict=False)
    assert float(net.layers.n0.v_threshold.detach()[0]) == 0.75
    assert not net.layers.n0.strict


def test_fields_from_the_command_line(tmp_path: Path) -> None:
    path, model = str(tmp_path / "a.nir"), str(tmp_path / "a.onnx")
    nir.write(path, line(NEURONS["CubaLIF"][0]))
    options = ("strict=false", "enters=whole", "max-spikes=2", "min-v-mem=-0.5", "reset=subtract")
    sets = [part for option in ("framework=nir", "dt=1e-4", *options) for part in ("--set", option)]
    result = CliRunner().invoke(main, ["export", path, "-o", model, *sets])
    assert result.exit_code == 0, result.output
    assert "note: " not in result.output
    assert CliRunner().invoke(main, ["verify", path, model, *sets]).exit_code == 0
    result = CliRunner().invoke(main, ["export", path, "-o", model])
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert said.startswith(f"note: {path} does not say which framework wrote it; assumed")
    assert result.stderr == ""
    result = CliRunner().invoke(main, ["verify", path, model, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"]
    assert result.stderr.startswith(f"note: {path} does not say which framework wrote it; assumed")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"max_spikes": 0}, "max_spikes must be a whole number of at least 1, or infinite, got 0"),
        ({"max_spikes": 1.5}, "max_spikes must be a whole number"),
        ({"max_spikes": math.nan}, "max_spikes must be a whole number"),
        ({"min_v_mem": "low"}, "min_v_mem must be a finite number, none, if or -v_threshold, got"),
        ({"min_v_mem": math.inf}, "min_v_mem must be a finite number"),
        ({"strict": "no"}, "strict must be true or false, got 'no'"),
        ({"version": "new"}, "version must be numbers with dots, as in 1.1.0, got 'new'"),
        ({"arrives": "late"}, "arrives must be one of spread, jump, decayed, got 'late'"),
        (
            {"max_spikes": 3},
            "node n0 .LIF.: lif neuron: max_spikes and lowest go with strict=False",
        ),
        (
            {"max_spikes": 3, "strict": False, "reset": "delayed"},
            "max_spikes and lowest go with reset 'zero' or 'subtract', got 'delayed'",
        ),
        (
            {"max_spikes": 3, "strict": False, "rest": "v_leak"},
            "several spikes in a time step go with voltages that start at zero",
        ),
    ],
)
def test_what_cannot_be_given(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        so.load_nir(line(NEURONS["LIF"][0]), framework="nir", dt=DT, **how)


# -- what is assumed -------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", sorted(SETTLED))
def test_nothing_is_said_where_nothing_is_assumed(framework: str) -> None:
    for kind, (node, _) in NEURONS.items():
        how = SETTLED[framework] | ({"tau_unit": 1.0} if framework == "norse" else {})
        assert (
            sentences(line(node), framework=framework, **({"dt": DT} | how | {"dt": DT})) == []
        ), kind


@pytest.mark.parametrize("framework", sorted(SETTLED))
def test_each_option_that_is_left_open_is_named(framework: str) -> None:
    """And no other: what is given is not in the sentence."""
    node = NEURONS["IF"][0] if framework == "sinabs" else NEURONS["LIF"][0]
    settled = {k: v for k, v in SETTLED[framework].items() if k != "readout_enters"}
    if framework == "sinabs":
        del settled["enters"]
    if framework == "rockpool":  # tau and r tell
        del settled["dt"]
    how = {"version": settled.pop("version")} if "version" in settled else {}
    for name in settled:
        others = {key: value for key, value in settled.items() if key != name}
        dt = {} if name == "dt" or framework == "norse" else {"dt": DT}
        graph = line(node) if framework != "norse" else line(lif_in(1e-5))
        (text,) = sentences(graph, framework=framework, **how, **dt | others)
        assert text.startswith(
            f"the graph: graphs of {framework} leave options open; assumed {name}="
        )
        assert not any(f"{other}=" in text for other in others)


def lif_in(tau: float) -> Any:
    return nir.LIF(many(tau), many(1), many(0), many(0.5))


def test_without_a_framework_it_says_so() -> None:
    assert sentences(line(lif())) == [
        "the graph does not say which framework wrote it; assumed framework='nir', the equations "
        "of NIR by the Euler method, with dt=0.0001 s; give framework= to load_nir"
    ]
    (text,) = sentences(line(lif()), dt=2e-4)
    assert "dt" not in text
    assert sentences(line(lif(), framework="sinabs"), **SETTLED["sinabs"]) == []
    assert sentences(line(nir.Linear(WEIGHT), nir.Threshold(many(0.5, 3)))) == []
    assert sentences(so.to_nir(so.neuron.lif.Neuron(beta=0.8), input_shape=(4,))) == []


# -- Norse -----------------------------------------------------------------------------------------


def decay(**how: Any) -> tuple[float, list[str]]:
    tau = how.pop("tau")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net: Any = so.load_nir(
            line(lif_in(tau), **how.pop("metadata", {})), **{"reset": "zero", "dt": 1e-3} | how
        )
    kept = float(net.layers.n0.beta.detach()[0])
    return round(1 - kept, 6), [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("version", "tau"),
    [("1.1.0", 1e-5), ("1.1", 1e-5), ("1.1.0.post1", 1e-5), ("1.0.0", 1e-2), ("0.0.7", 1e-2),
     ("1.1.1", 1e-2), ("1.2", 1e-2), ("2.0.0", 1e-2)],
)  # fmt: skip
def test_norse_by_version(version: str, tau: float) -> None:
    """tau_inv = 100 / s, dt = 1 ms: a tenth is lost in a step, whichever version wrote it."""
    assert decay(tau=tau, framework="norse", version=version) == (0.1, [])
    assert decay(tau=tau, metadata={"framework": "norse", "version": version}) == (0.1, [])
    assert decay(tau=tau, metadata={"framework": f"Norse {version}"}) == (0.1, [])


def test_norse_without_a_version_is_compared_with_the_time_step() -> None:
    lost, (text,) = decay(tau=1e-5, framework="norse")
    assert lost == 0.1
    assert "which version of Norse wrote it; assumed 1.1.0, which writes tau = dt / tau_inv" in text
    lost, (text,) = decay(tau=1e-2, framework="norse")
    assert lost == 0.1
    assert "assumed another than 1.1.0, one that writes tau = 1 / tau_inv" in text
    assert decay(tau=1e-2, framework="norse", tau_unit=1.0) == (0.1, [])
    assert decay(tau=1e-2, framework="norse", tau_unit=2.0, version="1.1.0") == (0.05, [])


# -- Rockpool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [1e-3, 1e-4, 2.5e-4, 1 / 3e3])
def test_rockpools_time_step_follows_from_its_r(dt: float) -> None:
    taus = np.array([0.02, 0.01, 0.005, 0.03])
    r = (taus * np.exp(-dt / taus) / dt).astype(np.float32)
    node = nir.LIF(taus.astype(np.float32), r, many(0), many(1.0))
    assert sentences(line(node), framework="rockpool", max_spikes=1) == []
    net: Any = so.load_nir(line(node), framework="rockpool", max_spikes=1)
    kept = net.layers.n0.beta.detach().double().numpy()
    np.testing.assert_allclose(kept, np.exp(-dt / taus), rtol=1e-6)
    np.testing.assert_allclose(net.layers.n0.gain.detach().numpy(), 1, rtol=1e-5)
    given: Any = so.load_nir(line(node), framework="rockpool", max_spikes=1, dt=2 * dt)
    np.testing.assert_allclose(given.layers.n0.beta.detach(), np.exp(-2 * dt / taus), rtol=1e-6)
    odd = nir.LIF(taus, r * np.array([1, 1, 2, 1]), many(0), many(1.0))
    (text,) = sentences(line(odd), framework="rockpool", max_spikes=1)
    assert "assumed dt=0.001 s; give" in text


# -- several spikes, lowest voltages ---------------------------------------------------------------


def test_sinabs_if_neurons_have_a_lowest_voltage() -> None:
    x = torch.tensor([[[-5, 0.6, 0.6, 0.6, 0.6, 0.6]]])
    graph = line(nir.Linear(np.ones((1, 1))), nir.IF(many(1, 1), many(1, 1)), shape=(1,))
    spikes = {
        low: so.load_nir(
            graph, framework="sinabs", reset="subtract", max_spikes=most, min_v_mem=low
        )
        for low, most in (("if", math.inf), ("-v_threshold", 1), (-1.0, 3), (-0.5, 1), ("none", 1))
    }
    with torch.no_grad():
        found = {low: net(x).flatten().tolist() for low, net in spikes.items()}
    assert found["if"] == found["-v_threshold"] == found[-1.0] == [0, 0, 0, 0, 1, 1]
    assert found[-0.5] == [0, 0, 0, 1, 0, 1]
    assert found["none"] == [0, 0, 0, 0, 0, 0]


def test_several_spikes_are_written_and_read_back() -> None:
    node = nir.IF(many(1), np.array([1.0, 0.5, 2.0, 0.25]))
    net = read(line(node), "sinabs", min_v_mem="-v_threshold")
    x = 3 * torch.randn(2, 4, 40, generator=torch.Generator().manual_seed(0))
    again = so.load_nir(so.to_nir(net))
    with torch.no_grad():
        assert net(x).max() > 3
        assert torch.equal(again(x), net(x))
        assert not torch.equal(read(line(node), "sinabs", max_spikes=1)(x), net(x))
        assert not torch.equal(read(line(node), "sinabs", min_v_mem="none")(x), net(x))
    plain = so.to_nir(so.neuron.lif.Neuron(beta=0.8), input_shape=(4,))
    assert "max_spikes" not in plain.metadata


def test_a_readout_with_a_lowest_voltage() -> None:
    graph = line(nir.LI(many(8), many(1), many(0)))
    x = torch.tensor([-2.0, 0.5, 0.5]).expand(1, 4, 3)
    net = read(graph, "sinabs", min_v_mem=-1.0)
    keep = math.exp(-1 / 8)
    with torch.no_grad():
        np.testing.assert_allclose(
            net(x)[0, 0], [-2, 0.5 - keep, 0.5 + keep * (0.5 - keep)], rtol=1e-6
        )
        assert so.verify(net, so.export(net, x), x).ok


def test_conventions_of_one_name_only() -> None:
    assert set(SETTLED) | {"synapse-onnx"} == set(CONVENTIONS)
