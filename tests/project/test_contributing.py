"""CONTRIBUTING's recipes, performed: each is one file, which is found, run, compared and tested.

Every program runs in a process of its own, so that no other test sees what it adds. Torch is
imported there already.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from synapse_onnx import ops

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

_SET_UP = """
import sys
import importlib

package = importlib.import_module("synapse_onnx." + sys.argv[2])
package.__path__.append(sys.argv[1])  # as if the file lay in the package's own folder
"""

_END_TO_END = """
import numpy as np, torch
from onnx.reference import ReferenceEvaluator
import synapse_onnx as so
from synapse_onnx import ops

op = ops.all_ops()["LowPass"]
for sample in op.samples():
    x, rate = sample.args

    class Readout(torch.nn.Module):
        def forward(self, x):
            return torch.ops.synapse.low_pass(x, rate)

    model = so.export(Readout(), x)
    assert [n.op_type for n in model.graph.node if n.domain == ops.DOMAIN] == ["LowPass"]
    assert [f.name for f in model.functions] == ["LowPass"]
    expected = op.torch_op(*sample.args).numpy()
    # the equation of the docstring, once more and in double
    y = np.zeros(x.shape[:-1])
    for t in range(x.shape[-1]):
        y = (1 - rate) * y + rate * x[..., t].double().numpy()
        np.testing.assert_allclose(expected[..., t], y, rtol=0, atol=1e-6)
    reference, = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    for found in (so.Session(model).run(x.numpy()), reference):
        assert found.shape == expected.shape
        allowed = sample.rtol * np.abs(expected).max()
        assert np.abs(found - expected).max() <= allowed, sample.id
    assert torch.autograd.gradcheck(lambda x: op.torch_op(x, rate), x.double().requires_grad_())
    assert so.verify(Readout(), model, x).ok
print("done", len(op.samples()))
"""

_TESTS = """
import pytest

files = ["tests/ops/test_ops.py", "tests/ops/test_gradients.py"]
sys.exit(pytest.main([*files, "-k", sys.argv[3], "-q", "-p", "no:cacheprovider"]))
"""

_NEURON = """
import numpy as np, torch
import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.neuron.base import Common

assert "soft" in so.neuron.kinds()
assert {"Soft", "SoftFloat", "SoftDynamics", "RecurrentSoft"} <= set(ops.all_ops())
generator = torch.Generator().manual_seed(0)
x = (torch.rand(2, 6, 40, generator=generator) < 0.4).float()
arguments = so.neuron.soft.Neuron.example

# the equation of the docstring, in Python's integers
neuron = so.neuron.soft.Neuron(**arguments).eval()
level, keep = neuron.integer_threshold, 4096 - round(neuron.decay.item())
expected = np.zeros(x.shape, np.float32)
for index in np.ndindex(2, 6):
    v = 0
    for t in range(40):
        v = int(v * keep / 4096) + int(4096 * x[(*index, t)])
        expected[(*index, t)] = v >= level
        v -= level if v >= level else 0
assert 0 < expected.sum() < expected.size
np.testing.assert_array_equal(neuron(x).numpy(), expected)

blocks = so.block.soft
for regime in ("slayer", "float", "loihi"):
    torch.manual_seed(0)
    given = arguments | {"regime": regime, "requires_grad": True}
    net = torch.nn.Sequential(
        blocks.Dense(given, 6, 8, weight_scale=2, delay=True),
        blocks.Recurrent(given, 8, 8, weight_scale=2),
        blocks.Affine(given, 8, 2),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        loss = (net(x).mean(-1) - torch.tensor([1.0, -0.5])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
    net.eval()
    y = net(x).detach().numpy()
    for streaming in (False, True):
        model = so.export(net, x, streaming=streaming)
        report = so.verify(net, model, x)
        assert report.ok, str(report)
    stream = so.Session(model).stream(2)
    parts = [stream.run(chunk.numpy()) for chunk in x.split([1, 9, 30], dim=-1)]
    np.testing.assert_allclose(np.concatenate(parts, -1), y, rtol=1e-4, atol=1e-5)
print("done")
"""

_STATE = """
import numpy as np, torch
import synapse_onnx as so

generator = torch.Generator().manual_seed(0)
x = (torch.rand(2, 6, 40, generator=generator) < 0.4).float()
arguments = so.neuron.soft.Neuron.example

# the changed equation of the docstring, in Python's integers
neuron = so.neuron.soft.Neuron(**arguments).eval()
assert [state.name for state in neuron.equation.states] == ["voltage", "added"]
level = neuron.integer_threshold
keep, added_keep = 4096 - round(neuron.decay.item()), 4096 - round(neuron.recovery.item())
expected = np.zeros(x.shape, np.float32)
for index in np.ndindex(2, 6):
    v = b = 0
    for t in range(40):
        v = int(v * keep / 4096) + int(4096 * x[(*index, t)])
        b = int(b * added_keep / 4096)
        if v >= level + b:
            expected[(*index, t)] = 1
            v, b = v - level - b, b + level
assert 0 < expected.sum() < expected.size
np.testing.assert_array_equal(neuron(x).numpy(), expected)

blocks = so.block.soft
for regime in ("slayer", "float", "loihi"):
    torch.manual_seed(0)
    given = arguments | {"regime": regime, "requires_grad": True}
    net = torch.nn.Sequential(
        blocks.Dense(given, 6, 8, weight_scale=2),
        blocks.Recurrent(given, 8, 8, weight_scale=2),
        blocks.Affine(given, 8, 2),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    before, losses = net[0].neuron.recovery.item(), []
    for _ in range(25):
        loss = (net(x).mean(-1) - torch.tensor([1.0, -0.5])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
    assert net[0].neuron.recovery.item() != before  # the new parameter learns too
    net.eval()
    y = net(x).detach().numpy()
    for streaming in (False, True):
        model = so.export(net, x, streaming=streaming)
        report = so.verify(net, model, x)
        assert report.ok, str(report)
    assert "0.neuron.added" in {value.name for value in model.graph.input}
    stream = so.Session(model).stream(2)
    parts = [stream.run(chunk.numpy()) for chunk in x.split([1, 9, 30], dim=-1)]
    np.testing.assert_allclose(np.concatenate(parts, -1), y, rtol=1e-4, atol=1e-5)
print("done")
"""

_PASS = """
import numpy as np, torch
import synapse_onnx as so
from synapse_onnx.compiler.passes import all_passes


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.neuron = so.neuron.cuba.Neuron(1.0, current_decay=0.25, voltage_decay=0.05)

    def forward(self, x):
        y = torch.relu(self.neuron(x) - 0.5).abs().abs()
        return -torch.relu(torch.relu(torch.relu(y)))


order = list(all_passes())
place = order.index("drop_repeats")
assert order.index("cancel_transposes") < place < order.index("clean_up"), order
x = (torch.rand(2, 6, 30) < 0.5).float() * 2
network = Network().eval()
expected = network(x).detach().numpy()
assert len(np.unique(expected)) > 1
model = so.export(network, x)
kinds = [node.op_type for node in model.graph.node]
# of two Abs and of three Relu in a row one is left, and the Relu before them
assert (kinds.count("Relu"), kinds.count("Abs"), kinds.count("Neg")) == (2, 1, 1), kinds
np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
assert so.verify(network, model, x).ok
print("done")
"""

_READER = """
import os
import numpy as np, torch
import synapse_onnx as so
from synapse_onnx.cli import main

folder = sys.argv[1]
os.chdir(folder)
draw = np.random.default_rng(0)
weights = {"0": draw.integers(-9, 20, (6, 5)) / 16, "1": draw.integers(-9, 20, (4, 6)) / 16}
np.savez("net.npz", **weights)
assert so.readers.reader_for("net.npz").name == "archive"
net = so.load_archive("net.npz", threshold=0.5)
x = (torch.rand(2, 5, 30) < 0.5).float()

# the same network by hand
spikes = x
for name, weight in weights.items():
    neuron = so.neuron.cuba.Neuron(0.5, current_decay=0.25, voltage_decay=0.05)
    spikes = neuron(torch.einsum("oi,nit->not", torch.from_numpy(weight).float(), spikes))
assert 0 < spikes.sum() < spikes.numel()
assert torch.equal(net(x), spikes)


def call(*args):
    try:
        main(args)
    except SystemExit as end:
        return end.code


assert call("export", "net.npz", "-o", "net.onnx", "--set", "threshold=0.5") == 0
assert call("verify", "net.npz", "net.onnx", "--set", "threshold=0.5") == 0
assert call("verify", "net.npz", "net.onnx", "--set", "threshold=0.75") == 1
assert call("export", "net.npz", "-o", "net.onnx", "--set", "threshold=high") == 2
np.save("no.npy", weights["0"])
os.rename("no.npy", "no.npz")
assert call("export", "no.npz", "-o", "no.onnx") == 2
assert not os.path.exists("no.onnx")
print("done")
"""


#: package -> the file that its recipe adds
FILES = {
    "ops": "low_pass.py",
    "neuron": "soft.py",
    "compiler.passes": "drop_repeats.py",
    "readers": "archive.py",
}


def blocks(language: str) -> list[str]:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def recipe(package: str = "ops") -> str:
    """The Python block of CONTRIBUTING.md for a package."""
    files = dict(zip(FILES, blocks("python"), strict=True))
    return files[package]


def changed(source: str, diff: str) -> str:
    """Apply a diff without line numbers: the old lines of each hunk must occur once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] or line for line in lines if line[0] in " -\n")
        new = "".join(line[1:] or line for line in lines if line[0] in " +\n")
        assert source.count(old) == 1, f"not once in the file:\n{old}"
        source = source.replace(old, new)
    return source


def run(
    python: list[str], program: str, folder: Path, block: str, *args: str, package: str = "ops"
) -> subprocess.CompletedProcess[str]:
    """Run a program with the recipe's file, and nothing else, added to a package."""
    (folder / FILES[package]).write_text(block)
    return subprocess.run(
        [*python, "-c", _SET_UP + program, str(folder), package, *args],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ,
    )  # fmt: skip


def run_mistaken(
    python: list[str],
    program: str,
    folder: Path,
    block: str,
    right: str,
    wrong: str,
    *args: str,
    package: str = "ops",
) -> subprocess.CompletedProcess[str]:
    """Run it with a mistake in the file, which must be found."""
    assert block.count(right) == 1
    result = run(python, program, folder, block.replace(right, wrong), *args, package=package)
    assert result.returncode == 1, result.stdout
    return result


def test_the_recipe_adds_an_op_in_one_file(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _END_TO_END, tmp_path, recipe())
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done", "2"]
    assert "LowPass" not in ops.all_ops()  # in this process


def test_the_tests_of_all_ops_find_it(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _TESTS, tmp_path, recipe(), "LowPass")
    assert result.returncode == 0, result.stdout
    found = re.search(r"(\d+) passed", result.stdout)
    assert found is not None
    assert int(found[1]) >= 6, result.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("keep = Sub(whole, rate_f)", "keep = Sub(rate_f, whole)"),
        ("y = y * (1 - rate) + inputs[t] * rate", "y = y * rate + inputs[t] * rate"),
    ],
    ids=["body", "torch"],
)
def test_the_tests_of_all_ops_find_a_mistake_in_it(
    warm: list[str], tmp_path: Path, right: str, wrong: str
) -> None:
    tests = "LowPass-binary and reference"
    result = run_mistaken(warm, _TESTS, tmp_path, recipe(), right, wrong, tests)
    assert "test_torch_equals_onnx_runtime_equals_the_reference[LowPass-" in result.stdout


def test_the_recipe_adds_a_neuron_in_one_file(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _NEURON, tmp_path, recipe("neuron"), package="neuron")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done"]
    assert "Soft" not in ops.all_ops()  # in this process


@pytest.mark.parametrize(
    ("right", "wrong", "caught_by"),
    [
        ("v - c.threshold, v)", "0, v)", "AssertionError"),
        ('fires = ("voltage",)', 'fires = ("current",)', "KeyError: 'current'"),
        ('State("voltage",', 'State("decay",', "RegistryError: equation Soft: decay names two"),
    ],
    ids=["reset", "variable", "names"],
)
def test_a_mistake_in_the_neuron_is_found(
    warm: list[str], tmp_path: Path, right: str, wrong: str, caught_by: str
) -> None:
    result = run_mistaken(warm, _NEURON, tmp_path, recipe("neuron"), right, wrong, package="neuron")
    assert caught_by in result.stderr


def with_another_state() -> str:
    (diff,) = blocks("diff")
    return changed(recipe("neuron"), diff)


def test_the_recipe_adds_a_state_to_the_neuron(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _STATE, tmp_path, with_another_state(), package="neuron")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done"]


@pytest.mark.parametrize(
    ("right", "wrong", "caught_by"),
    [
        ("a.raised(fired, c.threshold, added)", "added", "AssertionError"),
        ("fired = v >= limit", "fired = v >= c.threshold", "AssertionError"),
        ('"added": a.raised(fired, c.threshold, added),', "", "object has no attribute 'added'"),
    ],
    ids=["spike", "limit", "state"],
)
def test_a_mistake_in_the_new_state_is_found(
    warm: list[str], tmp_path: Path, right: str, wrong: str, caught_by: str
) -> None:
    result = run_mistaken(
        warm, _STATE, tmp_path, with_another_state(), right, wrong, package="neuron"
    )
    assert caught_by in result.stderr


def test_a_change_that_does_not_fit_is_found() -> None:
    assert changed("a\nb\nc\n", "@@\n a\n-b\n+d\n@@\n-c\n") == "a\nd\n"
    with pytest.raises(AssertionError, match="not once in the file"):
        changed("a\nb\na\n", "@@\n-a\n")


def test_the_recipe_adds_a_pass_in_one_file(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _PASS, tmp_path, recipe("compiler.passes"), package="compiler.passes")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done"]


@pytest.mark.parametrize(
    ("right", "wrong", "caught_by"),
    [
        (" or producer.op_type != node.op_type", "", "AssertionError"),
        ('AFTER = ("cancel_transposes",)', 'AFTER = ("clean_up",)', "RegistryError"),
        ('BEFORE = ("clean_up",)', 'BEFORE = ("tidy",)', "names 'tidy', which is no pass"),
    ],
    ids=["operator", "circle", "name"],
)
def test_a_mistake_in_the_pass_is_found(
    warm: list[str], tmp_path: Path, right: str, wrong: str, caught_by: str
) -> None:
    package = "compiler.passes"
    result = run_mistaken(warm, _PASS, tmp_path, recipe(package), right, wrong, package=package)
    assert caught_by in result.stderr


def test_the_recipe_adds_a_reader_in_one_file(warm: list[str], tmp_path: Path) -> None:
    result = run(warm, _READER, tmp_path, recipe("readers"), package="readers")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("done\n")
    assert "error: option threshold must be a number, got 'high'" in result.stderr
    assert "error: no.npz holds no matrices named 0, 1 and so on" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistake_in_the_reader_is_found(warm: list[str], tmp_path: Path) -> None:
    right = "torch.from_numpy(weight).float().reshape"
    result = run_mistaken(
        warm, _READER, tmp_path, recipe("readers"), right, f"-{right}", package="readers"
    )
    assert "AssertionError" in result.stderr
