"""Synaptic operations against loops over every connection."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.errors import InputError, ModelError, ShapeError
from synapse_onnx.report.activity import count_activity

MODELS = Path(__file__).parents[2] / "models"


def _exported(module: nn.Module, x: Tensor, **options: Any) -> onnx.ModelProto:
    return so.export(module.eval(), x, **options)


def _by_impulse(synapse: nn.Module, x: Tensor) -> tuple[int, int]:
    """Count SynOps and MACs: one connection is one unit that a unit impulse gives.

    Every weight is 1 and so is the impulse, so the sum of the output counts its connections.
    """
    with torch.no_grad():
        synapse.weight.fill_(1.0)
        synops = macs = 0
        for at in itertools.product(*map(range, x.shape[1:-1])):
            impulse = torch.zeros(1, *x.shape[1:-1], 1)
            impulse[(0, *at, 0)] = 1
            connections = int(synapse(impulse).sum())
            synops += connections * int((x[(slice(None), *at)] != 0).sum())
            macs += connections * x.shape[0] * x.shape[-1]
    return synops, macs


def _by_loops(x: np.ndarray, out: Sequence[int], kernel: int, **geometry: int) -> int:
    """SynOps of a square convolution of (N, C, H, W, T), connection by connection."""
    stride, padding, dilation = (geometry[key] for key in ("stride", "padding", "dilation"))
    groups, channels = geometry["groups"], geometry["channels"]
    total = 0
    for n, o, i, j, t in itertools.product(
        range(x.shape[0]), range(channels), range(out[0]), range(out[1]), range(x.shape[4])
    ):
        group = o // (channels // groups)
        fan_in = x.shape[1] // groups
        for c, k, m in itertools.product(range(fan_in), range(kernel), range(kernel)):
            row = i * stride - padding + k * dilation
            column = j * stride - padding + m * dilation
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                total += int(x[n, group * fan_in + c, row, column, t] != 0)
    return total


GEOMETRIES = [
    {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 1},
    {"stride": 3, "padding": 2, "dilation": 1, "groups": 2},  # the last columns are not read
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 4},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_by_loops(geometry: dict[str, int]) -> None:
    x = spikes(2, 4, 6, 7, 3, seed=1)
    conv = so.synapse.Conv(4, 8, 3, **geometry)
    (row,) = count_activity(_exported(conv, x), [x.numpy()]).synapses
    out = conv(x).shape[2:4]
    assert row.synops == _by_loops(x.numpy(), out, 3, channels=8, **geometry)
    assert row.macs == _by_loops(np.ones(x.shape), out, 3, channels=8, **geometry)
    assert (row.op, row.values, row.nonzero) == ("Conv", x.numel(), int(x.sum()))


SYNAPSES = {
    "dense": (lambda: so.synapse.Dense(6, 5), (2, 6, 7)),
    "conv": (
        lambda: so.synapse.Conv(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2),
                                groups=2),
        (2, 4, 6, 5, 3),
    ),
    "pool": (lambda: so.synapse.Pool(2), (2, 3, 5, 4, 3)),  # the last row is not pooled
    "overlapping": (lambda: so.synapse.Pool(3, stride=2, padding=1), (2, 3, 5, 4, 3)),
    "transposed": (
        lambda: so.synapse.ConvTranspose(4, 6, (3, 2), stride=(2, 1), padding=(2, 1),
                                         dilation=(1, 2), groups=2),
        (2, 4, 3, 5, 3),
    ),
    "unpool": (lambda: so.synapse.Unpool(2), (2, 3, 3, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SYNAPSES)
def test_synapses_by_impulses(name: str) -> None:
    make, shape = SYNAPSES[name]
    synapse, x = make(), spikes(*shape, seed=2)
    activity = count_activity(_exported(synapse, x), [x.numpy()])
    (row,) = activity.synapses
    assert (row.synops, row.macs) == _by_impulse(synapse, x)
    assert 0 < row.synops < row.macs
    assert row.ratio == row.synops / row.macs
    assert (activity.neurons, activity.uncounted) == ((), ())


class Net(nn.Module):
    """Dense, a recurrent block, and a product of ordinary code: (N, 4, T) -> (N, 2, T)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        given = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05}
        self.block = so.block.cuba.Recurrent(
            given, 4, 6, weight_scale=3, pre_hook_fx=so.quantize.q8, delay_shift=False
        )
        self.readout = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.block(x).transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("streaming", [False, True])
def test_feedback_and_what_is_not_counted(streaming: bool) -> None:
    net, x = Net().eval(), spikes(3, 4, 9, seed=3, rate=0.6)
    out = so.freeze(net).block(x)
    activity = count_activity(_exported(net, x, streaming=streaming), [x.numpy()])
    into, back = activity.synapses
    assert (into.nonzero, into.synops) == (int(x.sum()), int(x.sum()) * 6)
    # what the last step gives is not fed back any more
    fed = int((out[..., :-1] != 0).sum())
    assert fed > 0
    assert back.layer.endswith(" (feedback)")
    assert (back.values, back.nonzero, back.synops) == (3 * 6 * 9, fed, fed * 6)
    (neuron,) = activity.neurons
    assert (neuron.values, neuron.nonzero) == (out.numel(), int((out != 0).sum()))
    assert neuron.rate == neuron.nonzero / neuron.values
    assert activity.all_synapses.synops == into.synops + back.synops
    assert activity.all_synapses.values == into.values + back.values
    assert [op for _, op in activity.products] == ["MatMul"]
    assert set(activity.products) <= set(activity.uncounted)


def test_a_complex_synapse_counts_both_parts() -> None:
    x = spikes(2, 4, 5, seed=4)
    model = _exported(so.synapse.complex.Dense(4, 3), x)
    (row,) = count_activity(model, [x.numpy()]).synapses
    assert (row.synops, row.macs) == (int(x.sum()) * 6, x.numel() * 6)


@pytest.mark.parametrize("layout", ["NCT", "TNC"])
@pytest.mark.parametrize("streaming", [False, True])
def test_layouts_and_streams_count_the_same(layout: str, streaming: bool) -> None:
    x = spikes(2, 4, 8, seed=5)
    given = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05}
    torch.manual_seed(0)
    synapse = so.synapse.Dense(4, 6, weight_scale=3, pre_hook_fx=so.quantize.q8)
    net = nn.Sequential(synapse, so.neuron.cuba.Neuron(**given)).eval()
    model = _exported(net, x, layout=layout, streaming=streaming)
    array = x.numpy() if layout == "NCT" else np.moveaxis(x.numpy(), -1, 0)
    activity = count_activity(model, [array])
    (row,), (neuron,) = activity.synapses, activity.neurons
    assert (row.nonzero, row.synops) == (int(x.sum()), int(x.sum()) * 6)
    assert neuron.nonzero == int((so.freeze(net)(x) != 0).sum()) > 0


def test_no_input_spikes_at_all() -> None:
    x = torch.zeros(2, 4, 8)
    row = count_activity(_exported(so.synapse.Dense(4, 3), x), [x.numpy()]).all_synapses
    assert (row.rate, row.synops, row.macs, row.ratio) == (0.0, 0, 2 * 4 * 8 * 3, 0.0)


# -- faults and the command -----------------------------------------------------------------------


def test_faults() -> None:
    model = _exported(so.synapse.Dense(4, 3), spikes(1, 4, 5))
    with pytest.raises(ShapeError, match="expected shape"):
        count_activity(model, [np.ones((1, 5, 5))])
    with pytest.raises(InputError, match="takes 1 input"):
        count_activity(model, [])
    foreign = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]>'
        "twice (float[N, 2] x) => (float[N, 2] y) { y = Add(x, x) }"
    )
    with pytest.raises(ModelError, match="was not written by this tool"):
        count_activity(foreign, [np.ones((1, 2))])


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", spikes(2, 1, 8, 8, 6).numpy())
    return str(MODELS / "digits_q8.onnx")


def _invoke(*args: str) -> str:
    outcome = CliRunner().invoke(main, list(args))
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    return outcome.stdout


def test_the_command(digits: str) -> None:
    x = np.load("x.npy")
    activity = count_activity(onnx.load(digits), [x])
    text = _invoke("inspect", digits, "--input", "x.npy", "--native", "no")
    lines = [line.split() for line in text.splitlines()]
    total = activity.all_synapses
    assert [
        "in", "all", f"{total.nonzero:,}", f"{total.rate:.2%}", f"{total.synops:,}",
        f"{total.macs:,}", f"{total.ratio:.2%}",
    ] in lines  # fmt: skip
    for row in activity.neurons:
        assert [row.layer, f"{row.nonzero:,}", f"{row.rate:.2%}"] in lines
    assert any(line[:6] == ["Conv", "float", "float", "CPU", "3", "3"] for line in lines)
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_the_command_runs_on_the_providers_that_are_named(
    digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    class Spy(so.Session):
        def __init__(self, model: Any, providers: Any = None, *args: Any, **named: Any) -> None:
            given.append(providers)
            super().__init__(model, ["CPUExecutionProvider"], *args, **named)

    for module in ("activity", "kernels"):
        monkeypatch.setattr(f"synapse_onnx.report.{module}.Session", Spy)
    text = _invoke("inspect", digits, "-i", "x.npy", "--provider", "cuda", "--provider", "cpu")
    # the counts, and the profile
    assert given == [["CUDAExecutionProvider", "CPUExecutionProvider"]] * 2
    assert "CPU" in text
    given.clear()
    _invoke("inspect", digits, "-i", "x.npy")
    assert given == [None] * 2


def test_the_command_in_json(digits: str) -> None:
    found = json.loads(_invoke("inspect", digits, "-i", "x.npy", "--native", "no", "--json"))
    activity = count_activity(onnx.load(digits), [np.load("x.npy")])
    assert [row["synops"] for row in found["activity"]["synapses"]] == [
        row.synops for row in activity.synapses
    ]
    assert found["activity"]["all_synapses"]["macs"] == activity.all_synapses.macs
    assert found["activity"]["all_neurons"]["nonzero"] == activity.all_neurons.nonzero
    assert found["activity"]["not_counted"] == []
    assert {"Conv", "MatMul", "Scan"} <= {kernel["op"] for kernel in found["kernels"]}
    assert "activity" not in json.loads(_invoke("inspect", digits, "--json"))


def test_what_is_not_counted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((1, 1, 9), dtype=np.float32))
    text = _invoke("inspect", str(MODELS / "tones_q8.onnx"), "-i", "x.npy")
    assert "no synapse and no spikes, so not counted: readout.neuron (CubaDynamics)" in text


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--native", "no"), "--native is for a run; give a sample by --input"),
        (("--provider", "cpu"), "--provider is for a run; give a sample by --input"),
        (
            ("-i", "x.npy", "--provider", "NoneExecutionProvider"),
            "execution provider NoneExecutionProvider is not available",
        ),
        (("-i", "nope.npy"), "nope.npy cannot be read"),
        (("-i", "x.npy", "-i", "x.npy"), "--input gives 2 arrays"),
        (("-i", "wrong.npy"), "expected shape (N, 1, 8, 8, T), got (2, 1, 8, 7, 6)"),
    ],
)
def test_what_the_command_refuses(digits: str, args: tuple[str, ...], expected: str) -> None:
    np.save("wrong.npy", np.zeros((2, 1, 8, 7, 6)))
    outcome = CliRunner().invoke(main, ["inspect", digits, *args])
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert expected in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_no_torch_is_imported(digits: str) -> None:
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        f"try:\n    main(['inspect', {digits!r}, '--input', 'x.npy'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'synapse_onnx.report.activity' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
