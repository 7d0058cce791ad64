"""A network, its inputs and the options of its export, drawn by seed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Stateful

from . import borders, loops, parts, wrappers

#: one of so many networks loops over time in torch code
LOOPING = 6


@dataclass
class Drawn:
    """A network of one seed.

    Attributes:
        seed: the seed.
        structures: names of what is unusual about it.
        module: the network, in evaluation mode; its layers have run once.
        inputs: arguments of ``forward``.
        options: of the export.
    """

    seed: int
    structures: list[str]
    module: nn.Module
    inputs: Sequence[Tensor]
    options: dict[str, Any]

    @property
    def arguments(self) -> list[Any]:
        """The inputs as export and verify take them."""
        pair = "a pair" in self.structures
        return [tuple(self.inputs)] if pair else list(self.inputs)

    def __str__(self) -> str:
        return f"{', '.join(self.structures)}; {self.options}"


def draw(seed: int) -> Drawn:
    """Draw the network of a seed, which is the same every time."""
    rng = Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _drawn(seed, rng)


def _drawn(seed: int, rng: Random) -> Drawn:
    """Draw until torch runs the network.

    It refuses a change in place of some tensors, and to compile one module within a second that
    shares its parts (AssertionError).
    """
    while True:
        drawn = _looping(seed, rng) if seed % LOOPING == LOOPING - 1 else _once(seed, rng)
        with torch.no_grad(), contextlib.suppress(RuntimeError, AssertionError):
            given = replace(drawn, inputs=[x.detach().clone() for x in drawn.inputs])
            copy.deepcopy(drawn.module)(*given.arguments)
            return drawn


def _once(seed: int, rng: Random) -> Drawn:
    count, steps = rng.choice([2, 4, 6]), rng.choice([1, 2, 5, 9, 12])
    batch = rng.choice([1, 2, 3])
    options: dict[str, Any] = {"streaming": rng.random() < 0.5}
    if rng.random() < 0.3:
        options["layout"] = "TNC"
    if rng.random() < 0.2:
        options["dynamic"] = False
    border = rng.choice([*["one input"] * 6, *borders.INPUTS])
    head = rng.choice([*["one output"] * 4, *borders.HEADS])
    if head in borders.UNTIMED and rng.random() < 0.9:  # else most would be refused
        options["streaming"] = False
    structures = [border, head, "streaming" if options["streaming"] else "whole"]

    stages: list[nn.Module] = []
    width = count
    for _ in range(0 if rng.random() < 0.03 else rng.choice([1, 1, 2, 3])):
        out = rng.choice([2, 4, 6, 8])
        made = parts.stage(rng, width, out)
        _start(made, width)
        for name in rng.sample(list(wrappers.WRAPPERS), rng.choice([0, 1, 1, 2])):
            made = wrappers.WRAPPERS[name](made, rng)
            structures.append(name)
        stages.append(made)
        width = out
    if not stages:
        structures.append("no layer of ours")
        stages.append(nn.Sequential(nn.ReLU(), nn.Hardtanh()))

    kind, shapes = borders.INPUTS[border]
    form, inputs = borders.inputs(rng, shapes(batch, count, steps))
    structures += [form, f"N={batch}"] if batch == 1 else [form]
    structures += ["T=1"] * (steps == 1)
    module: nn.Module = kind(stages, borders.HEADS[head])
    module.eval()
    if rng.random() < 0.3:
        name = rng.choice(["torch.compile", "*args", "DataParallel", "hooks"])
        if name != "hooks":
            module = wrappers.WRAPPERS[name](module, rng)
        else:
            module.register_forward_pre_hook(lambda m, i: wrappers.mapped(i, lambda x: 2 * x))
        structures.append(f"whole in {name}")
    return Drawn(seed, structures, module.eval(), inputs, options)


def _looping(seed: int, rng: Random) -> Drawn:
    """Draw a network of torch code over the steps of a sequence, alone or with layers of ours."""
    count, batch = rng.choice([2, 4, 6]), rng.choice([1, 2, 3])
    steps = rng.choice([1, 2, 5, 9, 12, 25])
    options: dict[str, Any] = {"streaming": rng.random() < 0.4}
    structures, axes, module = loops.network(rng, count, options["streaming"])
    if steps < 3 or rng.random() < 0.3:  # of so few steps no loop shows
        options["axes"] = axes
    if rng.random() < 0.2:
        options["layout"] = rng.choice(list(loops.AXES))
    if rng.random() < 0.15:
        options["dynamic"] = False
    form, (x,) = borders.inputs(rng, [(batch, count, steps)])
    x = x.movedim(-1, loops.AXES[axes])
    if axes == "NCT":
        _start(module, count)
    if rng.random() < 0.25:
        name = rng.choice(["torch.compile", "*args", "requires_grad", "two names", "grad mode"])
        module = wrappers.WRAPPERS[name](module.eval(), rng)
        structures.append(f"whole in {name}")
    structures += [form, "streaming" if options["streaming"] else "whole"]
    structures += ["N=1"] * (batch == 1) + ["T=1"] * (steps == 1)
    return Drawn(seed, structures, module.eval(), [x], options)


def _start(module: nn.Module, count: int) -> None:
    """Run a stage once: its layers learn their sizes, and draw what they draw."""
    module.eval()
    with torch.no_grad():
        module(torch.zeros(1, count, 2))
    for part in module.modules():
        if isinstance(part, Stateful):
            part.reset()
