"""Every neuron, axon, dendrite and loop against a plain statement of its equation.

The statements loop over elements in Python numbers. :class:`Integers` is lava-dl's arithmetic on
the CPU, with ``np.float32`` where lava-dl hands a state from one function to the next;
:class:`Reals` is float64, and keeps how near any decision came to hang on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import synapse_onnx as so

SHAPES = [(2, 3, 25), (1, 2, 2, 3, 12)]
IDS = ["neurons", "images"]


class Integers:
    """Python integers in units of 1 / scale; decays are integers in 4096ths."""

    one = 4096

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def take(self, x: Any) -> int:
        return int(np.float32(self.scale) * np.float32(x))  # int() truncates towards zero

    def give(self, state: int) -> Any:
        return np.float32(state) / np.float32(self.scale)

    def times(self, state: int, factor: int) -> int:
        """A product, shifted right by 12 bits towards zero."""
        size = abs(state * factor) >> 12
        return size if state * factor >= 0 else -size

    def level(self, value: float) -> int:
        return int(value * self.scale)

    def reaches(self, value: Any, limit: Any) -> bool:
        return bool(value >= limit)


class Reals:
    """float64, and the least distance of a compared value from its limit."""

    one = 1.0

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.margin = math.inf

    def take(self, x: Any) -> float:
        return float(x)

    give = level = take

    def times(self, state: float, factor: float) -> float:
        return state * factor

    def reaches(self, value: Any, limit: Any) -> bool:
        self.margin = min(self.margin, abs(value - limit))
        return bool(value >= limit)


class Plain:
    """One neuron: parameters ``p``, threshold and step from the module, states in attributes."""

    def __init__(self, a: Any, p: Mapping[str, Any], module: Any) -> None:
        self.a, self.p = a, p
        self.threshold = module.threshold
        self.u = self.v = self.real = self.imag = self.refractory = 0
        self.base = self.limit = a.level(module.threshold)
        self.jump = a.level(getattr(module, "threshold_step", 0))
        self.below = False  # whether the imaginary part was negative

    def keep(self, state: Any, name: str) -> Any:
        return self.a.times(state, self.a.one - self.p[name])

    def leak(self, x: Any) -> None:
        """Current and voltage of cuba and alif; the current passes through float32 in between."""
        self.u = self.keep(self.u, "current_decay") + self.a.take(x)
        self.v = self.keep(self.v, "voltage_decay") + self.a.take(self.a.give(self.u))

    def turn(self, x: Any, y: Any) -> None:
        """z[t] = (cos + i sin) z[t-1] + x + i y."""
        sin, cos, times = self.p["sin_decay"], self.p["cos_decay"], self.a.times
        real, imag = self.real, self.imag
        self.real = times(real, cos) - times(imag, sin) + self.a.take(x)
        self.imag = times(real, sin) + times(imag, cos) + self.a.take(y)

    def crosses(self) -> bool:
        """Whether the imaginary part has come from below zero to zero or above."""
        was, self.below = self.below, not self.a.reaches(self.imag, 0)
        return was and not self.below

    def recover(self) -> None:
        """Let the added threshold and the refractory response decay."""
        self.limit = self.keep(self.limit - self.base, "threshold_decay") + self.base
        self.refractory = self.keep(self.refractory, "refractory_decay")

    def adapt(self, fired: bool) -> None:
        if fired:
            self.refractory += 2 * self.limit
            self.limit += self.jump

    def above(self, membrane: Any) -> bool:
        """The spike function, on what the dynamics gave as float32."""
        give = self.a.give
        return self.a.reaches(give(membrane), give(self.limit) + give(self.refractory))


class Cuba(Plain):
    def step(self, x: Any) -> tuple[bool, Any]:
        eps = 0.01 / self.a.scale if self.a.one == 4096 else 0.0
        level = self.threshold + eps
        self.leak(x)
        out = self.a.give(self.v)
        fired = self.a.reaches(out, np.float32(level))
        if self.a.one != 4096:
            reset = fired
        else:
            reset = np.float32(self.v) >= np.float32(level * self.a.scale)
        self.v = 0 if reset else self.v
        return fired, out


class Alif(Plain):
    def step(self, x: Any) -> tuple[bool, Any]:
        self.leak(x)
        self.recover()
        fired, out = self.above(self.v), self.a.give(self.v)
        self.adapt(self.a.take(out) >= self.limit + self.refractory)
        return fired, out


class Rf(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        out = self.a.give(self.real)
        crossed = self.crosses()
        return crossed and self.a.reaches(out, self.threshold), out


class RfIz(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        out = self.a.give(self.imag)
        fired = self.a.reaches(out, self.threshold)
        if fired:  # to just below the threshold
            self.real, self.imag = 0, self.base - (1 if self.a.one == 4096 else 1 / self.a.scale)
        else:  # lava-dl's reset computes the imaginary part in float32
            self.imag = int(np.float32(self.imag)) if self.a.one == 4096 else self.imag
        return fired, out


class Adrf(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        self.recover()
        out = self.a.give(self.real)
        crossed = self.crosses()
        fired = crossed and self.above(self.real)
        self.adapt(crossed and self.a.take(out) >= self.limit + self.refractory)
        return fired, out


class AdrfIz(Plain):
    def step(self, x: Any, y: Any) -> tuple[bool, Any]:
        self.turn(x, y)
        self.recover()
        fired, out = self.above(self.imag), self.a.give(self.imag)
        self.adapt(self.imag >= self.limit + self.refractory)
        return fired, out


PLAIN: dict[str, type[Any]] = {
    "alif": Alif, "rf": Rf, "rf_iz": RfIz, "adrf": Adrf, "adrf_iz": AdrfIz, "cuba": Cuba,
}  # fmt: skip
ADAPTIVE = {"threshold": 0.4, "threshold_step": 0.2, "refractory_decay": 0.3}
PHASE = {"period": 6.5, "decay": 0.1}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "cuba": {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05},
    "alif": {**ADAPTIVE, "current_decay": 0.25, "voltage_decay": 0.1, "threshold_decay": 0.1},
    "rf": {"threshold": 0.3, **PHASE},
    "rf_iz": {"threshold": 0.9, **PHASE},
    "adrf": {**ADAPTIVE, **PHASE, "threshold_decay": 0.1},
    "adrf_iz": {**ADAPTIVE, **PHASE, "threshold_decay": 0.1},
}
#: ranges from which every channel draws its own parameters
RANGES: dict[str, tuple[float, float]] = {
    "current_decay": (0.1, 0.9),
    "voltage_decay": (0.0, 0.5),
    "threshold_decay": (0.05, 0.6),
    "refractory_decay": (0.2, 0.9),
    "period": (4.5, 11.0),
    "decay": (0.01, 0.3),
}


def values(*shape: int, seed: int = 0, unit: float = 0.0301) -> torch.Tensor:
    """Return random multiples of a unit that is not on the grid of the states, mostly positive."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-24, 40, shape, generator=generator).float() * unit


def currents(
    kind: str, *shape: int, seed: int = 0, unit: float = 0.0301
) -> tuple[torch.Tensor, ...]:
    count = len(so.neuron.kinds()[kind].Neuron.equation.currents)
    return tuple(values(*shape, seed=seed + i, unit=unit) for i in range(count))


def neuron_of(kind: str, *, shared: bool = True, **changes: Any) -> Any:
    arguments = ARGUMENTS[kind] | changes
    if not shared:
        arguments |= {name: span for name, span in RANGES.items() if name in arguments}
    return so.neuron.kinds()[kind].Neuron(**arguments, shared_param=shared)


def called(neuron: Any, x: tuple[torch.Tensor, ...]) -> np.ndarray:
    return neuron(x if len(x) == 2 else x[0]).detach().numpy()


def drawn(neuron: Any, channel: int) -> dict[str, Any]:
    """The parameters of a channel, read back from the module: rounded in fixed point."""
    found = {}
    for name in neuron.decays:
        numbers = getattr(neuron, name).detach().double().numpy()
        number = numbers[channel if numbers.size > 1 else 0]
        found[name] = int(np.round(number)) if neuron.regime == "slayer" else float(number)
    return found


def stated(neuron: Any, x: tuple[torch.Tensor, ...], a: Any) -> np.ndarray:
    """The neuron's output, one element and one step at a time."""
    arrays = [each.numpy() for each in x]
    spikes = np.zeros_like(arrays[0])
    for index in np.ndindex(*spikes.shape[:-1]):
        one = PLAIN[neuron.kind](a, drawn(neuron, index[1]), neuron)
        for t in range(spikes.shape[-1]):
            fired, out = one.step(*(each[(*index, t)] for each in arrays))
            spikes[(*index, t)] = (out if neuron.graded_spike else 1) if fired else 0
    return spikes


def assert_some_spike(spikes: np.ndarray) -> None:
    """The case shows something: some spike, and not all the time."""
    assert 0.01 < float((spikes != 0).mean()) < 0.9


class Pair(nn.Module):
    """A resonator as a network of two inputs."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
        return self.neuron((real, imag))


def through_onnx(module: nn.Module, *x: torch.Tensor) -> np.ndarray:
    module = (Pair(module) if len(x) == 2 else module).eval()
    result: np.ndarray = so.Session(so.export(module, x)).run(*(each.numpy() for each in x))
    return result


# -- neurons -------------------------------------------------------------------------------------


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("kind", PLAIN)
def test_neurons_compute_as_lava_dl_does(kind, shape, shared, graded) -> None:
    neuron = neuron_of(kind, shared=shared, graded_spike=graded)
    x = currents(kind, *shape)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    if graded and not shared and len(shape) == 5:
        np.testing.assert_array_equal(through_onnx(neuron, *x), expected)


@pytest.mark.parametrize("scale", [1, 32, 1024])
@pytest.mark.parametrize("kind", PLAIN)
def test_neurons_of_another_scale(kind: str, scale: int) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=True, scale=scale, threshold=1.0)
    x = currents(kind, 2, 3, 25, unit=0.0703)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_states_beyond_float32_are_rounded_where_lava_dl_rounds_them(kind: str) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=True).eval()
    x = currents(kind, 2, 3, 40, unit=711.3)
    evaluated = called(neuron, x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert np.abs(expected).max() * neuron.s_scale > 2**24
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(through_onnx(neuron, *x), expected)


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("kind", PLAIN)
def test_states_beyond_float32_are_the_same_in_training(kind: str, graded: bool) -> None:
    neuron = neuron_of(kind, shared=False, graded_spike=graded).train()
    x = currents(kind, 2, 3, 40, unit=711.3)
    trained = called(neuron, x)
    expected = stated(neuron, x, Integers(neuron.s_scale))
    assert (expected != 0).any()
    np.testing.assert_array_equal(trained, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_float_regime_is_the_plain_equation(kind: str) -> None:
    neuron = neuron_of(kind, shared=False, regime="float")
    x = currents(kind, 2, 3, 25, seed=10)
    trained, evaluated = called(neuron.train(), x), called(neuron.eval(), x)
    a = Reals(neuron.s_scale)
    expected = stated(neuron, x, a)
    assert a.margin > 1e-5, "no decision may hang on rounding"
    assert_some_spike(expected)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    np.testing.assert_array_equal(through_onnx(neuron, *x), expected)


# -- delta encoder, sigma decoder, and both in a neuron -------------------------------------------


def floored(value: np.float32, scale: int) -> np.float32:
    step = np.float32(1 / scale)
    return np.float32(np.floor(value / step) * step)


def encoded(x: np.ndarray, threshold: np.ndarray, scale: int, cumulative: bool) -> np.ndarray:
    """What a delta encoder sends, in float32 and in lava-dl's order."""
    sent = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        pre = residual = error = np.float32(0)
        level = threshold[index[1] if threshold.size > 1 else 0]
        for t in range(x.shape[-1]):
            now = x[(*index, t)]
            change = (now - pre) + residual
            error = error + change
            reached = abs(error if cumulative else change) >= level
            out = change if reached else np.float32(0)
            error = np.float32(0) if out != 0 else error
            residual, pre = change - out, now
            sent[(*index, t)] = floored(out, scale)
    return sent


def summed(x: np.ndarray) -> np.ndarray:
    """The running sum, in float64, rounded to float32."""
    sums = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        total = 0.0
        for t in range(x.shape[-1]):
            total += float(x[(*index, t)])
            sums[(*index, t)] = np.float32(total)
    return sums


@pytest.mark.parametrize("cumulative", [False, True], ids=["change", "cumulative"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("scale", [64, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_delta_encoder(shape, scale, shared, cumulative) -> None:
    encoder = so.axon.Delta(0.61, scale, cum_error=cumulative, shared_param=shared)
    x = values(*shape)
    encoder(x)
    if not shared:
        encoder.threshold.data = torch.linspace(0.3, 1.1, shape[1])
    expected = encoded(x.numpy(), encoder.threshold.detach().numpy(), scale, cumulative)
    assert_some_spike(expected)
    np.testing.assert_array_equal(encoder.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(encoder.eval()(x).detach().numpy(), expected)
    if not shared and len(shape) == 5:
        np.testing.assert_array_equal(through_onnx(encoder, x), expected)


@pytest.mark.parametrize("unit", [0.0301, 33333.3])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_sigma_decoder(shape: tuple[int, ...], unit: float) -> None:
    decoder, x = so.dendrite.Sigma(), values(*shape, unit=unit)
    expected = summed(x.numpy())
    assert expected.any()
    np.testing.assert_array_equal(decoder.train()(x).numpy(), expected)
    np.testing.assert_array_equal(decoder.eval()(x).numpy(), expected)
    if unit > 1:
        np.testing.assert_array_equal(through_onnx(decoder, x), expected)


@pytest.mark.parametrize("cumulative", [False, True], ids=["change", "cumulative"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "channels"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_sigma_delta_neuron(shape, shared, bias, cumulative) -> None:
    neuron = so.neuron.sigma_delta.Neuron(
        0.7, torch.relu, cum_error=cumulative, shared_param=shared
    )
    x = values(*shape) - 0.2  # the sums pass zero, where relu counts
    neuron(x)
    if not shared:
        neuron.delta.threshold.data = torch.linspace(0.3, 1.1, shape[1])
    sums = summed(x.numpy())
    if bias:
        offsets = values(*shape[1:-1], seed=5)
        neuron.set_bias(offsets)
        sums = sums + offsets.numpy()[None, ..., None]
    level = neuron.threshold.detach().numpy()
    if shared:
        assert level == 44 / 64, "the threshold lies on the grid of the weights"
    expected = encoded(np.maximum(sums, np.float32(0)), level, neuron.s_scale, cumulative)
    assert_some_spike(expected)
    np.testing.assert_array_equal(neuron.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(neuron.eval()(x).detach().numpy(), expected)
    if bias and cumulative and not shared:
        np.testing.assert_array_equal(through_onnx(neuron, x), expected)


# -- delays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [False, True], ids=["channels", "every-neuron"])
@pytest.mark.parametrize("sampling_time", [1, 0.5, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_axonal_delay(shape, sampling_time, each) -> None:
    axon, x = so.axon.Delay(sampling_time=sampling_time), values(*shape)
    neurons = math.prod(shape[1:-1])
    delays = torch.rand(neurons if each else shape[1]) * 7
    delays[0] = 6.5  # one delay is longer than a step, whatever is drawn
    axon.load_state_dict({"delay": delays})
    expected = np.zeros(shape, dtype=np.float32)
    for index in np.ndindex(*shape[:-1]):
        place = np.ravel_multi_index(index[1:], shape[1:-1]) if each else index[1]
        steps = math.floor(float(delays[place]) / sampling_time)
        for t in range(steps, shape[-1]):
            expected[(*index, t)] = x[(*index, t - steps)]
    assert (expected != x.numpy()).mean() > 0.01
    assert expected.any()
    np.testing.assert_array_equal(axon.train()(x).detach().numpy(), expected)
    np.testing.assert_array_equal(axon.eval()(x).detach().numpy(), expected)
    if sampling_time == 0.5 and each:
        np.testing.assert_array_equal(through_onnx(axon, x), expected)


# -- loops and means of blocks --------------------------------------------------------------------


def eighth_bits(weight: torch.Tensor) -> np.ndarray:
    """A dense weight (outputs, inputs) in steps of 2 / 64, within 8 bits."""
    steps = np.round(weight.detach().double().numpy()[..., 0, 0, 0] * 32)
    return np.clip(steps, -128, 127) / 32


def looped(
    neuron: Any, drive: list[np.ndarray], feedback: list[np.ndarray], shift: bool
) -> np.ndarray:
    """Neurons that see ``drive[t] + feedback @ spikes[t-1]``; sums in float64 without rounding."""
    batch, count, steps = drive[0].shape
    spikes = np.zeros((batch, count, steps + 1), dtype=np.float32)  # one step of silence first
    for n in range(batch):
        a = Integers(neuron.s_scale)
        cells = [PLAIN[neuron.kind](a, drawn(neuron, c), neuron) for c in range(count)]
        for t in range(steps):
            before = spikes[n, :, t].astype(np.float64)
            for c, cell in enumerate(cells):
                x = [each[n, c, t] + before @ w[c] for each, w in zip(drive, feedback, strict=True)]
                assert all(np.float32(value) == value for value in x), "the order would matter"
                fired, out = cell.step(*x)
                spikes[n, c, t + 1] = (out if neuron.graded_spike else 1) if fired else 0
    return spikes[..., :-1] if shift else spikes[..., 1:]


def shrink(synapse: nn.Module) -> None:
    if isinstance(synapse, so.synapse.Dense):
        synapse.weight.data /= 8


@pytest.mark.parametrize("graded", [False, True], ids=["binary", "graded"])
@pytest.mark.parametrize("kind", PLAIN)
def test_recurrent_block(kind: str, graded: bool, spikes: Callable[..., torch.Tensor]) -> None:
    arguments = ARGUMENTS[kind] | {"graded_spike": graded}
    block = getattr(so.block, kind).Recurrent(
        arguments, 6, 5, weight_scale=2, delay_shift=not graded
    )
    if graded:  # what goes round must stay small, for its sums to be exact
        block.recurrent_synapse.apply(shrink)
    parts = ("real", "imag") if block.neuron.complex else ("",)
    inward, back = (
        [eighth_bits((getattr(synapse, part) if part else synapse).weight) for part in parts]
        for synapse in (block.input_synapse, block.recurrent_synapse)
    )
    assert all(each.any() for each in back)
    x = spikes((2, 6, 25))
    trained, evaluated = block.train()(x).detach().numpy(), block.eval()(x).detach().numpy()
    drive = [np.einsum("oi,nit->not", w, x.double().numpy()) for w in inward]
    expected = looped(block.neuron, drive, back, block.delay_shift)
    alone = looped(block.neuron, drive, [0 * w for w in back], block.delay_shift)
    assert_some_spike(expected)
    assert (expected != alone).any(), "the feedback counts"
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    if not graded:
        np.testing.assert_array_equal(through_onnx(block, x), expected)


@pytest.mark.parametrize(("threshold", "winners"), [(1.0, 2), (4.0, 1), (4.0, 5)])
@pytest.mark.parametrize("kind", PLAIN)
def test_k_winners_take_all(
    kind: str, threshold: float, winners: int, spikes: Callable[..., torch.Tensor]
) -> None:
    count = 6
    arguments = ARGUMENTS[kind] | {"threshold": threshold}
    block = getattr(so.block, kind).KWTA(
        arguments, 8, count, winners, self_excitation=0.6, delay_shift=False
    )
    inward = [block.synapse.real, block.synapse.imag] if block.neuron.complex else [block.synapse]
    for synapse in inward:
        synapse.weight.data *= 3 * threshold
    x = spikes((2, 8, 40), rate=0.6)
    trained, evaluated = block.train()(x).detach().numpy(), block.eval()(x).detach().numpy()
    # 0.6 and the bias in steps of 2 / 64
    lateral = np.where(np.eye(count) > 0, np.round(0.6 * 32) / 32, -1.0)
    level = np.float32(threshold * (count - 2 * winners) / count / 64)
    bias = np.round(level * 32) / 32
    assert (bias != 0) == (threshold > 1)
    drive = [np.einsum("oi,nit->not", eighth_bits(s.weight), x.double().numpy()) for s in inward]
    drive[0] += bias  # bias and feedback are real
    feedback = [lateral, 0 * lateral][: len(drive)]
    expected = looped(block.neuron, drive, feedback, shift=False)
    assert_some_spike(expected)
    alone = looped(block.neuron, drive, [0 * lateral] * len(drive), shift=False)
    assert (expected != alone).any()
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    if winners == 1:
        np.testing.assert_array_equal(through_onnx(block, x), expected)


@pytest.mark.parametrize("factor", [1, 4, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_time_decimation(shape: tuple[int, ...], factor: int) -> None:
    block, x = so.block.cuba.TimeDecimation(factor), values(*shape, unit=1 / 32)
    bins = -(-shape[-1] // factor)
    expected = np.zeros((*shape[:-1], bins), dtype=np.float32)
    for index in np.ndindex(*expected.shape):
        first = index[-1] * factor
        expected[index] = sum(x[index[:-1]][first : first + factor].tolist()) / factor
    assert expected.any()
    np.testing.assert_array_equal(block.train()(x).numpy(), expected)
    np.testing.assert_array_equal(block.eval()(x).numpy(), expected)
    if factor == 4:
        np.testing.assert_array_equal(through_onnx(block, x), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 12, 25), (1, 2, 2, 3, 12)], ids=IDS)
def test_average(shape: tuple[int, ...], groups: int) -> None:
    block, x = so.block.cuba.Average(groups), values(*shape, unit=1 / 32)
    neurons = math.prod(shape[1:-1])
    size = neurons // groups
    rows = x.reshape(shape[0], neurons, shape[-1]).tolist()
    expected = np.zeros((shape[0], groups, shape[-1]), dtype=np.float32)
    for n, group, t in np.ndindex(*expected.shape):
        members = rows[n][group * size : (group + 1) * size]
        expected[n, group, t] = np.float32(sum(row[t] for row in members)) / np.float32(size)
    assert expected.any()
    np.testing.assert_array_equal(block.train()(x).numpy(), expected)
    np.testing.assert_array_equal(block.eval()(x).numpy(), expected)
    if groups == 4:
        np.testing.assert_array_equal(through_onnx(block, x), expected)
