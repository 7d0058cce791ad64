"""The command line as a whole: help, wrong calls, exit codes, and what is imported."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from calls_of_commands import bad, good, invoke
from click.testing import CliRunner

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.runtime import native

COMMANDS = tuple(main.list_commands(click.Context(main)))


# -- help ------------------------------------------------------------------------------------


def test_no_arguments_show_the_help() -> None:
    text = good()
    assert text == good("--help") == good("-h")
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "Exit codes: 0 done and equal, 1 the numbers differ, 2" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_explains_every_option(command: str) -> None:
    text = good(command, "-h")
    assert text == good(command, "--help")
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
    text = good("--version")
    assert text.splitlines()[0] == f"synapse-onnx {so.__version__}"
    assert text.splitlines()[1:] == [native.status(), native.status(native.CUDA)]


# -- the group -------------------------------------------------------------------------------


def test_a_wrong_call_says_where_the_help_is(here: Path) -> None:
    assert bad("nonsense") == "no such command 'nonsense'; see 'synapse-onnx --help'"
    assert bad("inspect") == "missing argument 'MODEL.onnx'; see 'synapse-onnx inspect --help'"
    said = bad("export", "net.py:Net", "--shape", "4", "-o", "new.onnx", "--opset", "20")
    assert said.startswith("invalid value for '--opset': 20 is not in the range 21<=x<=24; see")


def test_a_bug_shows_its_traceback_and_is_no_difference(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(*_: object, **__: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(so, "verify", verify)
    outcome = invoke("verify", "net.py:Net", "net.onnx")
    assert outcome.exit_code == 3
    assert "Traceback" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("error: unexpected KeyError: 'ours'; this is")


def test_interruption_and_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: BaseException = KeyboardInterrupt()

    def verify(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(so, "verify", verify)
    outcome = invoke("verify", "net.py:Net", "net.onnx")
    assert (outcome.exit_code, outcome.stderr.strip()) == (130, "error: interrupted")
    raised = MemoryError()
    assert bad("verify", "net.py:Net", "net.onnx").startswith("there is not enough memory; ")


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


@pytest.mark.slow
@pytest.mark.matrix
def test_the_installed_command(here: Path, warm: list[str]) -> None:
    """Exit codes and streams of a process, and ✓ where the encoding has none."""
    code = "from synapse_onnx.cli import main; main()"

    def ran(*args: str, python: list[str] = warm) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        return subprocess.run(
            [*python, "-c", code, *args],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip

    equal = ran("verify", "net.py:Net", "net.onnx", python=[sys.executable])
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
