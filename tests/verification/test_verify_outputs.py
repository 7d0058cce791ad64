"""verify with some of the outputs: of the others nothing is demanded, and the report says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from faults import replace_values
from networks import cuba, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.errors import InputError
from synapse_onnx.model.graph import needed_for, taken_by

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(3, 6, 24, seed=4)


class Heads(nn.Module):
    """A trunk, and two heads on it, of which the right one also sees the left: (N, 6, T)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        q8 = so.quantize.q8
        self.trunk = so.synapse.Dense(6, 8, weight_scale=3, pre_hook_fx=q8)
        self.trunk_neuron = cuba()
        self.left = so.synapse.Dense(8, 4, weight_scale=3, pre_hook_fx=q8)
        self.left_neuron = cuba()
        self.right = so.synapse.Dense(12, 3, weight_scale=3, pre_hook_fx=q8)
        self.right_neuron = cuba()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.trunk_neuron(self.trunk(x))
        left = self.left_neuron(self.left(trunk))
        right = self.right_neuron(self.right(torch.cat([trunk, left], dim=1)))
        return left, right


class Shared(nn.Module):
    """One layer that serves both outputs, by a call of its own for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = so.synapse.Dense(6, 5, weight_scale=3, pre_hook_fx=so.quantize.q8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.dense(x), self.dense(1 - x)


@pytest.fixture(scope="module")
def network() -> Heads:
    return Heads().eval()


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "streaming"])
def model(request: pytest.FixtureRequest, network: Heads) -> onnx.ModelProto:
    return so.export(network, X, streaming=request.param)


@pytest.fixture(scope="module")
def names(model: onnx.ModelProto) -> list[str]:
    return list(so.Session(model).outputs)


def broken(model: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The model with every weight of a layer off by one step or more."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)

    def change(array: np.ndarray) -> None:
        array += np.where(array > 0, -1, 1).astype(array.dtype)

    replace_values(copied, f"{layer}.weight", change)
    return copied


def test_a_part_is_compared_and_called_a_part(network, model, names) -> None:
    left, right = names
    report = so.verify(network, model, X, outputs=[left])
    assert report.ok
    assert report.left_out == (right,)
    assert report.layers_left_out == ("right", "right_neuron")
    assert [row.name for row in report.layers] == ["trunk", "trunk_neuron", "left", "left_neuron"]
    assert {row.name.removesuffix(" (in chunks)") for row in report.outputs} == {left}
    assert not {"right", "right_neuron", right} & {raster.name for raster in report.rasters}
    assert not any(right in note for note in report.notes)
    assert report.verdict == "equal in part"
    words = f"not compared: outputs {right}; layers right, right_neuron"
    *_, said, verdict = str(report).splitlines()
    assert said == words
    assert verdict.startswith("equal in part on inputs of shape")
    assert repr(report).startswith("Report(equal in part, 4 layers")
    assert words in repr(report)
    document = json.loads(report.to_json())
    assert document["left_out"] == [right]
    assert document["layers_left_out"] == ["right", "right_neuron"]
    page = report.to_html()
    assert '<h1 class="ok">✓ equal in part</h1>' in page
    assert f'<p class="first" id="not-compared">N{words[1:]}</p>' in page
    assert "<title>equal in part: " in page


def test_what_another_output_needs_is_not_spared(network, model, names) -> None:
    """The right head sees the left, so that all layers are compared."""
    report = so.verify(network, model, X, outputs=[names[1]])
    assert (report.left_out, report.layers_left_out) == ((names[0],), ())
    assert len(report.layers) == 6
    assert str(report).splitlines()[-2] == f"not compared: outputs {names[0]}"


def test_all_outputs_by_name_are_no_part(network, model, names) -> None:
    named = so.verify(network, model, X, outputs=[*names, names[0]])
    plain = so.verify(network, model, X)
    assert named.to_json() == plain.to_json()
    assert (plain.verdict, plain.left_out, plain.layers_left_out) == ("equal", (), ())
    assert "not compared" not in str(plain) + repr(plain) + plain.to_html()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [("trunk", (False, False)), ("left", (False, False)), ("right", (True, False))],
)
def test_a_fault_counts_where_it_matters(network, model, names, layer, expected) -> None:
    faulty = broken(model, layer)
    reports = [so.verify(network, faulty, X, outputs=[name]) for name in names]
    assert tuple(report.ok for report in reports) == expected
    for report, ok in zip(reports, expected, strict=True):
        assert any(text.startswith(f"{layer}.weight: ") for text in report.problems) != ok
    assert not so.verify(network, faulty, X).ok
    assert [report.verdict for report in reports] == [
        "equal in part" if ok else "NOT equal" for ok in expected
    ]
    # a part that differs is still said to be a part
    assert all("not compared: outputs" in str(report) for report in reports)


def test_calls_of_one_layer_are_told_apart() -> None:
    network = Shared().eval()
    model = so.export(network, X)
    first, second = so.Session(model).outputs
    node = next(node for node in model.graph.node if node.op_type == "Sub")
    node.op_type = "Add"  # the second call sees 1 + x
    assert so.verify(network, model, X, outputs=[first]).ok
    assert not so.verify(network, model, X, outputs=[second]).ok
    report = so.verify(network, model, X, outputs=[first])
    assert [row.name for row in report.layers] == ["dense (call 1)"]
    assert report.layers_left_out == ()  # its other call is compared


def test_a_layer_of_two_outputs_serves_both() -> None:
    network = so.synapse.complex.Dense(6, 5, pre_hook_fx=so.quantize.q8).eval()
    model = so.export(network, X)
    real, imag = so.Session(model).outputs
    report = so.verify(network, model, X, outputs=[real])
    assert (report.ok, report.left_out, report.layers_left_out) == (True, (imag,), ())
    assert len(report.layers) == 2  # both parts of the one layer
    assert not so.verify(network, broken(model, "imag"), X, outputs=[imag]).ok


def test_a_layer_that_serves_no_output_is_compared_as_ever(network) -> None:
    """What is left out is what serves other outputs, not what serves none."""
    model = so.export(network, X)
    faulty = broken(model, "right")
    del faulty.graph.output[1:]

    class Left(Heads):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[0]

    left = Left().eval()
    assert so.verify(left, model_without_right(model), X).ok
    assert not so.verify(left, faulty, X).ok
    assert not so.verify(left, faulty, X, outputs=[faulty.graph.output[0].name]).ok
    # its values are compared, too, not its parameters alone
    rows = so.verify(left, faulty, X).layers
    assert [row.ok for row in rows if row.name == "right"] == [False]


def model_without_right(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[1:]
    copied.producer_name = "a tool that cuts outputs off"  # so it is judged by the run
    return copied


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["nope"], "verify: no output 'nope'; the model's outputs are {}, {}"),
        ([], "verify: no output is named; the model's outputs are {}, {}"),
        ("left", "verify: outputs must be a list of names, got the text 'left'"),
    ],
)
def test_names_that_cannot_be(network, model, names, outputs, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message.format(*names))):
        so.verify(network, model, X, outputs=outputs)


def test_a_state_is_no_output(network) -> None:
    model = so.export(network, X, streaming=True)
    state = next(value.name for value in model.graph.output if value.name.endswith(".next"))
    with pytest.raises(InputError, match=re.escape(f"no output {state!r}")):
        so.verify(network, model, X, outputs=[state])


# -- what a value needs --------------------------------------------------------------------------


def test_a_value_needs_what_comes_in_at_the_next_call() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[N] x, float[N] past, float[N] z) => (float[N] y, float[N] next, float[N] w) {"
        " y = Add(x, past) next = Neg(between) between = Relu(x) w = Neg(z) }"
    )
    assert needed_for(graph, ["y"]) == {"y", "x", "past"}
    states = {"past": "next"}
    assert needed_for(graph, ["y"], states) == {"y", "x", "past", "next", "between"}
    assert needed_for(graph, ["w"], states) == {"w", "z"}
    assert needed_for(graph, []) == set()


def test_a_node_takes_what_its_subgraphs_take() -> None:
    graph = onnx.parser.parse_graph(
        """g (bool yes, float[N] a, float[N] b, float[N] c) => (float[N] y) {
        y = If(yes) <
            then_branch = t () => (float[N] p) { own = Add(a, a) p = Neg(own) },
            else_branch = e () => (float[N] q) {
                q = If(yes) <
                    then_branch = tt () => (float[N] r) { r = Neg(b) },
                    else_branch = ee () => (float[N] s) { s = Neg(a) }
                >
            }
        > }"""
    )
    (node,) = graph.node
    assert set(taken_by(node)) == {"yes", "a", "b"}


# -- the command ---------------------------------------------------------------------------------


def _invoke(*args: str) -> Result:
    return CliRunner().invoke(main, ["verify", *args])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Heads) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    model = so.export(network, X)
    onnx.save(model, "heads.onnx")
    onnx.save(broken(model, "right"), "broken.onnx")
    return list(so.Session(model).outputs)


SOURCE = "test_verify_outputs:Heads"


def test_the_command(here: list[str]) -> None:
    left, right = here
    outcome = _invoke(SOURCE, "broken.onnx", "--outputs", left, "--report", "report.html")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert f"not compared: outputs {right}; layers right, right_neuron" in outcome.stdout
    assert "equal in part on inputs" in outcome.stdout
    assert f"Not compared: outputs {right}; layers" in Path("report.html").read_text()
    assert _invoke(SOURCE, "broken.onnx").exit_code == 1
    assert _invoke(SOURCE, "broken.onnx", "--outputs", right).exit_code == 1
    outcome = _invoke(SOURCE, "heads.onnx", "--outputs", left, "--outputs", right, "--json")
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["left_out"] == []


def test_the_command_lists_the_outputs(here: list[str]) -> None:
    outcome = _invoke(SOURCE, "heads.onnx", "--outputs", "nope", "--report", "report.html")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr == (
        f"error: verify: no output 'nope'; the model's outputs are {', '.join(here)}\n"
    )
    assert not Path("report.html").exists()
