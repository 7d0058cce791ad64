"""Classes under lava-dl's class paths, with the attributes that its layers have: lava-dl itself is
on no package index. They hold parameters and do not run, but for what a test says."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

SLAYER = "lava.lib.dl.slayer"


def _module(path: str, **classes: type) -> types.ModuleType:
    module = types.ModuleType(path)
    for name, kind in classes.items():
        kind.__module__, kind.__qualname__, kind.__name__ = path, name, name
        setattr(module, name, kind)
    return module


def _make() -> dict[str, types.ModuleType]:
    class Synapse(nn.Conv3d):
        """Any real synapse; ``pre_hook_fx`` acts on its weight."""

        def __init__(self, *args: Any, pre_hook_fx: Any = None, **more: Any) -> None:
            super().__init__(*args, bias=False, **more)
            self.weight_norm_enabled, self.complex = False, False
            self._pre_hook_fx = pre_hook_fx

    class Dense(Synapse):
        def __init__(self, inputs: int, outputs: int, **more: Any) -> None:
            super().__init__(inputs, outputs, (1, 1, 1), **more)

    class Conv(Synapse):
        def __init__(self, inputs: int, outputs: int, size: int, **more: Any) -> None:
            super().__init__(inputs, outputs, (size, size, 1), **more)

    class Pool(Synapse):
        def __init__(self, size: int, **more: Any) -> None:
            super().__init__(1, 1, (size, size, 1), stride=(size, size, 1), **more)

    class ComplexDense(nn.Module):
        def __init__(self, inputs: int, outputs: int, **more: Any) -> None:
            super().__init__()
            self.real, self.imag = Dense(inputs, outputs, **more), Dense(inputs, outputs, **more)
            self.complex, self.weight_norm_enabled = True, False

    class Neuron(nn.Module):
        """What every neuron has."""

        decays: tuple[str, ...] = ()

        def __init__(self, threshold: float, shared_param: bool = True, **decays: float) -> None:
            super().__init__()
            self.p_scale, self.w_scale, self.s_scale = 1 << 12, 64, 1 << 12
            self._threshold = int(threshold * 64) / 64
            self.tau_rho, self.scale_rho = self._threshold, 1
            self.shared_param, self.persistent_state = shared_param, False
            self.requires_grad, self.graded_spike = False, False
            self.norm, self.drop, self.shape, self.num_neurons = None, None, None, None
            for name in self.decays:
                value = torch.tensor([4096 * decays[name]])
                setattr(self, name, nn.Parameter(value, requires_grad=False))
                self.register_buffer(f"{name.split('_')[0]}_state", torch.zeros(1), False)

        def quantize_8bit(self, weight: torch.Tensor, descale: bool = False) -> torch.Tensor:
            return (torch.round(weight * 32) / 32).clamp(-4, 254 / 64)

    class Cuba(Neuron):
        decays = ("current_decay", "voltage_decay")

    class Rf(Neuron):
        decays = ("sin_decay", "cos_decay")

        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.real_norm, self.imag_norm, self.log_init = None, None, True

    class Delay(nn.Module):
        def __init__(self, steps: list[float]) -> None:
            super().__init__()
            self.max_delay, self.sampling_time, self.grad_scale, self.init = 62, 1, 1, True
            self.delay = nn.Parameter(torch.tensor(steps))

    class AbstractBlock(nn.Module):
        def __init__(self, neuron: Any, synapse: Any, delay: Any = None, mask: Any = None) -> None:
            super().__init__()
            self.count_log, self.delay_shift, self.delay_buffer = False, True, None
            self.neuron, self.delay, self.synapse = neuron, delay, synapse
            self.register_buffer("mask", mask)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a stand-in does not run")

    class CubaDense(AbstractBlock):
        pass

    class RfDense(AbstractBlock):
        pass

    class CubaPool(AbstractBlock):
        pass

    class Flatten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count_log, self.shape = False, None

    class Bootstrap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = Dense(2, 2)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

    class Rate(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(-1)

    return {
        module.__name__: module
        for module in (
            _module(
                f"{SLAYER}.synapse.layer", GenericLayer=Synapse, Dense=Dense, Conv=Conv, Pool=Pool
            ),
            _module(f"{SLAYER}.neuron.base", Neuron=Neuron),
            _module(f"{SLAYER}.block.base", AbstractBlock=AbstractBlock),
            _module(f"{SLAYER}.synapse.complex", Dense=ComplexDense),
            _module(f"{SLAYER}.neuron.cuba", Neuron=Cuba),
            _module(f"{SLAYER}.neuron.rf", Neuron=Rf),
            _module(f"{SLAYER}.axon.delay", Delay=Delay),
            _module(f"{SLAYER}.block.cuba", Dense=CubaDense, Pool=CubaPool, Flatten=Flatten),
            _module(f"{SLAYER}.block.rf", Dense=RfDense),
            _module(f"{SLAYER}.block.odd", Odd=Odd),
            _module(f"{SLAYER}.classifier", Rate=Rate),
            _module("lava.lib.dl.bootstrap.block.cuba", Dense=Bootstrap),
        )
    }


@contextmanager
def standing_in() -> Iterator[dict[str, types.ModuleType]]:
    """Put the stand-ins where lava-dl's modules would be, for a while."""
    modules = _make()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield {name.removeprefix(f"{SLAYER}."): module for name, module in modules.items()}
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
