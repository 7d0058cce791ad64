"""CONTRIBUTING's recipe, performed: one file, and the op is exported, run, compared and tested.

Every program runs in a process of its own, so that no other test sees the op.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synapse_onnx import ops

ROOT = Path(__file__).parents[1]

_SET_UP = """
import sys
import synapse_onnx.ops as package

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

sys.exit(pytest.main(["tests/test_ops.py", "-k", sys.argv[2], "-q", "-p", "no:cacheprovider"]))
"""


def recipe() -> str:
    """The one Python block of CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return block


def run(program: str, folder: Path, block: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the recipe's file, and nothing else, added to the ops."""
    (folder / "low_pass.py").write_text(block)
    return subprocess.run(
        [sys.executable, "-c", _SET_UP + program, str(folder), *args],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ,
    )  # fmt: skip


def test_the_recipe_adds_an_op_in_one_file(tmp_path: Path) -> None:
    result = run(_END_TO_END, tmp_path, recipe())
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done", "2"]
    assert "LowPass" not in ops.all_ops()  # in this process


def test_the_tests_of_all_ops_find_it(tmp_path: Path) -> None:
    result = run(_TESTS, tmp_path, recipe(), "LowPass")
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
def test_the_tests_of_all_ops_find_a_mistake_in_it(tmp_path: Path, right: str, wrong: str) -> None:
    assert recipe().count(right) == 1
    broken = recipe().replace(right, wrong)
    result = run(_TESTS, tmp_path, broken, "LowPass-binary and reference")
    assert result.returncode == 1, result.stdout
    assert "test_torch_equals_onnx_runtime_equals_the_reference[LowPass-" in result.stdout
