"""Models on a GPU: what Session changes for it, and what stays on the device.

``pytest -m gpu`` runs the tests that are marked so on CUDA, here and in the files of the parity
tests. What can be seen without a GPU is seen here too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.report.kernels import profile_kernels
from synapse_onnx.runtime import providers as execution

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").glob("*.onnx"))
STREAM = ROOT / "models" / "tones_stream.onnx"
DIGITS = ROOT / "models" / "digits_q8.onnx"


def drawn(session: so.Session, steps: int = 20) -> list[np.ndarray]:
    """Spikes for every input of a model, (2, C[, H, W], steps) where its sizes are open."""
    draw = np.random.default_rng(0)
    sizes = {"N": 2, "T": steps}
    shapes = [[sizes.get(size, size) for size in info.shape] for info in session._io.inputs]
    return [(draw.random(shape) < 0.3).astype(np.float32) for shape in shapes]


# -- without a GPU -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [STREAM, DIGITS], ids=lambda path: path.stem)
def test_a_gpu_is_given_the_flat_graph(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[onnx.ModelProto] = []
    make = onnxruntime.InferenceSession

    def recorded(model: bytes, *args: object, **named: object) -> onnxruntime.InferenceSession:
        given.append(onnx.ModelProto.FromString(model))
        return make(model, *args, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    plain = so.Session(path)
    monkeypatch.setattr(execution, "_DEVICES", {"CPUExecutionProvider": "cpu"})
    session = so.Session(path)
    assert [bool(model.functions) for model in given] == [True, False]
    assert {node.domain for node in given[1].graph.node} == {""}
    x = drawn(session)
    np.testing.assert_array_equal(session.run(*x), plain.run(*x))
    assert (session.states, session.layout) == (plain.states, plain.layout)


def test_cuda_keeps_all_bits_of_its_products() -> None:
    assert execution._with_options("CUDAExecutionProvider") == (
        "CUDAExecutionProvider",
        {"use_tf32": "0"},
    )


def test_a_provider_that_does_not_start_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    present = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in present:
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", *present]
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = so.Session(DIGITS, ["CUDAExecutionProvider"]).session.get_providers()
        if "CUDAExecutionProvider" in started:
            pytest.skip("CUDA starts here")
    with pytest.warns(UserWarning, match="CUDA") as seen:  # ONNX Runtime may warn as well
        session = so.Session(DIGITS, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    said = [str(warning.message) for warning in seen if warning.filename == __file__]
    assert said == [
        f"CUDAExecutionProvider cannot be used here, so {DIGITS} runs on CPUExecutionProvider: "
        f"a device or its libraries are missing"
    ]
    assert session.run(*drawn(session)).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "said"),
    [("NoExecutionProvider", "has no NoExecutionProvider, only "), ("CPUExecutionProvider", "")],
)
def test_the_marker_runs_or_says_why_not(named: str, said: str) -> None:
    files = ["tests/runtime/test_gpu.py", "tests/whole/test_earlier.py"]
    chosen = [*files, "-k", "device or digits_q8"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", *chosen],
        cwd=ROOT, env=os.environ | {"SYNAPSE_ONNX_TEST_PROVIDER": named},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert said in ended.stdout
    assert (" passed" in ended.stdout) != bool(said)
    assert (" skipped" in ended.stdout) == bool(said)


# -- with one, or its stand-in -------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_give_what_the_cpu_gives(
    path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = so.Session(path)
    assert session.session.get_providers()[0] == provider
    x = drawn(session)
    monkeypatch.setattr(execution, "_DEVICES", {})  # where the CPU stands in, as it is
    expected = so.Session(path, ["CPUExecutionProvider"]).run(*x)
    tolerance = 1e-5 * np.abs(expected).max() if "float" in path.name else 0
    np.testing.assert_allclose(session.run(*x), expected, rtol=0, atol=tolerance)


@pytest.mark.gpu
def test_states_stay_on_the_device(provider: str) -> None:
    session = so.Session(STREAM)
    (x,) = drawn(session)
    whole = session.run(x)
    stream = session.stream(batch=2)
    for t in range(x.shape[-1]):
        np.testing.assert_array_equal(stream.step(x[..., t]), whole[..., t])
        held = {value.device_name() for value in stream._states.values()}
        assert held == {execution._DEVICES[provider]}
        assert stream._prepared is None  # whose buffers would be NumPy's


@pytest.mark.gpu
def test_products_and_loops_run_on_the_device(provider: str) -> None:
    session = so.Session(DIGITS)
    kernels = profile_kernels(onnx.load(DIGITS), drawn(session), providers=[provider])
    assert {kernel.provider for kernel in kernels if kernel.op in ("Conv", "MatMul", "Scan")} == {
        provider
    }


@pytest.mark.gpu
@pytest.mark.parametrize("options", [("--batch", "4"), ("--stream",)], ids=["whole", "stream"])
def test_the_benchmark_times_the_device(options: tuple[str, ...], provider: str) -> None:
    model = str(STREAM if "--stream" in options else DIGITS)
    arguments = ["bench", model, "--provider", provider, "--seconds", "0", "--steps", "3", "--json"]
    outcome = CliRunner().invoke(main, [*arguments, *options])
    assert outcome.exit_code == 0, outcome.output
    (row,) = json.loads(outcome.stdout)["rows"]
    assert row["provider"] == provider
    assert row["p50"] > 0
