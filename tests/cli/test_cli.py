"""The command line: what it prints, what it leaves on disk, and its exit codes."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.cli._output import size_text
from synapse_onnx.runtime import native

COMMANDS = tuple(main.list_commands(click.Context(main)))

SOURCE = textwrap.dedent(
    '''
    import sys

    import torch
    from torch import nn

    import synapse_onnx as so


    class Net(nn.Module):
        """Spikes (N, 4, T) -> spikes (N, 3, T)."""

        def __init__(self, seed=0):
            super().__init__()
            torch.manual_seed(seed)
            self.dense = so.synapse.Dense(4, 3, weight_scale=2, pre_hook_fx=so.quantize.q8)
            self.neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)

        def forward(self, spikes):
            return self.neuron(self.dense(spikes))


    class Pair(nn.Module):
        """Two inputs, three outputs, a layer with float weights and one with a long name."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a_layer_with_a_name_that_is_longer_than_usual = so.synapse.complex.Dense(
                4, 3, pre_hook_fx=so.quantize.q8
            )
            self.conv = so.synapse.Conv(2, 3, 3, padding=1)

        def forward(self, x, y):
            real, imag = self.a_layer_with_a_name_that_is_longer_than_usual(x)
            return real, imag, self.conv(y)


    class Broken(nn.Module):
        def forward(self, spikes):
            return spikes @ torch.zeros(5, 5)


    class FixedTime(nn.Module):
        def forward(self, spikes):
            return spikes.reshape(-1, 4, 16)


    class Binned(nn.Module):
        """Spikes (N, 4, T) -> voltages (N, 2, ceil(T / 4)), through a loop."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            given = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.05}
            blocks = so.block.cuba
            self.first = blocks.Recurrent(given, 4, 6, weight_scale=3)
            self.bins = blocks.TimeDecimation(4)
            self.last = blocks.Affine(given, 6, 2)

        def forward(self, spikes):
            return self.last(self.bins(self.first(spikes)))


    class Open(nn.Module):
        def forward(self, spikes):
            return spikes * 2


    net = Net()
    number = 3


    def other():
        return Net(seed=1)


    def boom():
        raise ValueError("boom\\nwith a second line")


    def leaves():
        sys.exit("bye")


    def wrong_layer():
        return so.synapse.Dense(-1, 3)


    def needs(size):
        return Net()
    '''
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source, checkpoint and models that every test reads and none writes."""
    path = tmp_path_factory.mktemp("cli")
    (path / "net.py").write_text(SOURCE)
    (path / "broken_syntax.py").write_text("def f(:\n")
    (path / "needs_missing.py").write_text("import a_module_that_nobody_has\n")
    outcome = CliRunner().invoke(
        main, ["export", f"{path}/net.py:Net", "--shape", "4", "-o", f"{path}/net.onnx"]
    )
    assert outcome.exit_code == 0, outcome.output
    shapes = ["--shape", "4", "--shape", "2,5,6"]
    outcome = CliRunner().invoke(
        main, ["export", f"{path}/net.py:Pair", *shapes, "-o", f"{path}/pair.onnx"]
    )
    assert outcome.exit_code == 0, outcome.output
    np.save(path / "x.npy", _spikes(3, 4, 12))
    return path


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the test's own to stand in, with links to the shared files."""
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _spikes(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.float32)


def _invoke(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def _good(*args: str) -> str:
    outcome = _invoke(*args)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr == ""
    return outcome.stdout


def _bad(*args: str) -> str:
    """Run a call that must fail with exit code 2; return its sentence, without "error: "."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*.on*")}
    files = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    outcome = _invoke(*args)
    assert outcome.exit_code == 2, outcome.output
    assert isinstance(outcome.exception, SystemExit)
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("error: ")
    after = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    assert after == files
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*.on*")} == before
    return outcome.stderr.removeprefix("error: ").rstrip("\n")


# -- help ------------------------------------------------------------------------------------


def test_no_arguments_show_the_help() -> None:
    text = _good()
    assert text == _good("--help") == _good("-h")
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "Exit codes: 0 done and equal, 1 the numbers differ, 2" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_explains_every_option(command: str) -> None:
    text = _good(command, "-h")
    assert text == _good(command, "--help")
    assert "Example" in text
    assert f"  synapse-onnx {command} net" in text
    found = main.get_command(click.Context(main), command)
    assert found is not None
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[-1] in text


def test_a_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SYNAPSE_ONNX_COMPLETE", "bash_complete")
    for words, found in (("ve", "verify"), ("verify --rep", "--report")):
        monkeypatch.setenv("COMP_WORDS", f"synapse-onnx {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        outcome = CliRunner().invoke(main, prog_name="synapse-onnx")
        assert outcome.stdout.split() == [f"plain,{found}"]


@pytest.mark.matrix
def test_version() -> None:
    text = _good("--version")
    assert text.splitlines()[0] == f"synapse-onnx {so.__version__}"
    assert text.splitlines()[1:] == [native.status(), native.status(native.CUDA)]


# -- export ----------------------------------------------------------------------------------


@pytest.mark.matrix
def test_export_writes_the_model_that_the_api_gives(here: Path) -> None:
    text = _good("export", "net.py:Net", "--shape", "4", "-o", "new.onnx")
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
    _good("export", "net.py:net", "--shape", "4", "-o", "new.onnx", *args)
    model = onnx.load("new.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 4, 5]
    assert {o.version for o in model.opset_import if o.domain == ""} == {23}


def test_export_takes_an_importable_module_from_the_folder(here: Path) -> None:
    Path("importable_net.py").write_text(SOURCE)
    path = list(sys.path)
    try:
        _good("export", "importable_net:Net", "--shape", "4", "-o", "new.onnx")
    finally:
        sys.modules.pop("importable_net", None)
    assert Path("new.onnx").read_bytes() == Path("net.onnx").read_bytes()
    assert sys.path == path


def test_export_of_a_file_finds_what_lies_beside_it(here: Path) -> None:
    Path("sub").mkdir()
    Path("sub/beside_it.py").write_text("from torch import nn\nNET = nn.Identity()\n")
    Path("sub/uses.py").write_text("from beside_it import NET\n")
    try:
        _good("export", "sub/uses.py:NET", "--shape", "2", "-o", "new.onnx")
    finally:
        sys.modules.pop("beside_it", None)
    assert Path("new.onnx").exists()


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "under state_dict"])
def test_export_loads_a_checkpoint(here: Path, wrapped: bool) -> None:
    _good("export", "net.py:other", "--shape", "4", "-o", "other.onnx")
    weight = next(
        t for t in onnx.load("other.onnx").graph.initializer if t.name.endswith(".weight")
    )
    state = _state(here)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, "net.pt")
    args = ("--shape", "4", "-o", "new.onnx", "--weights", "net.pt")
    text = _good("export", "net.py:other", *args)
    assert "net.py:other new.onnx --weights net.pt" in text
    assert Path("new.onnx").read_bytes() == Path("net.onnx").read_bytes()
    assert weight.SerializeToString() not in Path("new.onnx").read_bytes()


def _state(here: Path) -> dict[str, torch.Tensor]:
    namespace: dict[str, type[nn.Module]] = {"__name__": "net_for_state"}
    exec(SOURCE, namespace)
    return namespace["Net"]().state_dict()


def test_export_says_what_is_not_exact_and_cuts_no_name(here: Path) -> None:
    text = _good("export", "net.py:Pair", "--shape", "4", "--shape", "2,5,6", "-o", "new.onnx")
    assert "a_layer_with_a_name_that_is_longer_than_usual  complex Dense  3x4x1x1x1" in text
    assert "conv                                           Conv           3x2x3x3x1  float" in text
    assert "\nnote: conv: float weights" in text
    assert "…" not in text


SOURCE_FAULTS = {
    "no colon": ("net.py", "SOURCE 'net.py' must be package.module:name or path/to/file.py:name"),
    "no name": ("net.py:", "SOURCE 'net.py:' must be package.module:name or"),
    "no file": ("nope.py:net", "SOURCE 'nope.py:net': nope.py cannot be read: no such file"),
    "folder": ("sub/:net", "SOURCE 'sub/:net': sub/ cannot be read: it is a folder"),
    "no python file": ("x.npy/../net.onnx:net", "cannot be read: no such file"),
    "not .py": ("./net.onnx:net", "./net.onnx must be a .py file"),
    "odd module": ("a-b:net", "'a-b' is neither a module's name nor a path that ends in .py"),
    "no module": (
        "nobody.has.this:net",
        "SOURCE 'nobody.has.this:net': there is no module 'nobody' here; run from the folder that "
        "holds it, or give path/to/file.py:name",
    ),
    "no such name": ("net.py:nett", "net.py has no name 'nett'; did you mean 'net'?"),
    "no close name": ("net.py:qqqq", "net.py has no name 'qqqq'; define it, or name another one"),
    "no module object": (
        "net.py:number",
        "net.py:number is of type int; it must be a torch.nn.Module or a function without "
        "arguments that returns one",
    ),
    "not a module": ("os:getcwd", "os:getcwd is of type str; it must be a torch.nn.Module"),
    "raises": ("net.py:boom", "net.py:boom raised ValueError: boom (net.py, line {boom})"),
    "exits": ("net.py:leaves", "net.py:leaves raised SystemExit: bye (net.py, line"),
    "argument": ("net.py:needs", "net.py:needs raised TypeError: needs() missing 1 required"),
    "our error": ("net.py:wrong_layer", "net.py:wrong_layer: in_neurons must be a positive int"),
    "syntax": ("broken_syntax.py:f", "broken_syntax.py:f raised SyntaxError: invalid syntax ("),
    "import": (
        "needs_missing.py:f",
        "needs_missing.py:f raised ModuleNotFoundError: No module named "
        "'a_module_that_nobody_has' (needs_missing.py, line 1)",
    ),
    "import in a module": (
        "needs_missing:f",
        "needs_missing:f raised ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
    ),
    "forward": (
        "net.py:Broken",
        "net.py:Broken raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x16 and "
        "5x5) (net.py, line",
    ),
}


@pytest.mark.parametrize("name", SOURCE_FAULTS)
def test_a_bad_source_is_one_sentence(here: Path, name: str) -> None:
    source, expected = SOURCE_FAULTS[name]
    (here / "sub").mkdir()
    line = 1 + SOURCE.splitlines().index('    raise ValueError("boom\\nwith a second line")')
    said = _bad("export", source, "--shape", "4", "-o", "new.onnx")
    assert expected.format(boom=line) in said
    assert said.startswith(("SOURCE ", source.rpartition(":")[0]))


@pytest.mark.parametrize("shape", ["0", "-1", "4,", "2,3", "1,2,3,4", "a", "1.5", "", "1,8,x"])
def test_a_bad_shape_is_refused(here: Path, shape: str) -> None:
    assert _bad("export", "net.py:Net", f"--shape={shape}", "-o", "new.onnx") == (
        f"invalid value for '--shape': {shape!r} must be C or C,H,W of one sample, positive whole "
        f"numbers without batch and time, as in 1,8,8; see 'synapse-onnx export --help'"
    )


def test_a_shape_that_does_not_fit_the_network(here: Path) -> None:
    said = _bad("export", "net.py:Net", "--shape", "5", "-o", "new.onnx")
    assert said.startswith("dense: ")
    assert "expected 4 input channels" in said


def test_a_shape_that_does_not_fit_into_memory(here: Path) -> None:
    said = _bad("export", "net.py:Net", "--shape", "9999999999999", "-o", "new.onnx")
    assert said == "an input of shape (1, 9999999999999, 16) does not fit into memory"


def test_the_number_of_shapes_is_the_number_of_arguments(here: Path) -> None:
    said = _bad("export", "net.py:Pair", "--shape", "4", "-o", "new.onnx")
    assert said == (
        "forward(x, y) of net.py:Pair does not take 1 inputs; give --shape once for every argument"
    )


def test_what_cannot_stay_open_can_be_exported_static(here: Path) -> None:
    args = ("export", "net.py:FixedTime", "--shape", "4", "-o", "new.onnx")
    said = _bad(*args)
    assert "the number of time steps T as a constant (16)" in said
    assert said.endswith("or export with --static")
    _good(*args, "--static")
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
    assert _bad("export", "no.py:n", "--shape", "4", "-o", output) == OUTPUT_FAULTS[output]


def test_a_failed_export_leaves_the_old_file(here: Path) -> None:
    Path("old.onnx").write_bytes(b"old")
    _bad("export", "net.py:Broken", "--shape", "4", "-o", "old.onnx")
    assert Path("old.onnx").read_bytes() == b"old"


class _Runs:
    """Pickled code that leaves a file when it is run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("was_run"),))


def test_bad_checkpoints(here: Path) -> None:
    def said() -> str:
        return _bad("export", "net.py:Net", "--shape", "4", "-o", "n.onnx", "--weights", "c.pt")

    advice = "write one by torch.save(module.state_dict(), path)"
    assert said() == "c.pt cannot be read: no such file"
    Path("c.pt").mkdir()
    assert said() == "c.pt cannot be read: it is a folder"
    Path("c.pt").rmdir()
    for data in (b"", b"no checkpoint", b"PK\x03\x04 cut off"):
        Path("c.pt").write_bytes(data)
        assert said() == f"c.pt is no checkpoint of torch, or a damaged one; {advice}"
    torch.save([1, 2], "c.pt")
    assert said() == f"c.pt holds a list that is no state_dict; {advice}"
    torch.save({1: torch.zeros(1)}, "c.pt")
    assert said() == f"c.pt holds a dict that is no state_dict; {advice}"
    torch.save(nn.Linear(1, 1), "c.pt")
    objects = "c.pt holds Python objects, which are not loaded; save it again by "
    assert said() == objects + advice.removeprefix("write one by ")
    Path("c.pt").write_bytes(pickle.dumps(_Runs(), protocol=2))
    assert said().startswith("c.pt ")
    assert not Path("was_run").exists()


def test_a_checkpoint_that_does_not_fit(here: Path) -> None:
    def said(state: dict[str, object]) -> str:
        torch.save(state, "c.pt")
        return _bad("export", "net.py:Net", "--shape", "4", "-o", "n.onnx", "--weights", "c.pt")

    state = _state(here)
    more: dict[str, object] = {**state, "x": torch.zeros(1), "y": torch.zeros(1)}
    assert said(more) == "c.pt does not fit net.py:Net: unexpected x, y"
    fewer: dict[str, object] = {k: v for k, v in state.items() if k != "dense.weight"}
    assert said(fewer) == "c.pt does not fit net.py:Net: missing dense.weight"
    many = {f"k{i}": torch.zeros(1) for i in range(9)}
    assert said({**state, **many}) == (
        "c.pt does not fit net.py:Net: unexpected k0, k1, k2 and 6 more"
    )
    larger = {**state, "dense.weight": torch.zeros(3, 5, 1, 1, 1)}
    assert said(larger) == (
        "c.pt does not fit net.py:Net: dense.weight is (3, 5, 1, 1, 1) and must be (3, 4, 1, 1, 1)"
    )
    assert said({**state, "dense.weight": 3}).startswith("c.pt does not fit net.py:Net: ")


# -- verify ----------------------------------------------------------------------------------


@pytest.mark.matrix
def test_verify_equal(here: Path) -> None:
    text = _good("verify", "net.py:Net", "net.onnx")
    assert "✓ dense " in text
    assert "✓ neuron " in text
    assert "✗" not in text
    assert text.splitlines()[-1].startswith("equal on inputs of shape (8, 4, 50); (1, 4, 50)")


def test_verify_prints_the_report(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = so.verify

    def spy(*args: object, **kwargs: object) -> so.Report:
        calls.append((args, kwargs, original(*args, **kwargs)))
        return calls[-1][2]

    monkeypatch.setattr(so, "verify", spy)
    args = ("--samples", "2", "--steps", "9", "--rate", "0.5", "--seed", "3")
    tolerances = ("--rtol", "0.25", "--atol", "0.5", "--provider", "CPU")
    text = _good("verify", "net.py:Net", "net.onnx", *args, *tolerances)
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
    outcome = _invoke("verify", "net.py:other", "net.onnx")
    assert outcome.exit_code == 1
    assert outcome.stderr == ""
    assert "✗ dense " in outcome.stdout
    assert "first divergence: dense: sample 0" in outcome.stdout
    assert outcome.stdout.splitlines()[-1].startswith("NOT equal")


def test_verify_with_the_checkpoint_is_equal_again(here: Path) -> None:
    torch.save(_state(here), "net.pt")
    _good("verify", "net.py:other", "net.onnx", "--weights", "net.pt")


def test_verify_takes_inputs_from_files(here: Path) -> None:
    text = _good("verify", "net.py:Net", "net.onnx", "--input", "x.npy")
    assert "equal on inputs of shape (3, 4, 12)" in text
    np.save("xi.npy", _spikes(2, 4, 8).astype(">i2"))
    np.save("y.npy", _spikes(2, 2, 5, 6, 8).astype(np.float64))
    text = _good("verify", "net.py:Pair", "pair.onnx", "-i", "xi.npy", "-i", "y.npy")
    assert "equal on inputs of shape (2, 4, 8) and (2, 2, 5, 6, 8)" in text
    np.savez("both.npz", y=_spikes(2, 2, 5, 6, 8), x=_spikes(2, 4, 8))
    again = _good("verify", "net.py:Pair", "pair.onnx", "-i", "both.npz")
    assert "equal on inputs of shape (2, 4, 8) and (2, 2, 5, 6, 8)" in again


def test_verify_generates_what_a_static_model_takes(here: Path) -> None:
    args = ("--static", "--steps", "5")
    _good("export", "net.py:Net", "--shape", "4", "-o", "static.onnx", *args)
    text = _good("verify", "net.py:Net", "static.onnx", "--samples", "4", "--steps", "9")
    assert text.splitlines()[-1] == "equal on inputs of shape (1, 4, 5)"


def test_verify_asks_for_inputs_that_it_cannot_make_up(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "open (float[N, C, T] spikes) => (float[N, C, T] output)"
        "{ output = Add(spikes, spikes) }"
    )
    onnx.save(model, "open.onnx")
    assert _bad("verify", "net.py:Open", "open.onnx") == (
        "input spikes: axis 1 of (N, C, T) is open, so spikes cannot be generated; give them by "
        "--input"
    )
    _good("verify", "net.py:Open", "open.onnx", "--input", "x.npy")


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
    "raises": (("net.py:Broken", "net.onnx"), "net.py:Broken raised RuntimeError: mat1 and mat2"),
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
    assert expected in _bad("verify", *args)


def test_verify_refuses_inputs_with_nan(here: Path) -> None:
    np.save("nan.npy", np.full((3, 4, 12), np.nan, np.float32))
    said = _bad("verify", "net.py:Net", "net.onnx", "-i", "nan.npy")
    assert said == "verify: input 0 has NaN or infinite values"


def test_verify_writes_a_page_and_prints_json(here: Path) -> None:
    text = _good("verify", "net.py:Net", "net.onnx", "--report", "report.html")
    assert text.splitlines()[-1].split() == ["wrote", "report.html"]
    page = Path("report.html").read_text(encoding="utf-8")
    assert "✓ equal" in page
    digest = hashlib.sha256(Path("net.onnx").read_bytes()).hexdigest()
    assert digest in page
    document = json.loads(_good("verify", "net.py:Net", "net.onnx", "--json"))
    assert document["ok"] is True
    assert document["facts"]["model"] == "net.onnx"
    assert document["facts"]["SHA-256"] == digest


def test_verify_writes_the_page_of_a_network_that_differs_too(here: Path) -> None:
    outcome = _invoke("verify", "net.py:other", "net.onnx", "--report", "report.html", "--json")
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
    assert _bad("verify", "net.py:Net", "net.onnx", *options).startswith(sentence)


# -- run -------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_run_writes_what_the_session_gives(here: Path) -> None:
    expected = so.Session("net.onnx").run(np.load("x.npy"))
    assert 0 < expected.mean() < 1
    text = _good("run", "net.onnx", "--input", "x.npy", "-o", "out.npz")
    with np.load("out.npz") as archive:
        assert archive.files == ["output"]
        assert np.array_equal(archive["output"], expected)
    line = next(line for line in text.splitlines() if line.startswith("output  (3"))
    assert line.split("  ") == ["output", "(3, 3, 12)", "float32", f"{expected.mean():.6g}"]
    assert text.endswith("wrote  out.npz\n")
    first = Path("out.npz").read_bytes()
    with zipfile.ZipFile("out.npz") as archive:
        assert [entry.compress_type for entry in archive.filelist] == [zipfile.ZIP_DEFLATED]
    _good("run", "net.onnx", "--input", "x.npy", "-o", "out.npy", "--provider", "cpu")
    assert np.array_equal(np.load("out.npy"), expected)
    _good("run", "net.onnx", "--input", "x.npy", "-o", "out.npz")
    assert Path("out.npz").read_bytes() == first
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_run_with_several_inputs_and_outputs(here: Path) -> None:
    x, y = _spikes(2, 4, 8), _spikes(2, 2, 5, 6, 8, seed=1)
    expected = so.Session("pair.onnx").run(x, y)
    np.savez("by_name.npz", y=y, x=x)
    np.savez("in_order.npz", first=x, second=y)
    np.save("a.npy", x)
    np.save("b.npy", y)
    for files in (["by_name.npz"], ["in_order.npz"], ["a.npy", "b.npy"]):
        args = [part for file in files for part in ("-i", file)]
        _good("run", "pair.onnx", *args, "-o", "out.npz")
        with np.load("out.npz") as archive:
            assert archive.files == ["output_0", "output_1", "output_2"]
            for name, array in zip(archive.files, expected, strict=True):
                assert np.array_equal(archive[name], array)
        os.unlink("out.npz")
    assert _bad("run", "pair.onnx", "-i", "by_name.npz", "-o", "out.npy") == (
        "out.npy can hold one array and the model has 3 outputs (output_0, output_1, output_2); "
        "give a name that ends in .npz"
    )
    assert _bad("run", "pair.onnx", "-i", "a.npy", "-o", "out.npz") == (
        "the model takes x, y and --input gives 1 arrays; give one for each, in this order"
    )


def test_an_output_of_any_name_is_a_key(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "twice (float[N, C, T] spikes) => (float[N, C, T] file)"
        "{ file = Add(spikes, spikes) }"
    )
    onnx.save(model, "twice.onnx")  # numpy.savez has a parameter of the name "file"
    _good("run", "twice.onnx", "-i", "x.npy", "-o", "out.npz")
    with np.load("out.npz") as archive:
        assert np.array_equal(archive["file"], 2 * np.load("x.npy"))


def test_bad_arrays(here: Path) -> None:
    def said(file: str = "in.npy") -> str:
        return _bad("run", "net.onnx", "-i", file, "-o", "out.npz")

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
    Path("in.npy").write_bytes(pickle.dumps(_Runs()))
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
    assert _bad("run", *args).startswith(expected)


# -- inspect ---------------------------------------------------------------------------------


@pytest.mark.matrix
def test_inspect(here: Path) -> None:
    text = _good("inspect", "net.onnx")
    lines = [line.split() for line in text.splitlines()]
    model = onnx.load("net.onnx")
    assert ["size", *size_text(os.path.getsize("net.onnx")).split()] in lines
    torch_version = torch.__version__
    assert f"written by      synapse-onnx {so.__version__}, torch {torch_version}\n" in text
    assert ["opset", "21", "(IR", "version", str(model.ir_version) + ")"] in lines
    assert ["nodes", str(len(model.graph.node)), f"({len(model.functions)}", "functions)"] in lines
    assert ["regime", "slayer"] in lines
    assert ["input", "spikes", "float", "(N,", "4,", "T)"] in lines
    assert ["output", "output", "float", "(N,", "3,", "T)", "yes"] in lines
    assert ["dense", "Dense", "3x4x1x1x1", "8", "1/32"] in lines
    assert ["neuron", "cuba", "slayer", "1"] in lines
    said = [" ".join(line) for line in lines]
    assert "dense floats; faster under 32 outputs" in said
    assert "neuron 32 bits if states fit, else 64" in said
    assert max(map(len, text.splitlines())) <= 80


def test_inspect_json(here: Path) -> None:
    found = json.loads(_good("inspect", "pair.onnx", "--json"))
    model = onnx.load("pair.onnx")
    assert found["bytes"] == os.path.getsize("pair.onnx")
    assert (found["opset"], found["regime"], found["version"]) == (21, "float", so.__version__)
    assert (found["nodes"], found["functions"]) == (len(model.graph.node), len(model.functions))
    assert found["inputs"] == [
        {"name": "x", "type": "float", "shape": ["N", 4, "T"]},
        {"name": "y", "type": "float", "shape": ["N", 2, 5, 6, "T"]},
    ]
    assert [value["name"] for value in found["outputs"]] == ["output_0", "output_1", "output_2"]
    assert found["exact"] == ["output_0", "output_1"]
    assert [layer["kind"] for layer in found["layers"]] == ["Dense", "Conv"]
    assert found["layers"][0]["weight_shape"] == [3, 4, 1, 1, 1]
    assert found["notes"][0].startswith("conv: float weights")


def test_inspect_a_model_of_somebody_elses(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]>'
        "twice (float[N, 2] x) => (float[N, 2] y) { y = Add(x, x) }"
    )
    onnx.save(model, "twice.onnx")
    text = _good("inspect", "twice.onnx")
    assert "opset       19 (IR version 9)" in text
    assert "note: the model was not written by synapse-onnx" in text
    found = json.loads(_good("inspect", "twice.onnx", "--json"))
    assert (found["opset"], found["nodes"], found["regime"]) == (19, 1, None)
    assert found["layers"] == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nope.onnx", "nope.onnx cannot be read: no such file"),
        (".", ". cannot be read: it is a folder"),
        ("x.npy", "x.npy is no ONNX model"),
        ("empty.onnx", "empty.onnx is no ONNX model, or an empty one"),
    ],
)
def test_what_inspect_refuses(here: Path, model: str, expected: str) -> None:
    Path("empty.onnx").touch()
    assert _bad("inspect", model) == expected


# -- the group -------------------------------------------------------------------------------


def test_a_wrong_call_says_where_the_help_is(here: Path) -> None:
    assert _bad("nonsense") == "no such command 'nonsense'; see 'synapse-onnx --help'"
    assert _bad("inspect") == "missing argument 'MODEL.onnx'; see 'synapse-onnx inspect --help'"
    said = _bad("export", "net.py:Net", "--shape", "4", "-o", "new.onnx", "--opset", "20")
    assert said.startswith("invalid value for '--opset': 20 is not in the range 21<=x<=24; see")


def test_a_bug_shows_its_traceback_and_is_no_difference(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(*_: object, **__: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(so, "verify", verify)
    outcome = _invoke("verify", "net.py:Net", "net.onnx")
    assert outcome.exit_code == 3
    assert "Traceback" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("error: unexpected KeyError: 'ours'; this is")


def test_interruption_and_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: BaseException = KeyboardInterrupt()

    def verify(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(so, "verify", verify)
    outcome = _invoke("verify", "net.py:Net", "net.onnx")
    assert (outcome.exit_code, outcome.stderr.strip()) == (130, "error: interrupted")
    raised = MemoryError()
    assert _bad("verify", "net.py:Net", "net.onnx").startswith("there is not enough memory; ")


@pytest.mark.parametrize(
    "args",
    [("run", "net.onnx", "-i", "x.npy", "-o", "out.npz"), ("inspect", "net.onnx"), ("--help",)],
    ids=["run", "inspect", "help"],
)
@pytest.mark.matrix
def test_no_torch_is_imported(here: Path, args: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        f"try:\n    main({list(args)!r})\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'onnx' in sys.modules or sys.argv[1] != 'inspect'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, args[0]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


@pytest.mark.matrix
def test_the_installed_command(here: Path) -> None:
    """Exit codes and streams of a process, and ✓ where the encoding has none."""
    call = [sys.executable, "-c", "from synapse_onnx.cli import main; main()"]

    def ran(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        return subprocess.run(
            [*call, *args], capture_output=True, text=True, check=False, env=environment
        )

    equal = ran("verify", "net.py:Net", "net.onnx")
    assert (equal.returncode, equal.stderr) == (0, "")
    assert "? dense " in equal.stdout
    different = ran("verify", "net.py:other", "net.onnx")
    assert (different.returncode, different.stderr) == (1, "")
    assert different.stdout.splitlines()[-1].startswith("NOT equal")
    fault = ran("inspect", "nope.onnx")
    assert (fault.returncode, fault.stdout) == (2, "")
    assert fault.stderr == "error: nope.onnx cannot be read: no such file\n"


def test_a_closed_pipe_is_no_traceback(here: Path) -> None:
    code = "from synapse_onnx.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "inspect", "net.onnx"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


# -- streams -----------------------------------------------------------------------------------


@pytest.fixture
def stream(here: Path) -> Path:
    text = _good("export", "net.py:Binned", "--shape", "4", "--streaming", "-o", "s.onnx")
    assert "states  6" in text
    return here


def test_a_streaming_model_is_shown_with_its_states(stream: Path) -> None:
    text = _good("inspect", "s.onnx")
    assert "streaming       yes, in multiples of 4 time steps" in text
    assert "first.neuron.spikes   float32  (N, 6)         0" in text
    ends = text[text.index("name") : text.index("layer ")]
    assert "neuron" not in ends  # states are no inputs of the caller's
    document = json.loads(_good("inspect", "s.onnx", "--json"))
    assert (document["streaming"], document["chunk"]) == (True, 4)
    assert [state["input"] for state in document["states"]][:3] == [
        "first.neuron.current", "first.neuron.voltage", "first.neuron.spikes",
    ]  # fmt: skip
    assert [value["name"] for value in document["inputs"]] == ["spikes"]
    assert [value["name"] for value in document["outputs"]] == ["output"]


def test_a_streaming_model_is_verified_in_chunks_too(stream: Path) -> None:
    text = _good("verify", "net.py:Binned", "s.onnx")
    assert "output (in chunks)" in text
    assert "equal on inputs of shape" in text


def test_chunks_and_saved_states_give_the_whole(stream: Path) -> None:
    x = _spikes(2, 4, 22)
    np.save("a.npy", x[..., :9])
    np.save("b.npy", x[..., 9:])
    np.save("all.npy", x)
    _good("run", "s.onnx", "--input", "all.npy", "-o", "whole.npy")
    _good("run", "s.onnx", "--input", "all.npy", "-o", "chunks.npy", "--chunk", "5")
    _good("run", "s.onnx", "--input", "a.npy", "-o", "first.npy", "--save", "state.npz")
    _good("run", "s.onnx", "--input", "b.npy", "-o", "second.npy", "--restore", "state.npz")
    whole, chunks, first, second = (
        np.load(f"{name}.npy") for name in ("whole", "chunks", "first", "second")
    )
    assert whole.shape == (2, 2, 6)
    assert np.abs(whole).sum() > 0
    np.testing.assert_array_equal(chunks, whole)
    assert first.shape == (2, 2, 2)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=-1), whole)


def test_streams_that_cannot_be(stream: Path) -> None:
    np.save("two.npy", _spikes(2, 4, 9))
    _good("run", "s.onnx", "--input", "x.npy", "-o", "y.npy", "--save", "three.npz")
    for flag in (["--chunk", "5"], ["--save", "n.npz"], ["--restore", "three.npz"]):
        sentence = _bad("run", "net.onnx", "--input", "x.npy", "-o", "z.npy", *flag)
        assert "not exported for streaming" in sentence
    run = ["run", "s.onnx", "--input", "two.npy", "-o", "z.npy"]
    assert "state first.neuron.current is int64" in _bad(*run, "--restore", "three.npz")
    assert "cannot be read" in _bad(*run, "--restore", "nothing.npz")
    assert "is not the saved state" in _bad(*run, "--restore", "net.py")
    assert "state.txt" in _bad(*run, "--save", "state.txt")
    assert "--chunk" in _bad(*run, "--chunk", "0")


def test_inspect_shows_delays_and_how_large_states_are() -> None:
    models = Path(__file__).parents[2] / "models"
    lines = _good("inspect", str(models / "lava_net_alif_mlp.onnx")).splitlines()
    (line,) = [line for line in lines if line.startswith("layers.dense_0.delay ")]
    assert line.split()[-1] == "0..4"
    path = str(models / "drift_stream.onnx")
    states = json.loads(_good("inspect", path, "--json"))["states"]
    kept = [s for s in states if s["input"].startswith("first.neuron.")]
    size = sum(np.prod(s["shape"][1:]) * np.dtype(s["dtype"]).itemsize for s in kept)
    assert size > 0
    (line,) = [line for line in _good("inspect", path).splitlines() if "first.neuron  " in line]
    assert line.split()[-2:] == [f"{size:,}", "B"]
