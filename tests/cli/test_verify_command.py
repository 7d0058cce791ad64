"""synapse-onnx verify: its report, its exit codes, and what it refuses."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from calls_of_commands import bad, good, invoke, spikes, state_of_net

import synapse_onnx as so


@pytest.mark.matrix
def test_verify_equal(here: Path) -> None:
    text = good("verify", "net.py:Net", "net.onnx")
    assert "✓ dense " in text
    assert "✓ neuron " in text
    assert "✗" not in text
    assert text.splitlines()[-1].startswith("equal on inputs of shape (8, 4, 50); (1, 4, 57)")


def test_coverage_may_be_required(here: Path) -> None:
    silent = ("net.py:Net", "net.onnx", "--rate", "0")
    assert "equal, but 1 input never active" in good("verify", *silent)
    assert invoke("verify", *silent, "--require-coverage").exit_code == 1
    good("verify", "net.py:Net", "net.onnx", "--require-coverage")


def test_verify_prints_the_report(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = so.verify

    def spy(*args: object, **kwargs: object) -> so.Report:
        calls.append((args, kwargs, original(*args, **kwargs)))
        return calls[-1][2]

    monkeypatch.setattr(so, "verify", spy)
    args = ("--samples", "2", "--steps", "9", "--rate", "0.5", "--seed", "3")
    tolerances = ("--rtol", "0.25", "--atol", "0.5", "--provider", "CPU")
    text = good("verify", "net.py:Net", "net.onnx", *args, *tolerances)
    (((_, _, (tensor,)), kwargs, report),) = calls
    assert text == f"{report}\n"
    expected = np.random.default_rng(3).random((2, 4, 9), dtype=np.float32) < 0.5
    assert np.array_equal(tensor.numpy(), expected)
    providers = ["CPUExecutionProvider"]
    assert kwargs == {
        "rtol": 0.25,
        "atol": 0.5,
        "outputs": None,
        "providers": providers,
        "native": None,
    }


@pytest.mark.matrix
def test_verify_different_is_exit_1(here: Path) -> None:
    outcome = invoke("verify", "net.py:other", "net.onnx")
    assert outcome.exit_code == 1
    assert outcome.stderr == ""
    assert "✗ dense " in outcome.stdout
    assert "first divergence: dense: sample 0" in outcome.stdout
    assert outcome.stdout.splitlines()[-1].startswith("NOT equal")


def test_verify_with_the_checkpoint_is_equal_again(here: Path) -> None:
    torch.save(state_of_net(here), "net.pt")
    good("verify", "net.py:other", "net.onnx", "--weights", "net.pt")


def test_verify_takes_inputs_from_files(here: Path) -> None:
    text = good("verify", "net.py:Net", "net.onnx", "--input", "x.npy")
    assert "equal on inputs of shape (3, 4, 12)" in text
    np.save("xi.npy", spikes(2, 4, 8).astype(">i2"))
    np.save("y.npy", spikes(2, 2, 5, 6, 8).astype(np.float64))
    text = good("verify", "net.py:Pair", "pair.onnx", "-i", "xi.npy", "-i", "y.npy")
    assert "equal on inputs of shape (2, 4, 8) and (2, 2, 5, 6, 8)" in text
    np.savez("both.npz", y=spikes(2, 2, 5, 6, 8), x=spikes(2, 4, 8))
    again = good("verify", "net.py:Pair", "pair.onnx", "-i", "both.npz")
    assert "equal on inputs of shape (2, 4, 8) and (2, 2, 5, 6, 8)" in again


def test_verify_generates_what_a_static_model_takes(here: Path) -> None:
    args = ("--static", "--steps", "5")
    good("export", "net.py:Net", "--shape", "4", "-o", "static.onnx", *args)
    text = good("verify", "net.py:Net", "static.onnx", "--samples", "4", "--steps", "9")
    assert text.splitlines()[-1] == "equal on inputs of shape (1, 4, 5)"


def test_verify_asks_for_inputs_that_it_cannot_make_up(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "open (float[N, C, T] spikes) => (float[N, C, T] output)"
        "{ output = Add(spikes, spikes) }"
    )
    onnx.save(model, "open.onnx")
    assert bad("verify", "net.py:Open", "open.onnx") == (
        "input spikes: axis 1 of (N, C, T) is open, so spikes cannot be generated; give them by "
        "--input"
    )
    good("verify", "net.py:Open", "open.onnx", "--input", "x.npy")


VERIFY_FAULTS = {
    "no model": (("net.py:Net", "nope.onnx"), "nope.onnx cannot be read: no such file"),
    "folder": (("net.py:Net", "."), ". cannot be read: it is a folder"),
    "no onnx": (("net.py:Net", "x.npy"), "x.npy is no ONNX model"),
    "source first": (("net.py", "nope.onnx"), "SOURCE 'net.py' must be package.module:name"),
    "no input": (("net.py:Net", "net.onnx", "-i", "n.npy"), "n.npy cannot be read: no such file"),
    "two for one": (
        ("net.py:Net", "net.onnx", "-i", "x.npy", "-i", "x.npy"),
        "the model takes spikes and --input gives 2 arrays; give one for each, in this order",
    ),
    "another net": (
        ("net.py:Pair", "net.onnx"),
        "forward(x, y) of net.py:Pair does not take 1 inputs; it is not the network that",
    ),
    "raises": (("net.py:Broken", "net.onnx"), "the reference raises RuntimeError: mat1 and mat2"),
    "nan": (("net.py:Net", "net.onnx", "--rtol", "nan"), "'nan' is not a finite number"),
    "inf": (("net.py:Net", "net.onnx", "--atol", "inf"), "'inf' is not a finite number"),
    "nan rate": (("net.py:Net", "net.onnx", "--rate", "nan"), "'nan' is not a finite number"),
    "rate": (("net.py:Net", "net.onnx", "--rate", "2"), "2.0 is not in the range 0<=x<=1"),
    "provider": (
        ("net.py:Net", "net.onnx", "--provider", "Abacus"),
        "execution provider Abacus is not available",
    ),
}


@pytest.mark.parametrize("name", VERIFY_FAULTS)
def test_what_verify_refuses(here: Path, name: str) -> None:
    args, expected = VERIFY_FAULTS[name]
    assert expected in bad("verify", *args)


def test_verify_refuses_inputs_with_nan(here: Path) -> None:
    np.save("nan.npy", np.full((3, 4, 12), np.nan, np.float32))
    said = bad("verify", "net.py:Net", "net.onnx", "-i", "nan.npy")
    assert said == "verify: input 0 has NaN or infinite values"


def test_verify_writes_a_page_and_prints_json(here: Path) -> None:
    text = good("verify", "net.py:Net", "net.onnx", "--report", "report.html")
    assert text.splitlines()[-1].split() == ["wrote", "report.html"]
    page = Path("report.html").read_text(encoding="utf-8")
    assert "✓ equal" in page
    digest = hashlib.sha256(Path("net.onnx").read_bytes()).hexdigest()
    assert digest in page
    document = json.loads(good("verify", "net.py:Net", "net.onnx", "--json"))
    assert document["ok"] is True
    assert document["facts"]["model"] == "net.onnx"
    assert document["facts"]["SHA-256"] == digest


def test_verify_writes_the_page_of_a_network_that_differs_too(here: Path) -> None:
    outcome = invoke("verify", "net.py:other", "net.onnx", "--report", "report.html", "--json")
    assert outcome.exit_code == 1
    first = json.loads(outcome.stdout)["first_divergence"]
    page = Path("report.html").read_text(encoding="utf-8")
    assert "✗ NOT equal" in page
    assert f"{first['layer']}: sample {first['sample']}, neuron" in page


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--report", "report.pdf"], "report.pdf cannot be written: its name must end in .html"),
        (["--report", "no/r.html"], "no/r.html cannot be written: there is no folder no"),
        (["--native", "both", "--json"], "--native both makes two reports; take yes or no"),
    ],
)
def test_verify_refuses_reports_that_cannot_be(here: Path, options, sentence) -> None:
    assert bad("verify", "net.py:Net", "net.onnx", *options).startswith(sentence)


def test_a_streaming_model_is_verified_in_chunks_too(stream: Path) -> None:
    text = good("verify", "net.py:Binned", "s.onnx")
    assert "output (in chunks)" in text
    assert "equal on inputs of shape" in text
