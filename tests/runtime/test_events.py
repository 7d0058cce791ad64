"""Events as frames, and `run` on them: against loops, and against arrays made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from networks import Convolutional, spikes

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.errors import InputError
from synapse_onnx.runtime.events import bin_events


def _events(seed: int = 0, number: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 8, number),
        "y": rng.integers(0, 8, number),
        "p": rng.integers(0, 2, number),
        "t": rng.integers(0, 20_000, number),  # in no order
    }


def _by_hand(events: dict[str, np.ndarray], steps: int, dt: float) -> np.ndarray:
    frames = np.zeros((2, 8, 8, steps), np.float32)
    for x, y, p, t in zip(*(events[name] for name in "xypt"), strict=True):
        frames[p, y, x, int(t // dt)] += 1
    return frames


# -- bin_events ----------------------------------------------------------------------------------


def test_events_fall_into_their_place_and_step() -> None:
    events = _events()
    steps = int(events["t"].max() // 1000) + 1
    expected = _by_hand(events, steps, 1000)
    assert expected.max() > 1, "some events must share a place and a step"
    counted = bin_events(events, (2, 8, 8), 1000, count=True)
    assert counted.dtype == np.float32
    assert np.array_equal(counted, expected)
    assert np.array_equal(bin_events(events, (2, 8, 8), 1000), expected > 0)
    longer = bin_events(events, (2, 8, 8), 1000, steps=steps + 5)
    assert np.array_equal(longer[..., :steps], expected > 0)
    assert longer.shape[-1] == steps + 5
    assert not longer[..., steps:].any()


def test_channels_alone_need_no_rows_and_columns() -> None:
    frames = bin_events({"p": [0, 2, 2], "t": [0.0, 0.5, 1.5]}, (3,), 0.5)
    assert np.argwhere(frames).tolist() == [[0, 0], [2, 1], [2, 3]]
    assert frames.shape == (3, 4)


def test_no_events_are_one_silent_step() -> None:
    assert bin_events({"p": np.zeros(0), "t": np.zeros(0)}, (3,), 1).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"x": None}, {}, "lack the column 'x'"),
        ({"x": [1, 2]}, {}, "must be equally long, and p has 1, y has 1, x has 2"),
        ({"x": [8]}, {}, r"event 0 has x=8; it must be a whole number from 0 to 7"),
        ({"p": [-1]}, {}, "event 0 has p=-1"),
        ({"y": [0.5]}, {}, "event 0 has y=0.5"),
        ({"t": [-2.0]}, {}, "has the time -2"),
        ({"t": [np.nan]}, {}, "NaN"),
        ({"t": ["a"]}, {}, "must be numbers"),
        ({"t": [[1]]}, {}, r"must be numbers of shape \(E,\)"),
        ({"t": [1e12]}, {}, "beyond 4 GiB"),
        ({"t": [9]}, {"steps": 3}, "falls into step 9, and there are 3 steps"),
        ({}, {"dt": 0}, "dt must be"),
        ({}, {"dt": float("inf")}, "dt must be"),
    ],
)
def test_events_that_are_none_are_refused(change, options, sentence: str) -> None:
    one = {"x": [1], "y": [1], "p": [1], "t": [1]}
    events = {k: v for k, v in {**one, **change}.items() if v is not None}
    with pytest.raises(InputError, match=sentence):
        bin_events(events, (2, 8, 8), **{"dt": 1, **options})


# -- run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("events") / "net.onnx"
    so.export(Convolutional().eval(), spikes(2, 2, 8, 8, 5), path)
    return path


def _run(model: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["run", str(model), *args])


def _csv(path: Path, events: dict[str, np.ndarray]) -> str:
    lines = ["t,p,x,y", *(f"{t},{p},{x},{y}" for x, y, p, t in zip(*events.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "npz", "npy"])
def test_files_of_events_are_samples(model: Path, tmp_path: Path, kind: str) -> None:
    many = [_events(0), _events(1, 150)]
    paths = []
    for i, events in enumerate(many):
        path = tmp_path / f"{i}.{kind}"
        if kind == "csv":
            _csv(path, events)
        elif kind == "npz":
            np.savez(path, **events)
        else:
            table = np.zeros(len(events["x"]), [("t", "u4"), ("x", "u2"), ("y", "u2"), ("p", "?")])
            for name, column in events.items():
                table[name] = column
            np.save(path, table)
        paths += ["--input", str(path)]
    out = tmp_path / "out.npy"
    outcome = _run(model, *paths, "--dt", "1000", "-o", str(out))
    assert outcome.exit_code == 0, outcome.output
    steps = max(int(events["t"].max() // 1000) for events in many) + 1
    frames = np.stack([_by_hand(events, steps, 1000) > 0 for events in many])
    expected = so.Session(model).run(frames.astype(np.float32))
    assert expected.any()
    assert np.array_equal(np.load(out), expected)


@pytest.mark.parametrize("layout", ["NCT", "TNC"])
def test_outputs_are_decoded(tmp_path: Path, layout: str) -> None:
    torch.manual_seed(0)
    model = tmp_path / "net.onnx"
    so.export(Convolutional().eval(), spikes(2, 2, 8, 8, 5), model, layout=layout)
    x = spikes(3, 2, 8, 8, 25).numpy()
    x = np.moveaxis(x, -1, 0) if layout == "TNC" else x
    np.save(tmp_path / "x.npy", x)
    output = so.Session(model).run(x)
    output = np.moveaxis(output, 0, -1) if layout == "TNC" else output
    found = {}
    for decode in ("rate", "first-spike", "last"):
        out = str(tmp_path / "out.npy")
        outcome = _run(model, "-i", str(tmp_path / "x.npy"), "--decode", decode, "-o", out)
        assert outcome.exit_code == 0, outcome.output
        found[decode] = np.load(out)
    assert np.array_equal(found["rate"], output.mean(-1, dtype=np.float32))
    assert np.array_equal(found["last"], output[..., -1])
    firsts = [[next((t for t, s in enumerate(n) if s), -1) for n in sample] for sample in output]
    assert np.array_equal(found["first-spike"], firsts)
    assert len(np.unique(firsts)) > 1


@pytest.mark.parametrize(
    ("text", "args", "sentence"),
    [
        ("t,p,x,y\n1,0,0,0\n", [], "e.csv holds events; give --dt"),
        ("t,p,x,y\n1,0,0,9\n", ["--dt", "1"], "e.csv: event 0 has y=9"),
        ("t,p,x\n1,0,0\n", ["--dt", "1"], "e.csv: events lack the column 'y'"),
        ("a,b\n1,0\n", ["--dt", "1"], "e.csv holds no events"),
        ("t,p,x,y\n1,0,0\n", ["--dt", "1"], "e.csv has 4 names in its first line and 3 columns"),
        ("t,p,x,y\n1,0,zero,0\n", ["--dt", "1"], "e.csv is no table of numbers"),
        ("t,p,x,y\n1,0,0,0\n", ["--dt", "0"], "0"),
        ("t,p,x,y\n1,0,0,0\n", ["--dt", "nan"], "not a finite number"),
        ("t,p,x,y\n1,0,0,0\n", ["--count"], "--count is for events"),
    ],
)
def test_run_refuses_what_it_cannot_bin(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text, args, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.csv").write_text(text)
    outcome = _run(model, "--input", "e.csv", *args, "-o", "out.npz")
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert sentence in outcome.stderr
    assert not Path("out.npz").exists()


def test_a_table_without_rows_is_silence(model: Path, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t,p,x,y\n\n")
    out = tmp_path / "out.npy"
    outcome = _run(model, "-i", str(tmp_path / "e.csv"), "--dt", "1", "-o", str(out))
    assert outcome.exit_code == 0, outcome.output
    assert np.load(out).shape[-1] == 1
