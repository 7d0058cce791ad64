"""onnxruntime-web: fetched once, by the command or by the build, and checked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from play_calls import ROOT, TONES, call, refused

import synapse_onnx as so
from synapse_onnx.deploy.play import _runtime


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An archive as npm's, with the pin of this very file."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (*_runtime._MEMBERS.values(), "package/dist/other.js"):
            content = json.dumps({"version": so.play.VERSION}).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(_runtime, "_SHA512", hashlib.sha512(path.read_bytes()).hexdigest())
    monkeypatch.setattr(_runtime, "_URL", path.as_uri())
    return path


def test_the_runtime_is_fetched_once(without_runtime: Path, package: Path) -> None:
    said = refused(call(TONES, "--serve"))
    assert "SYNAPSE_ONNX_WEB_FOLDER" in said
    assert "synapse-onnx play --fetch-runtime" in said
    assert call("--fetch-runtime").exit_code == 0
    assert {path.name for path in without_runtime.iterdir()} == set(_runtime._MEMBERS)
    package.unlink()
    result = call("--fetch-runtime")
    assert result.exit_code == 0, "what is there is not fetched again"
    assert str(without_runtime) in result.output


def test_another_package_is_refused(without_runtime: Path, package: Path) -> None:
    with open(package, "ab") as file:
        file.write(b"\0")
    assert "its SHA-512 is another" in refused(call("--fetch-runtime"))
    package.unlink()
    assert "cannot be fetched" in refused(call("--fetch-runtime"))
    assert not without_runtime.exists()


def test_where_there_is_none_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNAPSE_ONNX_WEB_FOLDER", raising=False)
    monkeypatch.setattr(_runtime, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(so, "__path__", [str(tmp_path)])
    with pytest.raises(so.InputError, match="play --fetch-runtime"):
        so.play.find_runtime()
    folder = tmp_path / "_web"  # as an install brings it
    folder.mkdir()
    for name in _runtime._MEMBERS:
        (folder / name).write_text(json.dumps({"version": so.play.VERSION}))
    assert so.play.find_runtime() == folder
    (folder / "package.json").write_text('{"version": "1.0.0"}')
    with pytest.raises(so.InputError, match="play --fetch-runtime"):
        so.play.find_runtime()


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_build_brings_what_the_command_would_fetch(tmp_path: Path, package: Path) -> None:
    """The part of the build that fetches, by itself and with an archive of this test."""
    source = (ROOT / "synapse_onnx" / "deploy" / "play" / "_runtime.py").read_text()
    pin = "".join(re.findall(r'^    "([0-9a-f]{64})"$', source, re.MULTILINE))
    assert len(pin) == 128
    for folder in ("native", "synapse_onnx/deploy/play"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    pinned = source.replace(pin[:64], _runtime._SHA512[:64]).replace(
        pin[64:], _runtime._SHA512[64:]
    )
    pinned = re.sub(r"https://registry[^\"]+", package.as_uri(), pinned)
    (tmp_path / "project/synapse_onnx/deploy/play/_runtime.py").write_text(pinned)
    shutil.copy(ROOT / "native" / "web.cmake", tmp_path / "project/native/web.cmake")
    (tmp_path / "project/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(web LANGUAGES NONE)\n"
        "include(native/web.cmake)\n"
    )

    def built(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        build = tmp_path / name
        environment = {k: v for k, v in os.environ.items() if k != "SYNAPSE_ONNX_WEB"}
        done = subprocess.run(
            ["cmake", "-S", tmp_path / "project", "-B", build],
            env=environment | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            command = ["cmake", "--install", build, "--prefix", build / "installed"]
            subprocess.run(command, capture_output=True, check=True)
        return done

    def brought(name: str) -> set[str]:
        folder = tmp_path / name / "installed/synapse_onnx/_web"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    assert built("asked", SYNAPSE_ONNX_WEB="1").returncode == 0
    assert brought("asked") == set(_runtime._MEMBERS)
    assert built("left_out", SYNAPSE_ONNX_WEB="0").returncode == 0
    assert brought("left_out") == set()
    with open(package, "ab") as file:  # another file under the same name
        file.write(b"\0")
    assert built("another").returncode == 0
    assert brought("another") == set()
    done = built("demanded", SYNAPSE_ONNX_WEB="1")
    assert done.returncode != 0
    assert "SYNAPSE_ONNX_WEB" in done.stderr
