"""SOURCE and --weights: what they may name, and what is said of one at fault."""

import pickle
import sys
from pathlib import Path

import onnx
import pytest
import torch
from calls_of_commands import SOURCE, RunsWhenLoaded, bad, good, state_of_net
from torch import nn


def test_export_takes_an_importable_module_from_the_folder(here: Path) -> None:
    Path("importable_net.py").write_text(SOURCE)
    path = list(sys.path)
    try:
        good("export", "importable_net:Net", "--shape", "4", "-o", "new.onnx")
    finally:
        sys.modules.pop("importable_net", None)
    assert Path("new.onnx").read_bytes() == Path("net.onnx").read_bytes()
    assert sys.path == path


def test_export_of_a_file_finds_what_lies_beside_it(here: Path) -> None:
    Path("sub").mkdir()
    Path("sub/beside_it.py").write_text("from torch import nn\nNET = nn.Identity()\n")
    Path("sub/uses.py").write_text("from beside_it import NET\n")
    try:
        good("export", "sub/uses.py:NET", "--shape", "2", "-o", "new.onnx")
    finally:
        sys.modules.pop("beside_it", None)
    assert Path("new.onnx").exists()


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "under state_dict"])
def test_export_loads_a_checkpoint(here: Path, wrapped: bool) -> None:
    good("export", "net.py:other", "--shape", "4", "-o", "other.onnx")
    weight = next(
        t for t in onnx.load("other.onnx").graph.initializer if t.name.endswith(".weight")
    )
    state = state_of_net(here)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, "net.pt")
    args = ("--shape", "4", "-o", "new.onnx", "--weights", "net.pt")
    text = good("export", "net.py:other", *args)
    assert "net.py:other new.onnx --weights net.pt" in text
    assert Path("new.onnx").read_bytes() == Path("net.onnx").read_bytes()
    assert weight.SerializeToString() not in Path("new.onnx").read_bytes()


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
    said = bad("export", source, "--shape", "4", "-o", "new.onnx")
    assert expected.format(boom=line) in said
    assert said.startswith(("SOURCE ", source.rpartition(":")[0]))


def test_bad_checkpoints(here: Path) -> None:
    def said() -> str:
        return bad("export", "net.py:Net", "--shape", "4", "-o", "n.onnx", "--weights", "c.pt")

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
    Path("c.pt").write_bytes(pickle.dumps(RunsWhenLoaded(), protocol=2))
    assert said().startswith("c.pt ")
    assert not Path("was_run").exists()


def test_a_checkpoint_that_does_not_fit(here: Path) -> None:
    def said(state: dict[str, object]) -> str:
        torch.save(state, "c.pt")
        return bad("export", "net.py:Net", "--shape", "4", "-o", "n.onnx", "--weights", "c.pt")

    state = state_of_net(here)
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
