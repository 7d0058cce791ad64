"""Recurrent blocks and winners against a plain statement of their loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plain_equations import ARGUMENTS, PLAIN, Integers, assert_some_spike, drawn, through_onnx
from torch import nn

import synapse_onnx as so


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
