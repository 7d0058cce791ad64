"""Readers of files: the registry, their options as texts, and the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.readers import Reader, all_readers, reader_for, register

FOLDER = Path(__file__).parents[1] / "reference"


def call(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(args))
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("reader", all_readers(), ids=lambda reader: reader.name)
def test_every_reader_is_a_public_function(reader: Reader) -> None:
    assert reader.load is getattr(so, reader.load.__name__)
    assert reader.load.__name__ in so.__all__
    assert all(reader_for(f"some/file{suffix.upper()}") is reader for suffix in reader.suffixes)
    assert reader.doc
    for option in reader.options.values():
        assert option.default is not option.empty, "an option has a default"
        assert option.name in (reader.load.__doc__ or "")


def test_files_of_other_names_have_no_reader() -> None:
    assert reader_for("net.py") is None
    assert reader_for("folder.net/file") is None


def test_two_readers_claim_no_suffix_twice() -> None:
    other = Reader("other", (".net",), "", lambda path: nn.Identity(), "a second one")
    with pytest.raises(so.RegistryError, match=r"two readers claim \.net"):
        register(other)


def test_options_come_as_texts() -> None:
    received: dict[str, Any] = {}

    def load(
        path: str, flag: bool = False, count: int | None = None, dt: float = 1.0, word: str = ""
    ) -> nn.Module:
        received.update(flag=flag, count=count, dt=dt, word=word)
        return nn.Identity()

    load.__annotations__ |= {"flag": "bool", "count": "int | None", "dt": "float", "word": "str"}
    reader = Reader("texts", (".texts",), "", load, "")
    reader.read("a.texts", {"flag": "True", "count": "3", "dt": "1e-3", "word": "x"})
    assert received == {"flag": True, "count": 3, "dt": 1e-3, "word": "x"}
    for name, text, sentence in (
        ("flag", "yes", "option flag must be true or false, got 'yes'"),
        ("count", "1.5", "option count must be a whole number, got '1.5'"),
        ("dt", "soon", "option dt must be a number, got 'soon'"),
        ("colour", "red", "texts files have no option 'colour'; there are: flag, count, dt, word"),
    ):
        with pytest.raises(so.InputError, match=sentence):
            reader.read("a.texts", {name: text})


def test_a_net_file_from_the_command_line(tmp_path: Path) -> None:
    net, model = str(FOLDER / "net_cuba_mlp.net"), str(tmp_path / "net.onnx")
    shift = ("--set", "delay-shift=true")
    code, output = call("export", net, "-o", model, *shift)
    assert code == 0, output
    assert "regime loihi" in output
    assert "--set delay_shift=true" in output  # the command that compares it
    code, output = call("verify", net, model, *shift)
    assert code == 0, output
    assert "equal on inputs" in output
    code, output = call("verify", net, model)  # without the shift it is another network
    assert code in (1, 2), output
    assert call("inspect", model)[0] == 0


def test_a_nir_file_from_the_command_line(tmp_path: Path) -> None:
    graph, model = str(tmp_path / "graph.nir"), str(tmp_path / "graph.onnx")
    so.to_nir(so.neuron.lif.Neuron(beta=0.8), graph, input_shape=(6,))
    assert call("export", graph, "-o", model)[0] == 0
    assert call("verify", graph, model)[0] == 0
    # another time step is another network
    assert call("verify", graph, model, "--set", "dt=2e-4")[0] == 1


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("{net}", "--set", "colour=red"), "lava-dl files have no option 'colour'"),
        (("{net}", "--set", "delay_shift"), "'delay_shift' must be KEY=VALUE"),
        (("{net}", "--weights", "a.pt"), "holds weights of its own; leave --weights away"),
        (("net.py:Net", "--set", "a=b"), "--set is for files of networks, and net.py:Net is code"),
        (("{image}",), "does not say the shape of its input; give --shape C or --shape C,H,W"),
        (("none.net",), "none.net cannot be read: no such file"),
        (("{broken}",), "is no HDF5 file, or a damaged one"),
        (("net.h5",), "or a file of a network: .nir (NIR), .net (lava-dl)"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    args: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.net"
    shutil.copy(FOLDER / "net_cuba_mlp.net", broken)
    broken.write_bytes(broken.read_bytes()[:900])
    places = {
        "net": FOLDER / "net_cuba_mlp.net",
        "image": FOLDER / "net_cuba_autoencoder.net",
        "broken": broken,
    }
    model = tmp_path / "a.onnx"
    code, output = call("export", *(arg.format(**places) for arg in args), "-o", str(model))
    assert code == 2
    assert sentence in output
    assert "Traceback" not in output
    assert not model.exists()
