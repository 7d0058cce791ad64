"""Calls of the command line that must succeed or fail, and the file of networks they are about."""

import textwrap
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner, Result
from torch import nn

from synapse_onnx.cli import main

SOURCE = textwrap.dedent(
    '''
    import sys

    import torch
    from torch import nn

    import synapse_onnx as so


    class Net(nn.Module):
        """Spikes (N, 4, T) -> spikes (N, 3, T)."""

        def __init__(self, seed=0):
            super().__init__()
            torch.manual_seed(seed)
            self.dense = so.synapse.Dense(4, 3, weight_scale=2, pre_hook_fx=so.quantize.q8)
            self.neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)

        def forward(self, spikes):
            return self.neuron(self.dense(spikes))


    class Pair(nn.Module):
        """Two inputs, three outputs, a layer with float weights and one with a long name."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a_layer_with_a_name_that_is_longer_than_usual = so.synapse.complex.Dense(
                4, 3, pre_hook_fx=so.quantize.q8
            )
            self.conv = so.synapse.Conv(2, 3, 3, padding=1)

        def forward(self, x, y):
            real, imag = self.a_layer_with_a_name_that_is_longer_than_usual(x)
            return real, imag, self.conv(y)


    class Broken(nn.Module):
        def forward(self, spikes):
            return spikes @ torch.zeros(5, 5)


    class FixedTime(nn.Module):
        def forward(self, spikes):
            return spikes * int(spikes.shape[-1])


    class Binned(nn.Module):
        """Spikes (N, 4, T) -> voltages (N, 2, ceil(T / 4)), through a loop."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            given = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05}
            blocks = so.block.cuba
            self.first = blocks.Recurrent(given, 4, 6, weight_scale=3)
            self.bins = blocks.TimeDecimation(4)
            self.last = blocks.Affine(given, 6, 2)

        def forward(self, spikes):
            return self.last(self.bins(self.first(spikes)))


    class Open(nn.Module):
        def forward(self, spikes):
            return spikes * 2


    net = Net()
    number = 3


    def other():
        return Net(seed=1)


    def boom():
        raise ValueError("boom\\nwith a second line")


    def leaves():
        sys.exit("bye")


    def wrong_layer():
        return so.synapse.Dense(-1, 3)


    def needs(size):
        return Net()
    '''
)


def spikes(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.float32)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def good(*args: str) -> str:
    outcome = invoke(*args)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr == ""
    return outcome.stdout


def bad(*args: str) -> str:
    """Run a call that must fail with exit code 2; return its sentence, without "error: "."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*.on*")}
    files = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    outcome = invoke(*args)
    assert outcome.exit_code == 2, outcome.output
    assert isinstance(outcome.exception, SystemExit)
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("error: ")
    after = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    assert after == files
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*.on*")} == before
    return outcome.stderr.removeprefix("error: ").rstrip("\n")


def state_of_net(here: Path) -> dict[str, torch.Tensor]:
    namespace: dict[str, type[nn.Module]] = {"__name__": "net_for_state"}
    exec(SOURCE, namespace)
    return namespace["Net"]().state_dict()


class RunsWhenLoaded:
    """Pickled code that leaves a file when it is run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("was_run"),))
