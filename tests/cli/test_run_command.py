"""synapse-onnx run: arrays in, arrays out, chunks and saved states."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from calls_of_commands import RunsWhenLoaded, bad, good, spikes

import synapse_onnx as so


@pytest.mark.matrix
def test_run_writes_what_the_session_gives(here: Path) -> None:
    expected = so.Session("net.onnx").run(np.load("x.npy"))
    assert 0 < expected.mean() < 1
    text = good("run", "net.onnx", "--input", "x.npy", "-o", "out.npz")
    with np.load("out.npz") as archive:
        assert archive.files == ["output"]
        assert np.array_equal(archive["output"], expected)
    line = next(line for line in text.splitlines() if line.startswith("output  (3"))
    assert line.split("  ") == ["output", "(3, 3, 12)", "float32", f"{expected.mean():.6g}"]
    assert text.endswith("wrote  out.npz\n")
    first = Path("out.npz").read_bytes()
    with zipfile.ZipFile("out.npz") as archive:
        assert [entry.compress_type for entry in archive.filelist] == [zipfile.ZIP_DEFLATED]
    good("run", "net.onnx", "--input", "x.npy", "-o", "out.npy", "--provider", "cpu")
    assert np.array_equal(np.load("out.npy"), expected)
    good("run", "net.onnx", "--input", "x.npy", "-o", "out.npz")
    assert Path("out.npz").read_bytes() == first
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_run_with_several_inputs_and_outputs(here: Path) -> None:
    x, y = spikes(2, 4, 8), spikes(2, 2, 5, 6, 8, seed=1)
    expected = so.Session("pair.onnx").run(x, y)
    np.savez("by_name.npz", y=y, x=x)
    np.savez("in_order.npz", first=x, second=y)
    np.save("a.npy", x)
    np.save("b.npy", y)
    for files in (["by_name.npz"], ["in_order.npz"], ["a.npy", "b.npy"]):
        args = [part for file in files for part in ("-i", file)]
        good("run", "pair.onnx", *args, "-o", "out.npz")
        with np.load("out.npz") as archive:
            assert archive.files == ["output_0", "output_1", "output_2"]
            for name, array in zip(archive.files, expected, strict=True):
                assert np.array_equal(archive[name], array)
        os.unlink("out.npz")
    assert bad("run", "pair.onnx", "-i", "by_name.npz", "-o", "out.npy") == (
        "out.npy can hold one array and the model has 3 outputs (output_0, output_1, output_2); "
        "give a name that ends in .npz"
    )
    assert bad("run", "pair.onnx", "-i", "a.npy", "-o", "out.npz") == (
        "the model takes x, y and --input gives 1 arrays; give one for each, in this order"
    )


def test_an_output_of_any_name_is_a_key(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "twice (float[N, C, T] spikes) => (float[N, C, T] file)"
        "{ file = Add(spikes, spikes) }"
    )
    onnx.save(model, "twice.onnx")  # numpy.savez has a parameter of the name "file"
    good("run", "twice.onnx", "-i", "x.npy", "-o", "out.npz")
    with np.load("out.npz") as archive:
        assert np.array_equal(archive["file"], 2 * np.load("x.npy"))


def test_bad_arrays(here: Path) -> None:
    def said(file: str = "in.npy") -> str:
        return bad("run", "net.onnx", "-i", file, "-o", "out.npz")

    damaged = "is no .npy or .npz file, or a damaged one; write one by numpy.save"
    assert said() == "in.npy cannot be read: no such file"
    assert "out.npz is a file's name, and --input is a folder" in said(".")
    good = Path("x.npy").read_bytes()
    np.savez("good.npz", x=np.load("x.npy"))
    for data in (b"", b"text", good[:40], good[:-5], b"PK\x03\x04 cut off"):
        Path("in.npy").write_bytes(data)
        assert said() == f"in.npy {damaged}"
    Path("in.npz").write_bytes(Path("good.npz").read_bytes()[:-30])
    assert said("in.npz") == f"in.npz {damaged}"
    np.save("in.npy", np.array([{}], dtype=object))
    assert said() == "in.npy holds Python objects; save an array of numbers by numpy.save"
    np.savez("in.npz", x=np.array([{}], dtype=object))
    assert said("in.npz") == "in.npz holds Python objects; save an array of numbers by numpy.save"
    Path("in.npy").write_bytes(pickle.dumps(RunsWhenLoaded()))
    assert said() == f"in.npy {damaged}"
    assert not Path("was_run").exists()
    np.save("in.npy", np.zeros((3, 4, 12), complex))
    assert said() == "in.npy holds complex128 values; real numbers are needed"
    np.savez("in.npz", x=np.full((3, 4, 12), "a"))
    assert said("in.npz") == "in.npz (x) holds <U1 values; real numbers are needed"
    np.save("in.npy", np.zeros((3, 4)))
    assert said() == "input spikes: expected 3 axes (N, 4, T), got shape (3, 4)"
    np.save("in.npy", np.zeros((3, 5, 12)))
    assert said() == "input spikes: expected shape (N, 4, T), got (3, 5, 12)"


RUN_FAULTS = {
    "no model": (("nope.onnx", "-i", "x.npy", "-o", "o.npz"), "nope.onnx cannot be read: "),
    "no onnx": (("x.npy", "-i", "x.npy", "-o", "o.npz"), "x.npy is no ONNX model"),
    "ending": (
        ("net.onnx", "-i", "x.npy", "-o", "o.txt"),
        "o.txt cannot be written: its name must end in .npz or .npy",
    ),
    "no folder": (
        ("net.onnx", "-i", "x.npy", "-o", "no/o.npz"),
        "no/o.npz cannot be written: there is no folder no",
    ),
    "no input": (
        ("net.onnx", "-o", "o.npz"),
        "missing option '-i' / '--input'; see 'synapse-onnx run --help'",
    ),
    "no output": (
        ("net.onnx", "-i", "x.npy"),
        "missing option '-o' / '--output'; see 'synapse-onnx run --help'",
    ),
    "provider": (
        ("net.onnx", "-i", "x.npy", "-o", "o.npz", "--provider", "abacus"),
        "execution provider abacus is not available; this ONNX Runtime has: ",
    ),
}


@pytest.mark.parametrize("name", RUN_FAULTS)
def test_what_run_refuses(here: Path, name: str) -> None:
    args, expected = RUN_FAULTS[name]
    assert bad("run", *args).startswith(expected)


def test_chunks_and_saved_states_give_the_whole(stream: Path) -> None:
    x = spikes(2, 4, 22)
    np.save("a.npy", x[..., :9])
    np.save("b.npy", x[..., 9:])
    np.save("all.npy", x)
    good("run", "s.onnx", "--input", "all.npy", "-o", "whole.npy")
    good("run", "s.onnx", "--input", "all.npy", "-o", "chunks.npy", "--chunk", "5")
    good("run", "s.onnx", "--input", "a.npy", "-o", "first.npy", "--save", "state.npz")
    good("run", "s.onnx", "--input", "b.npy", "-o", "second.npy", "--restore", "state.npz")
    whole, chunks, first, second = (
        np.load(f"{name}.npy") for name in ("whole", "chunks", "first", "second")
    )
    assert whole.shape == (2, 2, 6)
    assert np.abs(whole).sum() > 0
    np.testing.assert_array_equal(chunks, whole)
    assert first.shape == (2, 2, 2)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=-1), whole)


def test_streams_that_cannot_be(stream: Path) -> None:
    np.save("two.npy", spikes(2, 4, 9))
    good("run", "s.onnx", "--input", "x.npy", "-o", "y.npy", "--save", "three.npz")
    for flag in (["--chunk", "5"], ["--save", "n.npz"], ["--restore", "three.npz"]):
        sentence = bad("run", "net.onnx", "--input", "x.npy", "-o", "z.npy", *flag)
        assert "not exported for streaming" in sentence
    run = ["run", "s.onnx", "--input", "two.npy", "-o", "z.npy"]
    assert "state first.neuron.current is int64" in bad(*run, "--restore", "three.npz")
    assert "cannot be read" in bad(*run, "--restore", "nothing.npz")
    assert "is not the saved state" in bad(*run, "--restore", "net.py")
    assert "state.txt" in bad(*run, "--save", "state.txt")
    assert "--chunk" in bad(*run, "--chunk", "0")
