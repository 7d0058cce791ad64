"""The contract of Loihi as plain NumPy loops, and ``.net`` files run by it.

Nothing of the package is used here: these are the equations of lava's bit-accurate models, on
integers. Currents, biases and thresholds come in 64ths, as the file has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LIMIT = 1 << 23


def shift(value: Any) -> Any:
    """Drop 12 bits, towards zero."""
    return np.sign(value) * (np.abs(value) >> 12)


def wrap(current: Any) -> Any:
    """24 bits: what passes one end comes out at the other."""
    wrapped = np.where(current > LIMIT, current - 2 * LIMIT, current)
    return np.where(wrapped <= -LIMIT, current + 2 * LIMIT, wrapped)


def clip(voltage: Any) -> Any:
    """24 bits: a voltage stays at the end."""
    return np.clip(voltage, 1 - LIMIT, LIMIT - 1)


class Cuba:
    def __init__(self, p: dict[str, Any], bias: Any = 0) -> None:
        self.p, self.bias = p, bias
        self.u = self.v = np.int64(0)

    def step(self, x: Any) -> Any:
        self.u = wrap(shift(self.u * (4096 - self.p["iDecay"])) + (x << 6))
        self.v = clip(shift(self.v * (4096 - self.p["vDecay"])) + self.u + (self.bias << 6))
        spikes = self.v > self.p["vThMant"] << 6
        self.membrane = self.v
        self.v = np.where(spikes, 0, self.v)
        return spikes


class Adaptive:
    """Threshold and refractory response."""

    def start(self, p: dict[str, Any]) -> None:
        self.base, self.step_up = p["vThMant"] << 6, p["vThStep"] << 6
        self.th, self.r = np.int64(self.base), np.int64(0)

    def fires(self, membrane: Any, p: dict[str, Any]) -> Any:
        self.th = shift((self.th - self.base) * (4096 - p["thDecay"])) + self.base
        self.r = shift(self.r * (4096 - p["refDecay"]))
        return membrane >= self.th + self.r

    def adapt(self, spikes: Any) -> None:
        self.r = self.r + np.where(spikes, 2 * self.th, 0)
        self.th = self.th + np.where(spikes, self.step_up, 0)


class Alif(Adaptive):
    def __init__(self, p: dict[str, Any], bias: Any = 0) -> None:
        self.p, self.bias = p, bias
        self.u = self.v = np.int64(0)
        self.start(p)

    def step(self, x: Any) -> Any:
        self.u = wrap(shift(self.u * (4096 - self.p["iDecay"])) + ((x + self.bias) << 6))
        self.v = clip(shift(self.v * (4096 - self.p["vDecay"])) + self.u)
        spikes = self.fires(self.v, self.p)
        self.membrane = self.v
        self.adapt(spikes)
        return spikes


class Rf:
    def __init__(self, p: dict[str, Any], bias: Any = 0) -> None:
        self.p = p
        self.re = self.im = np.int64(0)

    def turn(self, x: Any) -> tuple[Any, Any]:
        sin, cos = self.p["sinDecay"], self.p["cosDecay"]
        re = shift(cos * self.re) - shift(sin * self.im) + (x[0] << 6)
        im = shift(sin * self.re) + shift(cos * self.im) + (x[1] << 6)
        return clip(re), clip(im)

    def step(self, x: Any) -> Any:
        re, im = self.turn(x)
        spikes = (re >= self.p["vThMant"] << 6) & (im >= 0) & (self.im < 0)
        self.re, self.im, self.membrane = re, im, im
        return spikes


class RfIz(Rf):
    def step(self, x: Any) -> Any:
        re, im = self.turn(x)
        limit = self.p["vThMant"] << 6
        spikes = im >= limit
        self.membrane = im
        self.re, self.im = np.where(spikes, 0, re), np.where(spikes, limit - 1, im)
        return spikes


class Adrf(Rf, Adaptive):
    def __init__(self, p: dict[str, Any], bias: Any = 0) -> None:
        super().__init__(p)
        self.start(p)

    def step(self, x: Any) -> Any:
        re, im = self.turn(x)
        spikes = self.fires(re, self.p) & (im >= 0) & (self.im < 0)
        self.re, self.im, self.membrane = re, im, im
        self.adapt(spikes)
        return spikes


class AdrfIz(Adrf):
    def step(self, x: Any) -> Any:
        re, im = self.turn(x)
        spikes = self.fires(im, self.p)
        self.re, self.im, self.membrane = re, im, im
        self.adapt(spikes)
        return spikes


class SigmaDelta:
    """18 bits behind the point inside, 12 of what is sent; weights have 6."""

    def __init__(self, p: dict[str, Any], bias: Any = 0, mode: str = "neuron") -> None:
        self.p, self.bias, self.mode = p, bias, mode
        self.sigma = self.act = self.rest = np.int64(0)

    def step(self, x: Any) -> Any:
        if self.mode == "encoder":
            act = x << 12
        else:
            self.sigma = self.sigma + x
            if self.mode == "decoder":
                return self.sigma
            act = self.sigma + (self.bias << 12)
            act = np.maximum(act, 0) if self.p.get("activation", "relu") == "relu" else act
        change = act - self.act + self.rest
        sent = np.where(np.abs(change) >= self.p["vThMant"] << 12, change, 0)
        self.rest, self.act = change - sent, act
        return sent >> 6


NEURONS = {
    "CUBA": Cuba, "LOIHI": Cuba, "ALIF": Alif, "RF_PHASE": Rf, "RF_IZHIKEVICH": RfIz,
    "ADRF_PHASE": Adrf, "ADRF_IZHIKEVICH": AdrfIz, "SDNN": SigmaDelta,
}  # fmt: skip


def convolve(x: Any, weight: Any, stride: Any, padding: Any) -> Any:
    """Cross-correlate an image (C, H, W) of integers with kernels (K, C, H, W)."""
    (up, left), (down, right) = padding, stride
    padded = np.pad(x, ((0, 0), (up, up), (left, left)))
    windows = sliding_window_view(padded, weight.shape[2:], axis=(1, 2))[:, ::down, ::right]
    return np.einsum("chwij,kcij->khw", windows, weight)


class Layer:
    """One layer of a file: dense, conv or input, one instant after another."""

    def __init__(self, group: Any) -> None:
        def read(item: Any) -> Any:
            value = np.asarray(item[()]).reshape(-1)[0]
            return value.decode() if isinstance(value, bytes) else value

        self.type = read(group["type"])
        self.shape = tuple(group["shape"][()])
        self.p = {key: read(value) for key, value in group["neuron"].items()}
        self.p = {k: v if isinstance(v, str) else int(v) for k, v in self.p.items()}
        bias: Any = np.int64(0)
        if "bias" in group and self.type != "input":
            bias = group["bias"][()].astype(np.int64).reshape(-1, *(1,) * (len(self.shape) - 1))
        more = {}
        if self.p["type"] == "SDNN" and self.type == "input":
            more["mode"] = "encoder"
        elif "sigma_output" in self.p:
            more["mode"] = "decoder"
        self.neuron = NEURONS[self.p["type"]](self.p, bias, **more)
        if self.type != "input":
            weight = group["weight"][()].astype(np.int64)
            self.weight = weight.reshape(weight.shape[: 4 if self.type == "conv" else 2])
        if self.type == "conv":
            self.window = tuple(group["stride"][()]), tuple(group["padding"][()])

    def current(self, x: Any) -> Any:
        if self.type == "input":
            return x
        if self.type == "conv":
            return convolve(x, self.weight, *self.window)
        return self.weight @ x.reshape(-1)

    def step(self, x: Any) -> Any:
        return np.broadcast_to(self.neuron.step(self.current(x)), self.shape).astype(np.int64)


def run(path: Path, inputs: Any, *, delay: int = 0) -> list[Any]:
    """Run a file on integers (C[, H, W], T); return what every layer sends, over time.

    Args:
        path: a file of dense and conv layers.
        inputs: spikes, or mantissas where the first layer is an input.
        delay: steps that a synapse takes, 1 in lava.
    """
    with h5py.File(path) as file:
        groups = [file[f"layer/{i}"] for i in range(len(file["layer"]))]
        layers = [Layer(g) for g in groups if np.asarray(g["type"][()]).item() != b"flatten"]
    sent: list[list[Any]] = [[] for _ in layers]
    for t in range(inputs.shape[-1]):
        for i, layer in enumerate(layers):
            if i == 0:
                x = inputs[..., t]
            elif delay:
                x = sent[i - 1][t - 1] if t else np.zeros(layers[i - 1].shape, np.int64)
            else:
                x = sent[i - 1][t]
            sent[i].append(layer.step(x))
    return [np.stack(steps, axis=-1) for steps in sent]
