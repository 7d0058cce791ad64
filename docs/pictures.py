"""Draw the pictures of the documentation: ``python docs/pictures.py``; needs the extra ``report``.

A rising chirp goes through the committed network ``models/tones_q8.onnx``. On the left are the
spikes of both layers, in torch and in ONNX Runtime over each other; on the right the sound and the
voltage of one neuron.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import synapse_onnx as so  # noqa: E402
from exporters._recipe import load_checkpoint  # noqa: E402
from exporters.tones import CLASSES, Tones, data  # noqa: E402
from synapse_onnx.files import write_atomically  # noqa: E402

#: the sound, of the class of rising chirps, and the neuron of the second layer
RISING, SAMPLE, NEURON = CLASSES - 2, 2, 13
NAMES = ("torch", "ONNX Runtime")
LAYERS = {"ear.neuron": "48 resonators", "mix.neuron": "32 RF-Izhikevich"}
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
}


class Membranes(nn.Module):
    """Sound (N, 1, T) -> membranes of the second layer (N, 32, T)."""

    def __init__(self, network: Tones) -> None:
        super().__init__()
        self.ear, self.synapse, self.neuron = network.ear, network.mix.synapse, network.mix.neuron

    def forward(self, sound: Tensor) -> Tensor:
        """Return the imaginary part, on which the neurons spike."""
        membranes: Tensor = self.neuron.dynamics(self.synapse(self.ear(sound)))[1]
        return membranes


def raster() -> Figure:
    """Spikes of both layers, waveform, voltage of one neuron: one sound through the network."""
    network = Tones().eval()
    load_checkpoint(network, ROOT / "models" / "tones.pt")
    sounds, labels = data(40, seed=2)
    sound = sounds[labels == RISING][SAMPLE : SAMPLE + 1]
    report = so.verify(network, ROOT / "models" / "tones_q8.onnx", sound)
    spikes = {raster.name: (raster.torch, raster.runtime) for raster in report.rasters}

    module = Membranes(network)
    with torch.no_grad():
        in_torch = module(sound)[0]
    in_runtime = so.Session(so.export(module, sound)).run(sound.numpy())[0]

    figure = Figure(figsize=(12, 5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    left, right = figure.add_gridspec(1, 2, width_ratios=[1.25, 1])
    rasters = left.subgridspec(2, 1, height_ratios=[1.3, 1]).subplots(sharex=True)
    top, bottom = right.subgridspec(2, 1, height_ratios=[1, 2]).subplots(sharex=True)
    for ax, (name, title) in zip(rasters, LAYERS.items(), strict=True):
        so.plot.raster(*spikes[name], names=NAMES, ax=ax)
        ax.set_ylabel(title)
    top.plot(sound[0, 0], color="#444444", linewidth=1.2)
    top.set_ylabel("sound")
    so.plot.membrane(
        dict(zip(NAMES, (in_torch, in_runtime), strict=True)),
        threshold=network.mix.neuron.threshold,
        spikes=dict(zip(NAMES, spikes["mix.neuron"], strict=True)),
        neurons=[NEURON],
        ax=bottom,
    )
    for ax in (top, rasters[0]):
        ax.set_xlabel("")
    return figure


def main() -> None:
    """Write every picture into the folder with this file's name."""
    folder = Path(__file__).with_suffix("")
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        raster().savefig(buffer, format="png", dpi=100, pil_kwargs={"optimize": True})
    write_atomically(folder / "raster.png", buffer.getvalue())


if __name__ == "__main__":
    main()
