"""CONTRIBUTING's recipe, performed: one file, and the op is exported, run and compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_PROGRAM = """
import importlib.util, pathlib, sys
import numpy as np, torch
from onnx.reference import ReferenceEvaluator
import synapse_onnx as so
from synapse_onnx import ops
import synapse_onnx.ops as package

package.__path__.append(sys.argv[1])  # as if the file lay in the package's own folder
op = ops.all_ops()["LowPass"]
for sample in op.samples():
    torch.library.opcheck(op.torch_op, sample.args)
    x, rate = sample.args

    class Readout(torch.nn.Module):
        def forward(self, x):
            return torch.ops.synapse.low_pass(x, rate)

    model = so.export(Readout(), x)
    assert [n.op_type for n in model.graph.node if n.domain == ops.DOMAIN] == ["LowPass"]
    expected = op.torch_op(*sample.args).numpy()
    reference, = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    for found in (so.Session(model).run(x.numpy()), reference):
        allowed = sample.rtol * np.abs(expected).max()
        assert np.abs(found - expected).max() <= allowed, sample.id
    assert torch.autograd.gradcheck(lambda x: op.torch_op(x, rate), x.double().requires_grad_())
    assert so.verify(Readout(), model, x).ok
print("done", len(op.samples()))
"""


def test_the_recipe_adds_an_op_in_one_file(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "low_pass.py").write_text(block)
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done", "2"]
