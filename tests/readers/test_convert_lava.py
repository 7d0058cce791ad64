"""``convert`` against lava-dl itself, to the last bit, and what of a layer it must not lose."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from lava_standins import standing_in
from networks import spikes
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import synapse_onnx as so

SOURCE = os.environ.get("LAVA_DL", "")
needs_lava = pytest.mark.skipif(not SOURCE, reason="LAVA_DL does not name lava-dl's source folder")
DECAYS = {"current_decay": 0.25, "voltage_decay": 0.05}
CUBA = {"threshold": 0.5, **DECAYS}
TURNS = {"threshold": 0.2, "period": 8, "decay": 0.1}
ADAPTS = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.1}
NEURONS: dict[str, dict[str, Any]] = {
    "cuba": CUBA,
    "alif": {"threshold": 0.3, **DECAYS, **ADAPTS},
    "rf": TURNS,
    "rf_iz": TURNS,
    "adrf": TURNS | ADAPTS,
    "adrf_iz": TURNS | ADAPTS,
    "sigma_delta": {"threshold": 0.1, "activation": torch.relu},
}
COMPLEX = {kind for kind, params in NEURONS.items() if "period" in params}


@pytest.fixture
def lava() -> Iterator[dict[str, ModuleType]]:
    with standing_in() as modules:
        yield modules


def standing(lava: dict[str, ModuleType], kind: str = "Dense") -> Any:
    neuron = lava["neuron.cuba"].Neuron(1.0, **DECAYS)
    synapse = lava["synapse.layer"].Dense(6, 6, pre_hook_fx=neuron.quantize_8bit)
    return getattr(lava["block.cuba"], kind)(neuron, synapse)


# -- references, with stand-ins ------------------------------------------------------------------


class Box:
    def __init__(self, thing: Any) -> None:
        self.thing = thing


def test_every_way_to_a_layer_leads_to_the_same_one_of_ours(lava: Any) -> None:
    first, second = standing(lava), standing(lava)
    second.neuron = first.neuron
    net = nn.Module()
    net.neuron, net.synapse = first.neuron, second.synapse  # met before the blocks they belong to
    net.first, net.second = first, second
    net.hook = first.neuron.quantize_8bit
    net.partial = functools.partial(first.neuron.quantize_8bit, descale=True)
    net.box = Box([standing(lava), first])
    other: Any = so.convert(net)
    assert other.neuron is other.first.neuron is other.second.neuron
    assert other.synapse is other.second.synapse
    assert other.hook == other.neuron.quantize_8bit == other.first.synapse.pre_hook_fx
    assert other.partial.func == other.hook
    assert isinstance(other.box.thing[0], so.block.cuba.Dense)
    assert other.box.thing[1] is other.first


def test_what_the_user_hung_on_a_layer_is_there(lava: Any) -> None:
    block = standing(lava).eval()
    block.label, block.extra = "fc1", nn.Linear(2, 2)
    block.register_buffer("scale", torch.ones(2))
    other: Any = so.convert(block)
    assert other.label == "fc1"
    assert other.extra.weight is block.extra.weight
    assert other.scale is block.scale
    assert not any(layer.training for layer in other.modules() if layer is not other.extra)


def parametrised(block: Any) -> None:
    parametrizations.weight_norm(block.synapse)


def biased(block: Any) -> None:
    block.synapse.bias = nn.Parameter(torch.ones(6))


def stale(block: Any) -> None:
    block.neuron.current_state = torch.ones(1, 6)


def unreached(block: Any) -> None:
    block.neuron._threshold = -1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda b: prune.l1_unstructured(b.synapse, "weight", 0.5), "weight of this Dense is miss"),
        (parametrised, "weight of this ParametrizedDense is missing"),
        (biased, "bias of this Dense is none of those"),
        (stale, "from the current state that was kept before persistent_state was turned off"),
        (unreached, "its threshold is -1, with which lava-dl marks the neuron of an Affine block"),
        (lambda b: setattr(b, "lock", __import__("threading").Lock()), "cannot be copied"),
        (lambda b: setattr(b, "forward", abs), "overrides forward"),
    ],
)
def test_a_change_that_a_swap_would_lose_is_refused(lava: Any, change: Any, sentence: str) -> None:
    net = nn.Sequential(standing(lava))
    change(net[0])
    with pytest.raises(so.InputError, match=sentence) as caught:
        so.convert(net)
    assert "\n" not in str(caught.value)


def test_a_method_that_is_overridden_is_refused(lava: Any) -> None:
    class Signs(lava["neuron.cuba"].Neuron):  # type: ignore[misc]
        def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
            return torch.sign(weight)

    with pytest.raises(so.InputError, match=r"0 is a .*Signs, which overrides quantize_8bit"):
        so.convert(nn.Sequential(Signs(1.0, **DECAYS)))
    with pytest.raises(so.InputError, match="takes a torch module, got list"):
        so.convert([])  # type: ignore[arg-type]


# -- the real lava-dl ----------------------------------------------------------------------------


@pytest.fixture
def slayer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """lava-dl, with two of its faults mended that a current torch meets at once."""
    monkeypatch.syspath_prepend(SOURCE)
    mean = torch.mean
    monkeypatch.setattr(
        torch, "mean", lambda x, *a, **k: mean(x.float() if x.dtype == torch.bool else x, *a, **k)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = importlib.import_module("lava.lib.dl.slayer")
        monkeypatch.setattr(
            loaded.neuron.adrf_iz.Neuron, "forward", lambda self, x: self.spike(*self.dynamics(x))
        )
        yield loaded


def equal(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(equal, mine, theirs))
    return bool(mine is theirs) if theirs is None else torch.equal(mine, theirs)


def same(old: nn.Module, *inputs: Any, warm: bool = False) -> None:
    """Compare several calls in turn; ``warm``: convert between the first and the second."""
    old.eval()
    with torch.no_grad():
        if warm:
            old(inputs[0])
        new = so.convert(old)
        mine, theirs = dict(new.named_parameters()), dict(old.named_parameters())
        assert all(mine[name] is value for name, value in theirs.items())
        keys = {key for key in old.state_dict() if not key.endswith("spike_state")}
        assert set(new.state_dict()) == keys
        for i, x in enumerate(inputs):
            torch.manual_seed(i)  # both draw what they have not drawn yet
            output = new(x)
            torch.manual_seed(i)
            expected = old(x)
            assert equal(output, expected), f"call {i}"
            values = expected[0] if isinstance(expected, tuple) else expected
            assert bool(values.any()), "the case is silent"


def currents(kind: str, *shape: int, seed: int = 0) -> Any:
    """Currents on the grid of q8, a pair for a resonator."""
    parts = [(spikes(*shape, seed=seed + i) * 40 - 10).round() / 64 for i in range(2)]
    return tuple(parts) if kind in COMPLEX else parts[0]


BLOCKS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "Dense": ((6, 5), (6,)),
    "Conv": ((2, 3, 3), (2, 7, 8)),
    "ConvT": ((2, 4, 3), (2, 4, 5)),
    "Pool": ((3,), (1, 7, 8)),
    "Unpool": ((2,), (3, 3, 4)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no step": {"delay_shift": False},
    "step": {"delay_shift": True},
    "delay": {"delay": True},
    "weight norm": {"weight_norm": True},
    "count": {"count_log": True},
}


@needs_lava
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", NEURONS)
def test_blocks(slayer: Any, kind: str, option: str) -> None:
    for name, (sizes, shape) in BLOCKS.items():
        if (kind, name) == ("adrf_iz", "ConvT"):
            continue  # lava-dl's block calls a class that is not there
        scale = 1 if name.endswith("ool") else 4
        make = getattr(getattr(slayer.block, kind), name)
        block = make(dict(NEURONS[kind]), *sizes, weight_scale=scale, **OPTIONS[option])
        same(block, *(spikes(2, *shape, 25, seed=seed, rate=0.4) for seed in (0, 1)))


@needs_lava
@pytest.mark.parametrize("mask", ["float", "bool", "weight norm"])
@pytest.mark.parametrize("kind", ["cuba", "rf", "sigma_delta"])
def test_masks(slayer: Any, kind: str, mask: str) -> None:
    """Under weight norm lava-dl's mask does nothing, and so it is here."""
    drawn = spikes(5, 6, rate=0.5)
    block = getattr(slayer.block, kind).Dense(
        dict(NEURONS[kind]), 6, 5, weight_scale=4, weight_norm=mask == "weight norm",
        mask=drawn.bool() if mask == "bool" else drawn,
    )  # fmt: skip
    same(block, spikes(2, 6, 25))


@needs_lava
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {}, {"persistent_state": True}, {"shared_param": False}, {"scale": 1 << 7},
        {"requires_grad": True}, {"shared_param": False, "persistent_state": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", NEURONS)
def test_neurons(slayer: Any, kind: str, change: dict[str, Any], image: bool, warm: bool) -> None:
    if image and "shared_param" in change and kind != "sigma_delta":
        pytest.skip("lava-dl's per-channel decays do not go over images")
    neuron = getattr(slayer.neuron, kind).Neuron(**(NEURONS[kind] | change))
    shape = (2, 3, 4, 5, 20) if image else (2, 4, 20)
    same(neuron, *(currents(kind, *shape, seed=seed) for seed in (0, 5, 9)), warm=warm)


@needs_lava
@pytest.mark.parametrize("scale", [100, 1 << 6])
def test_a_threshold_off_its_grid(slayer: Any, scale: int) -> None:
    neuron = slayer.neuron.cuba.Neuron(0.29, **DECAYS, scale=scale)
    neuron._threshold += 0.003
    same(neuron, currents("cuba", 2, 4, 30))
    assert so.convert(neuron).threshold == neuron.threshold


SYNAPSES: dict[str, list[tuple[tuple[Any, ...], tuple[int, ...]]]] = {
    "Dense": [((6, 5), (6,)), (((4, 3, 2), 5), (2, 3, 4)), (((2, 3, 2), 5), (2, 6, 7))],
    "Conv": [((2, 4, (3, 5), (1, 2), (2, 1), (2, 1), 2), (2, 9, 10))],
    "ConvTranspose": [((2, 4, (3, 2), 2, 1, 1, 2), (2, 4, 5))],
    # where the kernel does not divide the image, windows run as lava-dl has them
    "Pool": [((3,), (1, 7, 8)), (((3, 2),), (1, 8, 7)), ((2, 1), (1, 6, 6)), ((4,), (2, 6, 6))],
    "Unpool": [(((3, 2),), (3, 3, 4)), ((2, 3), (1, 3, 4))],
}


@needs_lava
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", SYNAPSES)
@pytest.mark.parametrize("family", ["layer", "complex"])
def test_synapses(slayer: Any, family: str, name: str, norm: bool) -> None:
    """Alone, with hooks of every origin."""
    quantise = slayer.utils.quantize_hook_fx
    hooks: list[Callable[..., Tensor]] = [
        so.quantize.q8, quantise, functools.partial(quantise, num_bits=4),
        slayer.neuron.cuba.Neuron(**CUBA).quantize_8bit,
    ]  # fmt: skip
    make = getattr(getattr(slayer.synapse, family), name)
    for sizes, shape in SYNAPSES[name]:
        for hook in hooks:
            synapse = make(*sizes, weight_scale=2, weight_norm=norm, pre_hook_fx=hook)
            same(synapse, spikes(2, *shape, 10))


@needs_lava
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("block", ["Recurrent", "KWTA"])
@pytest.mark.parametrize("kind", ["cuba", "alif"])
def test_loops_call_by_call(slayer: Any, kind: str, block: str, warm: bool) -> None:
    """lava-dl keeps voltages from call to call, and starts each from silence."""
    make = getattr(getattr(slayer.block, kind), block)
    sizes = (6, 5, 2) if block == "KWTA" else (6, 5)
    layer = make(dict(NEURONS[kind]), *sizes, weight_scale=4)
    same(layer, *(spikes(2, 6, 25, seed=seed, rate=0.4) for seed in range(3)), warm=warm)
    layer.neuron.persistent_state = False
    with pytest.raises(so.InputError, match="starts it afresh at every time step; set it to True"):
        so.convert(layer)


@needs_lava
def test_a_bias_that_quantises_to_more_than_nothing(slayer: Any) -> None:
    block = slayer.block.cuba.KWTA(CUBA | {"threshold": 16}, 6, 5, 1, weight_scale=8)
    assert bool(so.convert(block).bias.mean.any())
    same(block, spikes(2, 6, 40, rate=0.6))
    neuron = slayer.neuron.sigma_delta.Neuron(**NEURONS["sigma_delta"])
    neuron(currents("sigma_delta", 2, 3, 4, 5, 8))
    neuron.set_bias(spikes(3, 4, 5) / 4)
    same(neuron, currents("sigma_delta", 2, 3, 4, 5, 20))


@needs_lava
@pytest.mark.parametrize("change", [{}, {"shared_param": False}, {"persistent_state": True}])
@pytest.mark.parametrize("dynamics", [False, True])
def test_affine(slayer: Any, dynamics: bool, change: dict[str, Any]) -> None:
    block = slayer.block.cuba.Affine(CUBA | change, 6, 5, weight_scale=3, dynamics=dynamics)
    same(block, spikes(2, 6, 25), spikes(2, 6, 25, seed=1))
    assert block.neuron._threshold == (-1 if dynamics else None)  # as it was


@needs_lava
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_inputs_outputs_encoders(slayer: Any, persistent: bool, warm: bool) -> None:
    params = NEURONS["sigma_delta"] | {"persistent_state": persistent}
    pair = spikes(2, 6, 25), spikes(2, 6, 25, seed=1)
    same(slayer.block.sigma_delta.Output(dict(params), 6, 5, weight_scale=3), *pair, warm=warm)
    for more in ({"weight": 1.5, "bias": 0.25}, {"delay_shift": True, "count_log": True}):
        same(slayer.block.sigma_delta.Input(dict(params), **more), *pair, warm=warm)
    cuba = CUBA | {"persistent_state": persistent}
    same(slayer.block.cuba.Input(cuba, weight=1.5, bias=0.25), *pair, warm=warm)
    same(slayer.block.cuba.Input(None, delay_shift=False), *pair, warm=warm)
    same(slayer.axon.Delta(0.3, shared_param=False, persistent_state=persistent), *pair, warm=warm)
    same(slayer.dendrite.Sigma(persistent), *pair, warm=warm)
    same(slayer.axon.Delay(max_delay=62), *pair, warm=warm)


@needs_lava
def test_a_resonator_and_its_synapse_in_a_class_of_the_users(slayer: Any) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = slayer.synapse.complex.Dense(6, 5, weight_scale=4)
            self.neuron = slayer.neuron.rf.Neuron(**TURNS)
            self.synapse.pre_hook_fx = self.neuron.quantize_8bit

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.synapse(x))

    same(Network(), spikes(2, 6, 30))
