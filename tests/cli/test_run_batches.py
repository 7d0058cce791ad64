"""`run --batch`, its bar, and `--quiet`: against Session.run on the same cuts."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import torch
from click.testing import CliRunner, Result
from networks import Convolutional, spikes

import synapse_onnx as so
from synapse_onnx.cli import _output, main

DRIFT = Path(__file__).parents[2] / "models" / "drift_stream.onnx"


def _run(model: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["run", str(model), *args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both layouts, one of a fixed batch, and seven samples."""
    folder = tmp_path_factory.mktemp("batches")
    torch.manual_seed(0)
    network = Convolutional().eval()
    for layout in ("NCT", "TNC"):
        so.export(network, spikes(2, 2, 8, 8, 5), folder / f"{layout}.onnx", layout=layout)
    so.export(network, spikes(2, 2, 8, 8, 5), folder / "fixed.onnx", dynamic=False)
    x = spikes(7, 2, 8, 8, 5).numpy()
    np.save(folder / "NCT.npy", x)
    np.save(folder / "TNC.npy", np.moveaxis(x, -1, 0))
    return folder


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the first input of every call of Session.run."""
    seen: list[tuple[int, ...]] = []
    run = so.Session.run

    def spy(self: so.Session, *inputs: np.ndarray) -> object:
        seen.append(inputs[0].shape)
        return run(self, *inputs)

    monkeypatch.setattr(so.Session, "run", spy)
    return seen


@pytest.mark.parametrize(("layout", "axis"), [("NCT", 0), ("TNC", 1)])
@pytest.mark.parametrize(("batch", "expected"), [(3, [3, 3, 1]), (7, [7]), (50, [7]), (1, [1] * 7)])
def test_batches_are_the_samples_in_turn(
    folder: Path, tmp_path: Path, sizes: list, layout: str, axis: int, batch: int, expected: list
) -> None:
    x = np.load(folder / f"{layout}.npy")
    session = so.Session(folder / f"{layout}.onnx")
    cuts = np.split(x, range(batch, 7, batch), axis=axis)
    whole = np.concatenate([session.run(cut) for cut in cuts], axis=axis)
    assert len({sample.tobytes() for sample in np.moveaxis(whole, axis, 0)}) > 1
    sizes.clear()
    out = tmp_path / "out.npy"
    outcome = _run(
        folder / f"{layout}.onnx",
        *("-i", str(folder / f"{layout}.npy"), "--batch", str(batch), "-o", str(out)),
    )
    assert outcome.exit_code == 0, outcome.output
    assert [shape[axis] for shape in sizes] == expected
    assert np.array_equal(np.load(out), whole)
    assert outcome.stderr == "", "stderr is no terminal: no bar"


def test_batches_are_decoded_as_the_whole(folder: Path, tmp_path: Path) -> None:
    found = []
    for more in ([], ["--batch", "2"]):
        out = str(tmp_path / "out.npy")
        args = ["-i", str(folder / "NCT.npy"), "--decode", "first-spike", "-o", out, *more]
        assert _run(folder / "NCT.onnx", *args).exit_code == 0
        found.append(np.load(out))
    assert np.array_equal(*found)


def test_streams_in_batches(tmp_path: Path) -> None:
    session = so.Session(DRIFT)
    (info,) = (v for v in session.session.get_inputs() if v.name in session.inputs)
    shape = [5, *(size for size in info.shape[1:-1]), 12]
    x = (np.random.default_rng(0).random(shape) < 0.3).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    expected = []
    for begin in (0, 2, 4):
        stream = session.stream(len(x[begin : begin + 2]))
        expected.append(np.concatenate([stream.run(x[begin : begin + 2]), stream.flush()], axis=-1))
    out = tmp_path / "out.npy"
    args = ("-i", str(tmp_path / "x.npy"), "--chunk", "5", "--batch", "2", "-o", str(out))
    outcome = _run(DRIFT, *args)
    assert outcome.exit_code == 0, outcome.output
    assert np.array_equal(np.load(out), np.concatenate(expected))
    for state in (["--save", "s.npz"], ["--restore", "s.npz"]):
        outcome = _run(DRIFT, *args, *state)
        assert outcome.exit_code == 2
        assert outcome.stderr.startswith("error: --batch cuts the samples, and --restore and --sav")


def test_a_fixed_batch_takes_multiples_of_itself(folder: Path, tmp_path: Path) -> None:
    x = np.load(folder / "NCT.npy")
    out = tmp_path / "out.npy"
    sentence = (
        "error: --batch: the model was exported with a fixed batch of 2; give --batch 2 and a "
        "multiple of 2 samples, got {}\n"
    )
    for number, batch, good in ((6, 2, True), (6, 3, False), (7, 2, False)):
        np.save(tmp_path / "x.npy", x[:number])
        args = ("-i", str(tmp_path / "x.npy"), "--batch", str(batch), "-o", str(out))
        outcome = _run(folder / "fixed.onnx", *args)
        if good:
            assert outcome.exit_code == 0, outcome.output
            session = so.Session(folder / "fixed.onnx")
            parts = [session.run(x[i : i + 2]) for i in (0, 2, 4)]
            assert np.array_equal(np.load(out), np.concatenate(parts))
            out.unlink()
        else:
            assert (outcome.exit_code, outcome.stderr) == (2, sentence.format(number))
            assert not out.exists()


@pytest.mark.parametrize(
    ("text", "shapes", "sentence"),
    [
        (
            "(float[N, C, T] a, float[M, C, T] b) => (float[N, C, T] c, float[M, C, T] d)"
            "{ c = Neg(a) d = Neg(b) }",
            [(3, 2, 4), (2, 2, 4)],
            "--batch needs equally many samples in every input, got 3 and 2",
        ),
        (
            "(float[N, C, T] a) => (float c) { c = ReduceSum<keepdims = 0>(a) }",
            [(3, 2, 4)],
            "--batch: output c of shape () does not hold 2 samples, one for each of a batch; "
            "leave out --batch",
        ),
        (
            "(float[N, C, T] a) => (float[N, C, T] c) { c = Neg(a) }",
            [(0, 2, 4)],
            "input a: the array is empty, of shape (0, 2, 4)",
        ),
    ],
    ids=["numbers differ", "no samples in the output", "empty"],
)
def test_what_has_no_batches_is_refused(
    tmp_path: Path, text: str, shapes: list, sentence: str
) -> None:
    head = '<ir_version: 10, opset_import: ["" : 21]> g '
    onnx.save(onnx.parser.parse_model(head + text), tmp_path / "m.onnx")
    args = []
    for i, shape in enumerate(shapes):
        np.save(tmp_path / f"{i}.npy", np.ones(shape, np.float32))
        args += ["-i", str(tmp_path / f"{i}.npy")]
    out = tmp_path / "out.npz"
    outcome = _run(tmp_path / "m.onnx", *args, "--batch", "2", "-o", str(out))
    assert (outcome.exit_code, outcome.stderr) == (2, f"error: {sentence}\n")
    assert not out.exists()


def test_quiet_shows_nothing_but_errors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = so.Session.__init__

    def warns(self: so.Session, *args: object, **options: object) -> None:
        warnings.warn("no native kernels: a reason", stacklevel=2)
        made(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(so.Session, "__init__", warns)
    out = tmp_path / "out.npy"
    args = ["-i", str(folder / "NCT.npy"), "-o", str(out), "--batch", "2", "--quiet"]
    outcome = _run(folder / "NCT.onnx", *args)
    assert (outcome.exit_code, outcome.output, outcome.stderr) == (0, "", "")
    assert len(np.load(out)) == 7
    outcome = _run(folder / "NCT.onnx", *args, "--provider", "abacus")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: execution provider abacus is not available")


# -- the bar -------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``shown(seconds)``: what a terminal gets of 4 of 10 samples, done after so many seconds."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def show(seconds: float, stream: io.StringIO | None = None, quiet: bool = False) -> str:
        stream = stream or _Terminal()
        clock = iter((100.0, 100.0 + seconds))
        monkeypatch.setattr(_output, "perf_counter", lambda: next(clock))
        monkeypatch.setattr(sys, "stderr", stream)
        with _output.progress(10, "samples", quiet=quiet) as advance:
            advance(4)
        return stream.getvalue()

    return show


def test_the_bar_of_what_takes_longer(shown: Callable[..., str]) -> None:
    text = shown(2.0)
    assert "4/10" in text.replace(" ", "")
    assert "samples, 2.0/s" in text
    assert "left" in text


def test_chunks_and_calls_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `run --chunk` and `bench` tell the bar."""
    told: list[tuple[str, int, list[int], bool]] = []

    @contextmanager
    def spy(total: int, unit: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
        done: list[int] = []
        told.append((unit, total, done, quiet))
        yield done.append

    for name in ("_scoring", "bench"):
        monkeypatch.setattr(importlib.import_module(f"synapse_onnx.cli.{name}"), "progress", spy)
    session = so.Session(DRIFT)
    (info,) = (v for v in session.session.get_inputs() if v.name in session.inputs)
    np.save(tmp_path / "x.npy", np.zeros((5, *info.shape[1:-1], 12), np.float32))
    x, out = str(tmp_path / "x.npy"), str(tmp_path / "out.npy")
    assert _run(DRIFT, "-i", x, "--chunk", "5", "-o", out).exit_code == 0
    assert _run(DRIFT, "-i", x, "--chunk", "5", "--batch", "3", "-o", out).exit_code == 0
    args = ["bench", str(DRIFT), "-i", x, "--native", "both", "--seconds", "0", "--quiet"]
    assert CliRunner().invoke(main, args).exit_code == (0 if session.native else 2)
    steps = ("time steps", 12, [5, 5, 2])
    assert told[:4] == [
        (*steps, False),
        ("samples", 5, [3, 2], False),
        (*steps, True),
        (*steps, True),
    ]
    if session.native:
        assert told[4:] == [("calls", 10, [1] * 10, True)]


def test_no_bar_within_a_second_nor_without_a_terminal(
    shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(0.9) == ""
    assert shown(2.0, quiet=True) == ""
    assert shown(2.0, io.StringIO()) == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert shown(2.0, io.StringIO()) == ""
