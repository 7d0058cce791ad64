"""Folders in which commands are called: with networks, models, and an array of spikes."""

from pathlib import Path

import numpy as np
import pytest
from calls_of_commands import SOURCE, good, spikes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source, checkpoint and models that every test reads and none writes."""
    path = tmp_path_factory.mktemp("cli")
    (path / "net.py").write_text(SOURCE)
    (path / "broken_syntax.py").write_text("def f(:\n")
    (path / "needs_missing.py").write_text("import a_module_that_nobody_has\n")
    good("export", f"{path}/net.py:Net", "--shape", "4", "-o", f"{path}/net.onnx")
    shapes = ("--shape", "4", "--shape", "2,5,6")
    good("export", f"{path}/net.py:Pair", *shapes, "-o", f"{path}/pair.onnx")
    np.save(path / "x.npy", spikes(3, 4, 12))
    return path


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the test's own to stand in, with links to the shared files."""
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stream(here: Path) -> Path:
    """The same folder, with a streaming model."""
    text = good("export", "net.py:Binned", "--shape", "4", "--streaming", "-o", "s.onnx")
    assert "states  6" in text
    return here
