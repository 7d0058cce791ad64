"""What is published: the source archive and the wheel, their contents, and both installed and used.

The wheel is built from the source archive, where there is no compiler; with ``--kernels`` once more
where there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import synapse_onnx as so

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "synapse_onnx").rglob("*.py")}
MODULES |= {"synapse_onnx/py.typed"}
MODULES |= {
    p.relative_to(ROOT).as_posix() for p in (ROOT / "synapse_onnx/deploy/play/site").iterdir()
}
#: what a build that reaches the npm registry adds
WEB = {
    f"synapse_onnx/_web/{name}"
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm", "package.json")
}

NETWORK = """
import torch
import synapse_onnx as so

torch.manual_seed(0)
neuron = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.05}
net = so.block.cuba.Dense(neuron, 6, 4, weight_scale=3, pre_hook_fx=so.quantize.q8).eval()
"""

#: what a person does, in a process that knows the install alone
SMOKE = """
import sys, numpy as np, torch
import synapse_onnx as so
from net import net

assert so.__file__.startswith(sys.prefix), so.__file__
x = (torch.rand(2, 6, 20) < 0.5).float()
model = so.export(net, x, "net.onnx", streaming=True)
assert so.verify(net, model, x).ok
session = so.Session("net.onnx")
y = session.run(x.numpy())
assert y.sum() > 0
stream = session.stream(batch=2)
steps = np.stack([stream.step(x[..., t].numpy()) for t in range(20)], axis=-1)
np.testing.assert_array_equal(steps, y)
np.save("x.npy", x.numpy())
np.save("y.npy", y)
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "SYNAPSE_ONNX", "COV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=environment | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def build(what: str, source: Path, folder: Path, **variables: str) -> Path:
    """Build a wheel or a source archive with what is installed here: nothing is downloaded."""
    for module in ("build", "scikit_build_core"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    run(
        sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", f"--{what}",
        "--outdir", folder, source, cwd=folder, **variables,
    )  # fmt: skip
    (found,) = folder.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("there is no checkout to build from")
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def source(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive unpacked, away from the checkout."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module", params=["portable", "kernels"])
def wheel(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bool]:
    """The wheel, and whether it is to have kernels."""
    folder = tmp_path_factory.mktemp("wheel")
    if request.param == "portable":
        return build("wheel", source, folder, CXX="/no/compiler"), False
    if not request.config.getoption("--kernels"):
        pytest.skip("kernels take minutes to be built: --kernels asks for it")
    # those for CUDA take longer than all others, and only some machines can build them
    return build("wheel", source, folder, SYNAPSE_ONNX_NATIVE="1", SYNAPSE_ONNX_CUDA="0"), True


def test_the_source_archive_holds_what_builds_the_package_and_no_more(archive: Path) -> None:
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()} - {""}
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "native").rglob("*.[ch]*")}
    assert {name for name in names if name.startswith("synapse_onnx/")} == MODULES
    assert len(kernels) > 10
    assert names >= kernels
    top = {name.partition("/")[0] for name in names}
    assert top == {
        ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CMakeLists.txt", "CONTRIBUTING.md",
        "LICENSE", "PKG-INFO", "README.md", "native", "pyproject.toml", "synapse_onnx",
    }  # fmt: skip


def test_the_wheel_holds_the_package_and_no_more(wheel: tuple[Path, bool]) -> None:
    path, kernels = wheel
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
        folder = f"synapse_onnx-{so.__version__}.dist-info"
        metadata = file.read(f"{folder}/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {"synapse_onnx", folder}
    files = {name for name in names if name.startswith("synapse_onnx/")}
    library = {name for name in files if name.startswith("synapse_onnx/_native/")}
    web = {name for name in files if name.startswith("synapse_onnx/_web/")}
    assert files - library - web == MODULES
    # a build without network leaves it out, and the command says how to get it
    assert web in ((WEB, set()) if kernels else (set(),))
    assert len(library) == kernels
    assert f"{folder}/licenses/LICENSE" in names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in metadata
    for requirement in project["dependencies"]:
        assert f"Requires-Dist: {requirement}\n" in metadata
    # what has no library serves every system
    assert path.name.endswith("py3-none-any.whl") != kernels
    assert path.name.split("-")[2:4] == ["py3", "none"]


def test_the_wheel_works_away_from_the_checkout(wheel: tuple[Path, bool], tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="pip is not installed")
    path, kernels = wheel
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    program = next(scripts.glob("python*"))
    run(
        sys.executable, "-m", "pip", "--python", program, "install", "--no-deps", "--no-index",
        path, cwd=tmp_path,
    )  # fmt: skip
    # behind the install: what it stands on, from here; links to the checkout are not followed there
    (site,) = (tmp_path / "venv").rglob("site-packages")
    lines = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    (site / "behind.pth").write_text("\n".join(lines), "utf-8")
    (tmp_path / "net.py").write_text(NETWORK, "utf-8")
    run(program, "-c", SMOKE, cwd=tmp_path)

    def call(*arguments: str) -> str:
        return run(next(scripts.glob("synapse-onnx*")), *arguments, cwd=tmp_path)

    said = call("--version").splitlines()
    assert said[0] == f"synapse-onnx {so.__version__}"
    assert said[1].startswith("native kernels: " if kernels else "no native kernels: ")
    call("export", "net.py:net", "--shape", "6", "-o", "cli.onnx")
    assert "equal" in call("verify", "net.py:net", "cli.onnx")
    assert "neuron.voltage" in call("inspect", "net.onnx")
    call("run", "net.onnx", "-i", "x.npy", "-o", "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        (y,) = file.values()
    np.testing.assert_array_equal(y, np.load(tmp_path / "y.npy"))
