"""The library of native kernels: found, asked, taken or refused; and built, or one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.cli import main
from synapse_onnx.runtime import native

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "digits_q8.onnx"

#: a library that says of itself what is asked, and gives ONNX Runtime no kernel
SOURCE = """
#ifdef REGISTERS
void *RegisterCustomOps(void *options, const void *base) { return 0; }
#endif
#ifdef VERSION
const char *synapse_onnx_version(void) { return VERSION; }
const char *synapse_onnx_kernels(void) { return "Cuba,Lif"; }
const char *synapse_onnx_together(void) { return ""; }
const char *synapse_onnx_instructions(void) { return "abacus"; }
#endif
int there;
"""

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Compile a library and name it by SYNAPSE_ONNX_LIBRARY."""
    configured = (sysconfig.get_config_var("CC") or "").split()
    compiler = next(filter(None, map(shutil.which, [*configured[:1], "cc", "gcc", "clang"])), None)
    if compiler is None:
        pytest.skip("there is no C compiler")

    def made(*defines: str) -> Path:
        path = tmp_path / "kernels.so"
        (tmp_path / "kernels.c").write_text(SOURCE)
        flags = ["-shared", "-fPIC", "-w", *(f"-D{define}" for define in defines)]
        subprocess.run([compiler, *flags, "-o", str(path), str(tmp_path / "kernels.c")], check=True)
        monkeypatch.setenv("SYNAPSE_ONNX_LIBRARY", str(path))
        return path

    return made


FITS = ("REGISTERS", f'VERSION="{so.__version__}"')


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the install one without a library."""
    monkeypatch.delenv("SYNAPSE_ONNX_LIBRARY", raising=False)
    monkeypatch.setattr(native, "_NAME", "no_such_library")


def call(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="synapse-onnx")


def spikes() -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(0)
    return (draw.random((2, 1, 8, 8, 9)) < 0.5).astype(np.float32)


# -- what is there -------------------------------------------------------------------------------


def test_what_the_install_brought_is_whole() -> None:
    if native.library() is None:
        pytest.skip(native.status())
    assert native.problem() is None
    assert native.instructions()
    assert set(native.kernels()) <= set(ops.all_ops())
    assert "Cuba" in native.kernels()


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch)
    assert native.library() is None
    assert native.kernels() == ()
    assert native.status().startswith(
        "no native kernels: synapse-onnx was installed without them; install a C++ compiler"
    )
    session = so.Session(MODEL)  # pytest makes a warning an error
    assert (session.native, session.kernels) == (False, ())
    with pytest.raises(so.SynapseError, match=r"^native=True: there are no native kernels: syn"):
        so.Session(MODEL, native=True)
    both = f"{native.status()}\n{native.status(native.CUDA)}\n"
    assert call("--version").stdout == f"synapse-onnx {so.__version__}\n{both}"
    text = call("inspect", str(MODEL)).stdout
    assert "\nnative kernels  none here; synapse-onnx --version says why\n" in text
    assert json.loads(call("inspect", str(MODEL), "--json").stdout)["native"] == []


def test_the_variable_names_a_library(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(*FITS)
    assert native.library() == path
    assert native.kernels() == ("Cuba", "Lif")
    assert native.status() == f"native kernels: 2 (abacus), {path}"
    assert native.used_by(onnx.load(MODEL)) == ("Cuba",)
    assert "\nnative kernels  Cuba (abacus)\n" in call("inspect", str(MODEL)).stdout
    assert json.loads(call("inspect", str(MODEL), "--json").stdout)["native"] == ["Cuba"]
    # relative to the working directory, not a name that the linker searches
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("SYNAPSE_ONNX_LIBRARY", path.name)
    assert native.library() == path


# -- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [MODEL, onnx.load(MODEL)], ids=["path", "model"])
def test_a_session_registers_what_fits(make: Make, given: Any) -> None:
    make(*FITS)
    without = so.Session(given, native=False)
    assert (without.native, without.kernels) == (False, ())
    for choice in (None, True):
        session = so.Session(given, native=choice)
        assert (session.native, session.kernels) == (True, ("Cuba",))
        assert np.array_equal(session.run(spikes()), without.run(spikes()))


def test_kernels_stay_off_other_providers(make: Make) -> None:
    make(*FITS)
    others = set(onnxruntime.get_available_providers()) - {"CPUExecutionProvider"}
    if not others:
        pytest.skip("this ONNX Runtime has the CPU alone")
    providers = [min(others), "CPUExecutionProvider"]
    with pytest.raises(so.InputError, match=r"^native=True: the native kernels run on the"):
        so.Session(MODEL, providers, native=True)


@pytest.mark.parametrize(
    ("defines", "reason"),
    [
        (("REGISTERS", 'VERSION="0.0.1"'), "is of version 0.0.1 and synapse-onnx of "),
        (("REGISTERS",), "is no library of synapse-onnx; install"),
    ],
    ids=["version", "foreign"],
)
def test_a_library_that_does_not_fit(make: Make, defines: tuple[str, ...], reason: str) -> None:
    path = make(*defines)
    assert native.kernels() == ()
    assert native.status().startswith(f"no native kernels: {path} {reason}")
    with pytest.warns(UserWarning, match=f"^no native kernels: .* {reason}") as seen:
        session = so.Session(MODEL)
    assert [warning.filename for warning in seen] == [__file__]
    assert (session.native, session.kernels) == (False, ())
    assert session.run(spikes()).shape == (2, 10, 9)
    with pytest.raises(so.SynapseError, match=f"^native=True: there are no .* {reason}"):
        so.Session(MODEL, native=True)
    so.Session(MODEL, native=False)  # without a word


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "is no file"), ("text", "cannot be loaded: ")]
)
def test_what_is_no_library(
    content: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kernels.so"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SYNAPSE_ONNX_LIBRARY", str(path))
    assert reason in native.status()
    assert native.status().count("\n") == 0
    with pytest.warns(UserWarning, match=reason):
        assert not so.Session(MODEL).native


def test_a_library_that_onnx_runtime_refuses(make: Make) -> None:
    make(*FITS[1:])  # without RegisterCustomOps
    with pytest.warns(UserWarning, match="^no native kernels: with .*kernels.so, ONNX Runtime ref"):
        session = so.Session(MODEL)
    assert not session.native
    assert session.run(spikes()).shape == (2, 10, 9)
    with pytest.raises(so.ModelError, match="is refused by ONNX Runtime with native kernels: "):
        so.Session(MODEL, native=True)


# -- verify and run ------------------------------------------------------------------------------


def test_verify_hands_native_on(make: Make) -> None:
    make(*FITS[1:])  # which a session refuses as soon as it is asked to take it
    import torch

    network = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)
    x = torch.ones(1, 3, 8)
    model = so.export(network, x)
    assert so.verify(network, model, x, native=False).ok
    with pytest.raises(so.ModelError, match="with native kernels"):
        so.verify(network, model, x, native=True)


@pytest.mark.parametrize(
    ("choice", "ran", "wrong", "code"),
    [
        ("auto", [None], (), 0),
        ("yes", [True], (), 0),
        ("no", [False], (), 0),
        ("both", [True, False], (), 0),
        ("both", [True, False], (True,), 1),
        ("both", [True, False], (False,), 1),
    ],
)
def test_verify_with_and_without(
    choice: str,
    ran: list[bool | None],
    wrong: tuple[bool, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Report:
        def __init__(self, ok: bool) -> None:
            self.ok = ok

        def __str__(self) -> str:
            return f"head\n{'equal' if self.ok else 'NOT equal'}"

    calls = []

    def verify(*args: object, native: bool | None, **kwargs: object) -> Report:
        calls.append(native)
        return Report(native not in wrong)

    (tmp_path / "net.py").write_text(
        "import synapse_onnx as so\nnet = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)\n"
    )
    source, model = f"{tmp_path}/net.py:net", f"{tmp_path}/net.onnx"
    assert call("export", source, "--shape", "3", "-o", model).exit_code == 0
    monkeypatch.setattr(so, "verify", verify)
    result = call("verify", source, model, "--native", choice)
    assert (calls, result.exit_code) == (ran, code), result.output
    assert ("with native kernels" in result.stdout) == (choice == "both")
    assert result.stdout.count("NOT equal") == len(wrong)


def test_run_takes_native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent(monkeypatch)
    np.save(tmp_path / "x.npy", spikes())
    args = ("run", str(MODEL), "-i", f"{tmp_path}/x.npy", "-o", f"{tmp_path}/y.npz", "--native")
    assert call(*args, "no").exit_code == 0
    result = call(*args, "yes")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: native=True: there are no native kernels: ")


# -- the build -----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CXX": "/no/compiler"}, "No C++ compiler was found, so no native kernels are built;"),
        (
            {"ONNXRUNTIME_INCLUDE_DIR": "/no/headers"},
            "ONNXRUNTIME_INCLUDE_DIR is /no/headers, where there is no onnxruntime_cxx_api.h;",
        ),
    ],
    ids=["compiler", "headers"],
)
def test_what_the_build_lacks_is_one_sentence(
    variables: dict[str, str], reason: str, tmp_path: Path
) -> None:
    if "CXX" not in variables and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler")
    result = subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(tmp_path)],
        capture_output=True, text=True, check=False, env=os.environ | variables,
    )  # fmt: skip
    assert result.returncode != 0
    assert reason in " ".join(result.stderr.split())
