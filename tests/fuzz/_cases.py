"""Cases: a call of the command line and the files that it finds, from a seed and a number."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import nir  # noqa: F401  imported once, before the fork
import numpy as np
import onnx
import onnxruntime  # noqa: F401
import torch

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.cli._inputs import inputs_of

from ._damage import absurd_array, archive, damaged, damaged_hdf5, damaged_model, damaged_zip, npy

ROOT = Path(__file__).parents[2]

SOURCE = """
import synapse_onnx as so
from torch import nn

def build():
    neuron = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
    return nn.Sequential(so.block.cuba.Dense(neuron, 6, 5, pre_hook_fx=so.quantize.q8),
                         so.block.cuba.Dense(neuron, 5, 3))
"""


@dataclass
class Case:
    """One call: its arguments, the files that it finds, and the one that it may write."""

    kind: str
    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    target: str | None = None


class Cases:
    """Makes the cases of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.models = {path.name: path.read_bytes() for path in sorted(ROOT.glob("models/*.onnx"))}
        self.inputs = {name: self._input(data) for name, data in self.models.items()}
        folder = ROOT / "tests" / "reference"
        self.nets = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.net"))}
        self.nir = (ROOT / "models" / "snntorch_nir.nir").read_bytes()
        self.source, self.checkpoint, self.exported = self._network()
        self.state = self._state()
        self.kinds: dict[str, tuple[float, Callable[[np.random.Generator], Case]]] = {
            "onnx": (0.42, self._onnx),
            "net": (0.12, self._net),
            "nir": (0.06, self._nir),
            "npy": (0.06, self._npy),
            "npz": (0.08, self._npz),
            "csv": (0.06, self._csv),
            "state": (0.03, self._saved),
            "pt": (0.06, self._pt),
            "arguments": (0.11, self._arguments),
        }

    def make(self, number: int) -> Case:
        """Make a case from its number."""
        draw = np.random.default_rng([self.seed, number])
        names, shares = list(self.kinds), [share for share, _ in self.kinds.values()]
        return self.kinds[str(draw.choice(names, p=shares))][1](draw)

    @staticmethod
    def _input(data: bytes) -> np.ndarray:
        (shape,) = (shape for _, shape in inputs_of(onnx.ModelProto.FromString(data)).values())
        sizes = [size if isinstance(size, int) else 4 if i else 1 for i, size in enumerate(shape)]
        return (np.random.default_rng(0).random(sizes) < 0.3).astype(np.float32)

    @staticmethod
    def _network() -> tuple[bytes, bytes, bytes]:
        namespace: dict[str, Any] = {}
        exec(SOURCE, namespace)
        torch.manual_seed(0)
        module = namespace["build"]()
        saved = io.BytesIO()
        torch.save(module.state_dict(), saved)
        model = so.export(module, torch.zeros(1, 6, 4))
        return SOURCE.encode(), saved.getvalue(), model.SerializeToString()

    def _state(self) -> bytes:
        stream = so.Session(onnx.ModelProto.FromString(self.models["drift_stream.onnx"])).stream()
        with tempfile.TemporaryDirectory() as folder:
            stream.save(Path(folder, "state.npz"))
            return Path(folder, "state.npz").read_bytes()

    def _one(self, draw: np.random.Generator) -> tuple[bytes, np.ndarray]:
        name = str(draw.choice(sorted(self.models)))
        return self.models[name], self.inputs[name]

    def _onnx(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        change = damaged_model if draw.random() < 0.7 else damaged
        files = {"m.onnx": change(draw, data), "i.npy": npy(spikes)}
        match int(draw.integers(8)):
            case 0:
                return Case("onnx", ["inspect", "m.onnx"], files)
            case 1:
                return Case(
                    "onnx", ["inspect", "m.onnx", "-i", "i.npy", "--neurobench", "--json"], files
                )
            case 2:
                call = ["bench", "m.onnx", "--seconds", "0", "--steps", "4"]
                return Case("onnx", call, files)
            case 3:
                data = change(draw, self.exported)
                files = {"m.onnx": data, "net.py": self.source, "w.pt": self.checkpoint}
                call = ["verify", "net.py:build", "m.onnx", "--weights", "w.pt", "--steps", "6"]
                return Case("onnx", [*call, "--report", "r.html"], files, "r.html")
            case _:
                call = ["run", "m.onnx", "-i", "i.npy", "-o", "o.npz"]
                return Case("onnx", call, files, "o.npz")

    def _net(self, draw: np.random.Generator) -> Case:
        name = str(draw.choice(sorted(self.nets)))
        change = damaged_hdf5 if draw.random() < 0.5 else damaged
        model = self.models[f"lava_{name}.onnx"]
        files = {"n.net": change(draw, self.nets[name]), "m.onnx": model}
        call = ["verify", "n.net", "m.onnx", "--steps", "5", "--samples", "1"]
        return Case("net", call, files)

    def _nir(self, draw: np.random.Generator) -> Case:
        change = damaged_hdf5 if draw.random() < 0.5 else damaged
        model = self.models["snntorch_nir_float.onnx"]
        files = {"n.nir": change(draw, self.nir), "m.onnx": model}
        call = ["verify", "n.nir", "m.onnx", "--steps", "5", "--samples", "1"]
        return Case("nir", call, files)

    def _npy(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        absurd = draw.random() < 0.3
        files = {"m.onnx": data, "i.npy": absurd_array(draw) if absurd else npy(spikes)}
        if not absurd:
            files["i.npy"] = damaged(draw, files["i.npy"])
        return Case("npy", ["run", "m.onnx", "-i", "i.npy", "-o", "o.npy"], files, "o.npy")

    def _npz(self, draw: np.random.Generator) -> Case:
        data, spikes = self._one(draw)
        events = {n: npy(np.arange(5.0) % 2) for n in "xypt"} if draw.random() < 0.3 else {}
        packed = archive({f"{n}.npy": d for n, d in events.items()} or {"a.npy": npy(spikes)})
        change = damaged_zip if draw.random() < 0.6 else damaged
        files = {"m.onnx": data, "i.npz": change(draw, packed)}
        more = ["--dt", "1"] if events else []
        call = ["run", "m.onnx", "-i", "i.npz", "-o", "o.npz", *more]
        return Case("npz", call, files, "o.npz")

    def _csv(self, draw: np.random.Generator) -> Case:
        data, _ = self._one(draw)
        rows = [",".join(str(int(n)) for n in draw.integers(0, 2, 4)) for _ in range(5)]
        odd = [
            "1e308",
            "-1",
            "nan",
            "inf",
            "1e12",
            "x",
            "",
            "1,2",
            '"1"',
            "\0",
            "é",
            "0x10",
            "9" * 400,
        ]
        if draw.random() < 0.6:
            row = rows[2].split(",")
            row[int(draw.integers(4))] = str(draw.choice(odd))
            rows[2] = ",".join(row)
        text = "\n".join(["x,y,p,t" if draw.random() < 0.8 else str(draw.choice(odd)), *rows])
        raw = text.encode()
        files = {"m.onnx": data, "i.csv": damaged(draw, raw) if draw.random() < 0.5 else raw}
        call = ["run", "m.onnx", "-i", "i.csv", "--dt", "1", "-o", "o.npz", "--decode", "rate"]
        return Case("csv", call, files, "o.npz")

    def _saved(self, draw: np.random.Generator) -> Case:
        name = "drift_stream.onnx"
        change = damaged_zip if draw.random() < 0.6 else damaged
        files = {"m.onnx": self.models[name], "i.npy": npy(self.inputs[name])}
        files["s.npz"] = change(draw, self.state)
        call = ["run", "m.onnx", "-i", "i.npy", "-o", "o.npz", "--restore", "s.npz"]
        return Case("state", call, files, "o.npz")

    def _pt(self, draw: np.random.Generator) -> Case:
        files = {"net.py": self.source, "m.onnx": self.exported}
        if draw.random() < 0.3:
            with zipfile.ZipFile(io.BytesIO(self.checkpoint)) as file:
                entries = {name: file.read(name) for name in file.namelist()}
            name = next(name for name in entries if name.endswith("data.pkl"))
            files["w.pt"] = archive(entries | {name: damaged(draw, entries[name])})
        else:
            files["w.pt"] = damaged(draw, self.checkpoint)
        call = ["verify", "net.py:build", "m.onnx", "--weights", "w.pt", "--steps", "5"]
        return Case("pt", [*call, "--samples", "1"], files)

    def _arguments(self, draw: np.random.Generator) -> Case:
        """Draw a command, and values for its options that are not always of their kind."""
        name = str(draw.choice([*main.list_commands(click.Context(main)), "nothing", "--version"]))
        command = main.get_command(click.Context(main), name)
        model, spikes = self._one(draw)
        files = {"m.onnx": model, "i.npy": npy(spikes), "net.py": self.source}
        files |= {"w.pt": self.checkpoint, "e.csv": b"x,y,p,t\n0,0,0,1\n"}
        words = ["m.onnx", "i.npy", "net.py:build", "w.pt", "e.csv", "absent.onnx", ".", "o.npz"]
        words += [
            "o.npy",
            "o.onnx",
            "o.html",
            "",
            "-",
            "--",
            "-1",
            "0",
            "1",
            "3",
            "nan",
            "inf",
            "x",
        ]
        words += [
            "1e400",
            "99999999999999999999",
            "1,8,8",
            "6",
            "a=b",
            "=",
            "cpu",
            "both",
            "no",
            "é",
        ]
        words += [
            "/dev/null",
            "/proc/self/mem",
            "\udcff",
            "a\nb",
            "net.py:",
            ":",
            "os:getcwd",
            "TNC",
        ]

        def word() -> str:
            return str(draw.choice(words[:5] if draw.random() < 0.3 else words))

        arguments = [name]
        for parameter in command.params if command else ():
            if parameter.name in ("serve", "fetch_runtime"):
                continue  # serves until it is interrupted, and asks a registry
            if isinstance(parameter, click.Argument):
                if draw.random() < 0.9:
                    source = parameter.name == "source"
                    right = "net.py:build" if source else "m.onnx"
                    arguments.append(right if draw.random() < 0.7 else word())
            elif draw.random() < (0.9 if parameter.required else 0.15):
                arguments.append(parameter.opts[-1])
                if not getattr(parameter, "is_flag", False):
                    right = {"inputs": "i.npy", "output": "o.npz", "seconds": "0", "shapes": "6"}
                    known = str(parameter.name) in right and draw.random() < 0.7
                    value = right[str(parameter.name)] if known else word()
                    arguments.append("0" if parameter.name == "seconds" else value)
        if name == "export" and draw.random() < 0.95:
            arguments.append("--nothing")  # a whole export takes seconds
        if name == "bench":
            arguments += ["--seconds", "0"]
        return Case("arguments", arguments, files, "o.npz")
