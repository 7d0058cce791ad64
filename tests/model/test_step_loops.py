"""Loops over time in a file, as ``inspect`` lists them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from calls_of_commands import good
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.step_loops import StepLoop, step_loops


def _step(x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    v = 0.5 * state["v"] + x - 0.25 * state["w"]
    return (v > 0.25).float(), {"v": v, "w": 0.5 * state["w"] + v * v}


class _Alone(nn.Module):
    """A neuron of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.mine = so.neuron.step(_step, states={"v": 0.0, "w": 0.0})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mine(x)
        return y


class _Cubic(nn.Module):
    """A neuron that is none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 6), []
        for x_t in x:
            v = 0.5 * v - v * v * v + self.fc(x_t)
            out.append(v)
        return torch.stack(out)


def test_a_loop_that_was_found_and_a_neuron_of_the_users() -> None:
    (found,) = step_loops(so.export(_Cubic().eval(), torch.zeros(5, 2, 4)).graph)
    assert found.states == ((None, 6),)
    assert 4 <= found.operators <= 9
    model = so.export(_Alone().eval(), torch.zeros(2, 6, 5))
    (found,) = step_loops(model.graph)
    assert found.name.startswith("mine")
    assert found.states == ((None, 6), (None, 6))


def test_inspect_lists_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = so.export(_Alone().eval(), torch.zeros(2, 6, 5), "net.onnx")
    (loop,) = step_loops(model.graph)
    lines = [" ".join(line.split()) for line in good("inspect", "net.onnx").splitlines()]
    assert "loop over time states operators" in lines
    assert f"{loop.name} (?, 6), (?, 6) {loop.operators}" in lines
    (found,) = json.loads(good("inspect", "net.onnx", "--json"))["loops"]
    states = [[None, 6], [None, 6]]
    assert found == {"name": loop.name, "states": states, "operators": loop.operators}


def test_scans_without_states_and_operators_in_branches() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2] a, float[T, 2] x, bool on) => (float[2] b, float[T, 2] y, float[T, 2] z) {
            z = Scan <num_scan_inputs = 1, body = tile (float[2] p) => (float[2] q) { q = Neg (p) }>
                (x)
            b, y = Scan <num_scan_inputs = 1, body = step (float[2] s, float[2] p)
                => (float[2] t, float[2] q) {
                t = Add (s, p)
                q = If (on) <then_branch = yes () => (float[2] u) { u = Neg (t) },
                             else_branch = no () => (float[2] u) { w = Abs (t) u = Neg (w) }>
            }> (a, x)
        }"""
    )
    assert step_loops(model.graph) == [StepLoop("", ((2,),), 5)]
