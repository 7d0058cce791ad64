"""Fixtures for every test: the same random numbers whichever tests run, and one session a model.

Models run by the functions in their files. ``--kernels`` runs them with native kernels, where there
are any; the tests of the kernels themselves always do, and random networks run both ways.

``-m gpu`` runs the parity tests on CUDA. SYNAPSE_ONNX_TEST_PROVIDER names another execution
provider for them: with CPUExecutionProvider the CPU goes the way of a GPU, by flat graphs and with
states that stay where they were computed.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import warm as warm_programs
from compiled import finding, remembering

import synapse_onnx as so
import synapse_onnx.neuron  # its ops are in the registry then
from synapse_onnx.compiler import exporter
from synapse_onnx.model.limits import max_bytes
from synapse_onnx.readers import _hdf5, _hdf5_copy
from synapse_onnx.runtime import providers as execution
from synapse_onnx.verification import construction, subject

if "PYTEST_XDIST_WORKER" in os.environ:
    # one process a core: threads of torch's own would only wait for each other, and so would those
    # of the programs that a test starts
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

#: where the package calls what ``compiled_once`` remembers -> what it calls
_COMPILERS = {
    (module, name): getattr(module, name)
    for module, name in (
        (exporter, "compile_frozen"),
        (exporter, "find_loop"),
        (construction, "compile_frozen"),
        (subject, "find_loop"),
    )
}

#: files of fixtures hold no doctests, and all have the same name, under which doctests import one
collect_ignore_glob = ["*conftest.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernels", action="store_true", help="run models with native kernels")
    parser.addoption(
        "--spread", type=int, default=3, metavar="N",
        help="with -m 'not slow': how many of a test's parameters to take (default 3)",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts a browser or a cluster as slow, and run what is slow first.

    A long test at the end would keep one worker busy while the others have nothing left to do.
    Of a test with many parameters, all but a few are marked, too: the first, the last, and some
    between them.
    """
    for item in items:
        if {"browser", "ray"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    same: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow") is None:
            same.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for each in same.values():
        for item in set(each) - set(spread(each, config.getoption("--spread"))):
            item.add_marker("slow")


def spread(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    """Return so many of some items, from the first to the last."""
    if len(items) <= count:
        return items
    return [items[round(place * (len(items) - 1) / max(count - 1, 1))] for place in range(count)]


@pytest.fixture(autouse=True)
def _bodies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave native kernels out, but where they are asked for."""
    of_kernels = request.node.path.stem.startswith(("test_native", "test_random"))
    if not (of_kernels or request.config.getoption("--kernels")):
        monkeypatch.setenv("SYNAPSE_ONNX_LIBRARY", "none")


@pytest.fixture(scope="session", autouse=True)
def _garbage() -> None:
    """Freeze what is imported by now, so that no export has torch's modules scanned again.

    What torch imports later would be scanned at every tenth collection of what is older.
    """
    gc.freeze()
    gc.set_threshold(700, 10, 100)


@pytest.fixture(scope="session", autouse=True)
def _resting_threads() -> Iterator[None]:
    """Let threads of sessions rest where workers share the cores: one that spins takes a core."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    create = onnxruntime.InferenceSession.__init__

    def create_resting(self: Any, model: Any, sess_options: Any = None, **named: Any) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        create(self, model, options, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "__init__", create_resting)
        yield


@pytest.fixture(scope="session")
def provider() -> str:
    """The execution provider of the tests that are marked gpu; skips where it cannot be used."""
    name = os.environ.get("SYNAPSE_ONNX_TEST_PROVIDER", "CUDAExecutionProvider")
    present = onnxruntime.get_available_providers()
    if name not in present:
        pytest.skip(f"this ONNX Runtime has no {name}, only {', '.join(present)}")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([node], "one", [x], [y])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[name])
    if session.get_providers()[0] != name:
        pytest.skip(f"{name} cannot be started: a device or its libraries are missing")
    return name


@pytest.fixture(autouse=True)
def _on_the_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run models on the GPU: with ``-m gpu``, and in tests that name its provider."""
    if request.config.option.markexpr != "gpu" and "provider" not in request.fixturenames:
        return
    name = request.getfixturevalue("provider")
    devices = {"CPUExecutionProvider": "cpu"} | execution._DEVICES
    monkeypatch.setattr(execution, "_DEVICES", {name: devices[name]})
    monkeypatch.setattr(execution, "DEFAULT", tuple(dict.fromkeys([name, "CPUExecutionProvider"])))


@pytest.fixture(autouse=True)
def _hdf5_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy HDF5 files in this process, without its limits: a process for each takes long.

    The tests of broken input and of the command line do as users do.
    """
    if request.node.path.stem in ("test_hostile", "test_readers"):
        return

    def copy(where: str, target: str) -> None:
        try:
            _hdf5_copy.copy_arrays(where, target, max_bytes())
        except _hdf5_copy.RefusedError as refusal:
            raise so.InputError(f"{where}: {refusal}") from refusal

    monkeypatch.setattr(_hdf5, "_copy", copy)


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """Seed from the test's own name: a test that draws more numbers moves no other test."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def spikes() -> Callable[..., torch.Tensor]:
    """``spikes(shape, seed=0, rate=0.3)``: random 0/1 spikes, float32."""

    def draw(shape: tuple[int, ...], seed: int = 0, rate: float = 0.3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(shape, generator=generator) < rate).float()

    return draw


@pytest.fixture(scope="session")
def _compiled() -> dict[str, Callable[..., Any]]:
    return {"compile_frozen": remembering(), "find_loop": finding()}


@pytest.fixture
def compiled_once(
    _compiled: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a test take what another one has compiled, as ``compiled.py`` says.

    For tests of other things than compiling, which change no code of the package.
    """
    for module, name in _COMPILERS:
        monkeypatch.setattr(module, name, _compiled[name])


@pytest.fixture
def compiled_anew(compiled_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile all the same in one test of a file that compiles once."""
    for (module, name), compiler in _COMPILERS.items():
        monkeypatch.setattr(module, name, compiler)


@pytest.fixture(scope="session")
def session_of() -> Callable[[onnx.ModelProto], so.Session]:
    """``session_of(model)``: a Session, made once for the same bytes."""
    made: dict[bytes, so.Session] = {}

    def get(model: onnx.ModelProto) -> so.Session:
        key = model.SerializeToString(deterministic=True)
        if key not in made:
            made[key] = so.Session(model)
        return made[key]

    return get


@pytest.fixture(scope="session")
def warm_folder() -> Iterator[tuple[list[str], str]]:
    """What ``warm`` starts programs with, and the folder of its commands."""
    with (
        tempfile.TemporaryDirectory(prefix="warm") as folder,
        warm_programs.started(folder) as python,
    ):
        yield python, f"{folder}/bin"


@pytest.fixture(scope="session")
def warm(warm_folder: tuple[list[str], str]) -> list[str]:
    """What stands for ``[sys.executable]`` in a command, and starts with torch imported already."""
    return warm_folder[0]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(programs[1])
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()
