"""synapse-onnx export: the file that it writes, what it prints, and what it refuses."""

import os
from pathlib import Path

import onnx
import pytest
from calls_of_commands import bad, good

from synapse_onnx.cli._output import size_text


@pytest.mark.matrix
def test_export_writes_the_model_that_the_api_gives(here: Path) -> None:
    text = good("export", "net.py:Net", "--shape", "4", "-o", "new.onnx")
    model = onnx.load("new.onnx")
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] \
        == ["N", 4, "T"]  # fmt: skip
    assert Path("new.onnx").read_bytes() == Path("net.onnx").read_bytes()
    size = os.path.getsize("new.onnx")
    lines = [line.split() for line in text.splitlines()]
    assert ["wrote", "new.onnx"] in lines
    assert ["size", *size_text(size).split()] in lines
    assert ["regime", "slayer"] in lines
    assert ["layers", "2"] in lines
    assert ["dense", "Dense", "3x4x1x1x1", "8", "1/32"] in lines
    assert ["neuron", "cuba", "slayer", "1"] in lines
    assert text.endswith("compare it with torch: synapse-onnx verify net.py:Net new.onnx\n")


def test_export_fixes_shape_and_opset_on_demand(here: Path) -> None:
    args = ("--static", "--steps", "5", "--opset", "23")
    good("export", "net.py:net", "--shape", "4", "-o", "new.onnx", *args)
    model = onnx.load("new.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 4, 5]
    assert {o.version for o in model.opset_import if o.domain == ""} == {23}


def test_export_says_what_is_not_exact_and_cuts_no_name(here: Path) -> None:
    text = good("export", "net.py:Pair", "--shape", "4", "--shape", "2,5,6", "-o", "new.onnx")
    assert "a_layer_with_a_name_that_is_longer_than_usual  complex Dense  3x4x1x1x1" in text
    assert "conv                                           Conv           3x2x3x3x1  float" in text
    assert "\nnote: conv: float weights" in text
    assert "…" not in text


@pytest.mark.parametrize("shape", ["0", "-1", "4,", "2,3", "1,2,3,4", "a", "1.5", "", "1,8,x"])
def test_a_bad_shape_is_refused(here: Path, shape: str) -> None:
    assert bad("export", "net.py:Net", f"--shape={shape}", "-o", "new.onnx") == (
        f"invalid value for '--shape': {shape!r} must be C or C,H,W of one sample, positive whole "
        f"numbers without batch and time, as in 1,8,8; see 'synapse-onnx export --help'"
    )


def test_a_shape_that_does_not_fit_the_network(here: Path) -> None:
    said = bad("export", "net.py:Net", "--shape", "5", "-o", "new.onnx")
    assert said.startswith("dense: ")
    assert "expected 4 input channels" in said


def test_a_shape_that_does_not_fit_into_memory(here: Path) -> None:
    said = bad("export", "net.py:Net", "--shape", "9999999999999", "-o", "new.onnx")
    assert said == "an input of shape (1, 9999999999999, 16) does not fit into memory"


def test_the_number_of_shapes_is_the_number_of_arguments(here: Path) -> None:
    said = bad("export", "net.py:Pair", "--shape", "4", "-o", "new.onnx")
    assert said == (
        "forward(x, y) of net.py:Pair does not take 1 inputs; give --shape once for every argument"
    )


def test_what_cannot_stay_open_can_be_exported_static(here: Path) -> None:
    args = ("export", "net.py:FixedTime", "--shape", "4", "-o", "new.onnx")
    said = bad(*args)
    assert "the number of time steps T as a constant (16)" in said
    assert said.endswith("or export with --static")
    good(*args, "--static")
    assert Path("new.onnx").exists()


OUTPUT_FAULTS = {
    "new.txt": "new.txt cannot be written: its name must end in .onnx",
    "net.py": "net.py cannot be written: its name must end in .onnx",
    "nope/new.onnx": "nope/new.onnx cannot be written: there is no folder nope",
    "sub.onnx": "sub.onnx cannot be written: it is a folder",
}


@pytest.mark.parametrize("output", OUTPUT_FAULTS)
def test_export_refuses_an_output_before_the_work(here: Path, output: str) -> None:
    (here / "sub.onnx").mkdir()
    # SOURCE does not exist, and is not looked at
    assert bad("export", "no.py:n", "--shape", "4", "-o", output) == OUTPUT_FAULTS[output]


def test_a_failed_export_leaves_the_old_file(here: Path) -> None:
    Path("old.onnx").write_bytes(b"old")
    bad("export", "net.py:Broken", "--shape", "4", "-o", "old.onnx")
    assert Path("old.onnx").read_bytes() == b"old"


_LOOP = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        nn.init.constant_(self.fc.weight, 0.125)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):  # (T, N, 4)
        voltage, spikes = torch.zeros(x.shape[1], 3), []
        for x_t in x:
            voltage = 0.5 * voltage + self.fc(x_t)
            spikes.append((voltage > 0.25).float())
            voltage = voltage - 0.25 * spikes[-1]
        return torch.stack(spikes)
"""


@pytest.mark.parametrize("layout", [None, "NCT"])
def test_a_network_of_other_axes_is_exported_and_compared(
    layout: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop.py").write_text(_LOOP)
    how = ["--layout", layout] if layout else []
    good("export", "loop.py:Net", "--shape", "4", "--axes", "TNC", *how, "-o", "loop.onnx")
    model = onnx.load("loop.onnx")
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == (["N", 4, "T"] if layout else ["T", "N", 4])
    assert "equal on inputs" in good("verify", "loop.py:Net", "loop.onnx")
