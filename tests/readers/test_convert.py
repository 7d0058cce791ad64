"""``convert``: lava-dl's layers in a live module become ours, with stand-ins and with lava-dl."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lava_standins import standing_in
from torch import Tensor, nn

import synapse_onnx as so

TRAINED = Path(__file__).parents[3] / "shared" / "reference" / "trained"
DECAYS = {"current_decay": 0.25, "voltage_decay": 0.05}


@pytest.fixture
def lava() -> Iterator[SimpleNamespace]:
    """The stand-ins, by short names."""
    with standing_in() as modules:
        yield SimpleNamespace(
            synapse=modules["synapse.layer"],
            pairs=modules["synapse.complex"],
            cuba=modules["neuron.cuba"].Neuron,
            rf=modules["neuron.rf"].Neuron,
            delay=modules["axon.delay"].Delay,
            block=modules["block.cuba"],
            rf_block=modules["block.rf"],
            odd=modules["block.odd"].Odd,
            rate=modules["classifier"].Rate,
            bootstrap=modules["lava.lib.dl.bootstrap.block.cuba"].Dense,
        )


def spikes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < 0.4).float()


def dense(lava: Any, inputs: int = 6, outputs: int = 5, **more: Any) -> Any:
    neuron = lava.cuba(1.0, **DECAYS)
    synapse = lava.synapse.Dense(inputs, outputs, pre_hook_fx=neuron.quantize_8bit)
    synapse.weight.data *= 4
    return lava.block.Dense(neuron, synapse, **more)


def by_hand(old: Any, x: Tensor, shift: bool = True) -> Tensor:
    """What a dense CUBA block gives, of layers of ours with its weights."""
    synapse = so.synapse.Dense(*reversed(old.synapse.weight.shape[:2]), pre_hook_fx=so.quantize.q8)
    synapse.weight.data = old.synapse.weight.data
    y = so.neuron.cuba.Neuron(old.neuron._threshold, **DECAYS)(synapse(x))
    return so.axon.StepDelay()(y) if shift else y


class Users(nn.Module):
    """A class of the user's: blocks in a list, a layer used twice, forward() of their own."""

    def __init__(self, lava: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([dense(lava), dense(lava, 5, 5)])
        self.again = self.blocks[1]
        self.aside = [dense(lava, 5, 4)]  # torch does not know of it
        self.named = {"rate": lava.rate()}
        self.readout = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x)
        x = self.again(self.blocks[1](x) + x)
        return self.readout(self.named["rate"](self.aside[0](x)))


def test_layers_are_swapped_wherever_they_are(lava: Any) -> None:
    net = Users(lava).eval()
    before = list(net.modules())
    other = so.convert(net)
    assert type(other) is Users
    assert other.again is other.blocks[1]
    assert isinstance(other.blocks[0], so.block.cuba.Dense)
    assert isinstance(other.aside[0], so.block.cuba.Dense)
    x = spikes(2, 6, 30)
    first = by_hand(net.blocks[0], x)
    twice = by_hand(net.blocks[1], by_hand(net.blocks[1], first) + first)
    expected = net.readout(by_hand(net.aside[0], twice).mean(-1))
    for layer in (other.blocks[0], other.again, other.aside[0]):
        layer.reset() if hasattr(layer, "reset") else None
    with torch.no_grad():
        assert torch.equal(other(x), expected)
    assert float(first.detach().mean()) > 0.05
    # the given one is as it was
    assert list(net.modules()) == before
    with pytest.raises(RuntimeError, match="a stand-in does not run"):
        net(x)


def test_parameters_are_the_same_objects(lava: Any) -> None:
    net = Users(lava)
    other = so.convert(net)
    mine, theirs = dict(other.named_parameters()), dict(net.named_parameters())
    assert set(mine) == set(theirs)
    assert all(mine[name] is theirs[name] for name in mine)
    assert set(other.state_dict()) == set(net.state_dict())
    with torch.no_grad():
        net.blocks[0].synapse.weight.zero_()
        assert float(other.blocks[0](spikes(1, 6, 20)).sum()) == 0


def test_what_the_user_set_is_kept(lava: Any) -> None:
    net = nn.Sequential(dense(lava, mask=torch.ones(5, 6, 1, 1, 1)), dense(lava, 5, 5)).train()
    net[1].eval()
    net[1].neuron.tau_rho, net[1].neuron.scale_rho = 0.75, 2
    net[1].synapse.weight.requires_grad_(False)
    seen: list[Any] = []
    net[1].synapse.register_forward_hook(lambda module, args, output: seen.append(module))
    other = so.convert(net)
    assert [layer.training for layer in other] == [True, False]
    assert (other[1].neuron.tau_rho, other[1].neuron.scale_rho) == (0.75, 2)
    assert not other[1].synapse.weight.requires_grad
    assert other[1].synapse.pre_hook_fx.__self__ is other[1].neuron
    other(spikes(1, 6, 5))
    assert seen == [other[1].synapse]


@pytest.mark.parametrize("shared", [True, False])
def test_drawn_parameters_stay_and_others_are_drawn_later(lava: Any, shared: bool) -> None:
    block = dense(lava)
    neuron = block.neuron
    neuron.shared_param = shared
    if not shared:  # before its first input lava-dl's neuron holds the least of its range
        for name, value in DECAYS.items():
            setattr(neuron, f"{name}_min", value)
            setattr(neuron, f"{name}_max", 2 * value)
        other = so.convert(block)
        other(spikes(1, 6, 10))
        drawn = other.neuron.current_decay
        assert drawn.shape == (5,)
        assert bool((drawn >= 1024).all() and (drawn <= 2048).all())
        neuron.current_decay.data = torch.tensor([1024.0, 1200, 1500, 1800, 2000])
        neuron.voltage_decay.data = torch.full((5,), 204.0)
        neuron.shape = torch.Size([5])
    other = so.convert(block)
    other(spikes(1, 6, 10))
    assert other.neuron.current_decay is neuron.current_decay
    assert neuron.current_decay.numel() == (1 if shared else 5)


def test_states_go_on_where_they_were(lava: Any) -> None:
    """A voltage that was kept makes the same input spike earlier."""
    block = dense(lava, 6, 2)
    block.neuron.persistent_state = True
    fresh = so.convert(block)
    block.neuron.current_state = torch.tensor([[0.25, 0.125]])
    block.neuron.voltage_state = torch.tensor([[0.75, -2.5]])
    block.delay_buffer = torch.tensor([[1.0, 0.0]])
    other = so.convert(block)
    assert other.neuron.voltage_state.tolist() == [[3072, -10240]]
    assert other.neuron.voltage_state.dtype == torch.int64
    x = torch.zeros(1, 6, 1)
    assert other(x).flatten().tolist() == [1, 0]  # what the step delay held
    assert fresh(x).flatten().tolist() == [0, 0]


def test_complex_layers_images_and_delays(lava: Any) -> None:
    pair = lava.pairs.Dense(4, 3)
    for part in (pair.real, pair.imag):
        part.weight.data *= 30
    turns = lava.rf(0.2, sin_decay=0.6, cos_decay=0.6)
    net = nn.Sequential(
        lava.block.Pool(lava.cuba(4, **DECAYS), lava.synapse.Pool(2)),
        lava.block.Flatten(),
        lava.rf_block.Dense(turns, pair, delay=lava.delay([0.5, 3.0, 1.5])),
    )
    net[0].synapse.weight.data.fill_(1)
    other = so.convert(net).eval()
    assert other[0].synapse.merge_channels
    assert other[2].synapse.complex
    x = spikes(2, 1, 4, 4, 30) * spikes(2, 1, 4, 4, 30, seed=1)
    with torch.no_grad():
        pooled = so.axon.StepDelay()(
            so.neuron.cuba.Neuron(4, **DECAYS)(4 * nn.functional.avg_pool3d(x, (2, 2, 1)))
        )
        parts = [
            torch.einsum("oi,nit->not", w.weight[..., 0, 0, 0], pooled.flatten(1, 3))
            for w in (pair.real, pair.imag)
        ]
        neuron = so.neuron.rf.Neuron(0.2, period=8, decay=0.1)
        for name in ("sin_decay", "cos_decay"):
            getattr(neuron, name).data.fill_(0.6 * 4096)
        late = so.axon.StepDelay()(neuron(tuple(parts)))
        expected = [
            nn.functional.pad(late[:, i], (d, 0))[..., :30] for i, d in enumerate((0, 3, 1))
        ]
        output = other(x)
    assert torch.equal(output, torch.stack(expected, 1))
    assert float(output.mean()) > 0.01
    model = so.export(other, x)
    assert so.verify(other, model, x).ok


def test_a_layer_alone_and_hooks_of_all_kinds(lava: Any) -> None:
    layer = lava.synapse.Dense(3, 2, pre_hook_fx=torch.sign)
    other = so.convert(layer)
    assert isinstance(other, so.synapse.Dense)
    assert other.weight is layer.weight
    assert other.pre_hook_fx is torch.sign
    neuron = lava.cuba(1.0, **DECAYS)
    both = nn.ModuleDict({"synapse": lava.synapse.Dense(3, 2), "neuron": neuron})
    both["synapse"]._pre_hook_fx = neuron.quantize_8bit
    swapped: Any = so.convert(both)
    assert swapped["synapse"].pre_hook_fx.__self__ is swapped["neuron"]


def test_a_class_that_derives_from_a_layer(lava: Any) -> None:
    class Named(lava.block.Dense):  # type: ignore[misc]
        """Nothing is overridden that matters."""

        label = "named"

    class Noisy(lava.block.Dense):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.synapse(x)) * 2

    plain = dense(lava)
    named = so.convert(Named(plain.neuron, plain.synapse))
    assert isinstance(named, so.block.cuba.Dense)
    noisy = so.convert(Noisy(plain.neuron, plain.synapse))
    assert type(noisy) is Noisy  # its own forward, on layers of ours
    x = spikes(1, 6, 20)
    assert torch.equal(noisy(x), 2 * by_hand(plain, x, shift=False))

    class Wrong(lava.synapse.Dense):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(
        so.InputError, match=r"0 is a .*Wrong, which overrides forward, which the conv"
    ):
        so.convert(nn.Sequential(Wrong(2, 2)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda lava: nn.Linear(2, 2), "no layer of lava-dl, .* in this Linear; layers are recog"),
        (lambda lava: nn.Sequential(lava.odd()), "0 is a lava.lib.dl.slayer.block.odd.Odd, which"),
        (lambda lava: lava.odd(), "the module is a .*Odd, which has no counterpart here"),
        (lambda lava: lava.bootstrap(), "bootstrap.block.cuba.Dense, which has no counterpart"),
    ],
)
def test_what_cannot_be_converted_is_said(lava: Any, make: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence) as caught:
        so.convert(make(lava))
    assert "\n" not in str(caught.value)


def test_a_module_of_ours_is_copied(lava: Any) -> None:
    net = nn.Sequential(so.synapse.Dense(2, 2))
    other = so.convert(net)
    assert other is not net
    assert other[0].weight is net[0].weight


def test_converting_draws_no_random_numbers(lava: Any) -> None:
    net = Users(lava)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    so.convert(net)
    assert torch.equal(torch.rand(3), expected)


# -- the real lava-dl ----------------------------------------------------------------------------

SOURCE = os.environ.get("LAVA_DL", "")
needs_lava = pytest.mark.skipif(not SOURCE, reason="LAVA_DL does not name lava-dl's source folder")

TURNS = {"threshold": 0.2, "period": 8, "decay": 0.1}
ADAPTS = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.1}
NEURONS: dict[str, dict[str, Any]] = {
    "cuba": {"threshold": 1, **DECAYS},
    "alif": {"threshold": 0.3, **DECAYS, **ADAPTS},
    "rf": TURNS,
    "rf_iz": TURNS,
    "adrf": TURNS | ADAPTS,
    "sigma_delta": {"threshold": 0.1, "activation": torch.relu},
    # forward() of adrf_iz raises in lava-dl itself
}
#: name of a block -> its arguments behind the neuron's, and the shape of its input
BLOCKS: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "Dense": ((6, 5), {"weight_scale": 3, "delay": True}, (6,)),
    "Dense, weight norm": ((6, 5), {"weight_scale": 3, "weight_norm": True}, (6,)),
    "Conv": ((2, 3, 3), {"weight_scale": 3, "stride": 2, "padding": 1}, (2, 7, 8)),
    "ConvT": ((2, 4, 3), {"weight_scale": 3, "stride": 2, "groups": 2}, (2, 4, 5)),
    # a kernel of 3 on 8 columns: lava-dl's own arithmetic
    "Pool": ((3,), {}, (3, 6, 7)),
    "Unpool": ((2,), {}, (3, 3, 4)),
}


@pytest.fixture(scope="module")
def slayer() -> Iterator[ModuleType]:
    sys.path.insert(0, SOURCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield importlib.import_module("lava.lib.dl.slayer")
        except ImportError as error:
            pytest.skip(f"lava-dl in LAVA_DL cannot be imported: {error}")
        finally:
            sys.path.remove(SOURCE)


def same(old: nn.Module, *inputs: Any) -> Tensor:
    """Compare a module of lava-dl with its conversion, in torch and in ONNX Runtime."""
    old.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = old(*inputs)
        new = so.convert(old)
        for layer in new.modules():
            if callable(getattr(layer, "reset", None)):
                layer.reset()
        output = new(*inputs)
    assert torch.equal(output, expected)
    assert float(expected.abs().sum()) > 0
    model = so.export(new, list(inputs))
    np.testing.assert_array_equal(
        so.Session(model).run(*(x.numpy() for x in inputs)), expected.numpy()
    )
    return expected


@needs_lava
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", NEURONS)
def test_every_block_of_lava_dl(slayer: Any, kind: str, block: str) -> None:
    torch.manual_seed(0)
    args, more, shape = BLOCKS[block]
    namespace = getattr(slayer.block, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about lava-dl's weight norm
        old = getattr(namespace, block.partition(",")[0])(dict(NEURONS[kind]), *args, **more)
    same(old, spikes(2, *shape, 30))


@needs_lava
@pytest.mark.parametrize("kind", ["cuba", "alif"])
@pytest.mark.parametrize("block", ["Recurrent", "KWTA", "Affine", "Input"])
def test_further_blocks_of_lava_dl(slayer: Any, kind: str, block: str) -> None:
    if block == "Affine" and kind == "alif":
        pytest.skip("lava-dl has no Affine block of alif")
    torch.manual_seed(1)
    namespace, more = getattr(slayer.block, kind), {}
    args: tuple[Any, ...] = (6, 5, 2) if block == "KWTA" else (6, 5)
    if block == "Input":
        args, more = (), {"weight": 1.5, "bias": 0.25}
    if block in ("Recurrent", "KWTA"):
        more = {"weight_scale": 3}
    same(getattr(namespace, block)(dict(NEURONS[kind]), *args, **more), spikes(2, 6, 30))


@needs_lava
@pytest.mark.parametrize("norm", ["MeanOnlyBatchNorm", "WgtScaleBatchNorm"])
@pytest.mark.parametrize("kind", ["cuba", "alif", "rf", "adrf", "sigma_delta"])
def test_norms_and_dropout_of_lava_dl(slayer: Any, kind: str, norm: str) -> None:
    torch.manual_seed(2)
    params = NEURONS[kind] | {
        "norm": getattr(slayer.neuron.norm, norm),
        "dropout": slayer.neuron.Dropout(0.2),
    }
    old = getattr(slayer.block, kind).Dense(params, 6, 5, weight_scale=4).train()
    for seed in range(4):
        old(spikes(4, 6, 20, seed=seed))
    same(old, spikes(2, 6, 30))


@needs_lava
@pytest.mark.parametrize("kind", ["cuba", "alif"])
def test_lava_dl_in_mid_sequence(slayer: Any, kind: str) -> None:
    """Half a sequence in lava-dl, the other half in ours: the whole sequence."""
    torch.manual_seed(3)
    params = NEURONS[kind] | {"persistent_state": True, "shared_param": False}
    block = getattr(slayer.block, kind).Dense(params, 6, 5, weight_scale=3).eval()
    x = spikes(2, 6, 40)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block(x[..., :17])
        other = so.convert(block)
        assert torch.equal(other(x[..., 17:]), block(x[..., 17:]))


@needs_lava
def test_a_network_of_lava_dl_in_a_class_of_the_users(slayer: Any) -> None:
    torch.manual_seed(4)
    params = NEURONS["cuba"]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            blocks = slayer.block.cuba
            self.first = blocks.Conv(dict(params), 2, 4, 3, padding=1, weight_scale=3)
            self.second = blocks.Conv(dict(params), 4, 4, 3, padding=1, weight_scale=3)
            self.rest = [blocks.Flatten(), blocks.Dense(dict(params), 100, 10, weight_scale=2)]
            self.kept = nn.ModuleList(self.rest)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x = self.second(x) + x
            for layer in self.rest:
                x = layer(x)
            return x

    same(Network(), spikes(2, 2, 5, 5, 25))


# -- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.skipif(not TRAINED.is_dir(), reason=f"trained networks are not in {TRAINED}")
def test_oxfords_checkpoint_in_our_blocks() -> None:
    """A checkpoint of lava-dl through blocks of ours: every recorded spike."""
    params = {"threshold": 0.1, "current_decay": 1, "voltage_decay": 0.1, "requires_grad": True}
    net = nn.Module()
    net.blocks = nn.ModuleList(
        [
            so.block.cuba.Dense(params, 200, 256),
            so.block.cuba.Dense(params, 256, 200),
        ]
    )
    state = torch.load(TRAINED / "oxford" / "network.pt", map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    net.eval()
    recorded = np.load(TRAINED / "oxford" / "recorded.npz")
    x = torch.from_numpy(recorded["input"].astype(np.float32))[None]
    with torch.no_grad():
        output = net.blocks[0](x)[0].numpy()
    # one step later, as lava's synapse takes one step too
    np.testing.assert_array_equal(output, recorded["layer0"])
    assert recorded["layer0"].sum() > 1000
    both = nn.Sequential(*net.blocks)
    model = so.export(both, x[..., :16])
    with torch.no_grad():
        expected = both(x).numpy()
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
    # and what the .net file of the same network says, in Loihi's arithmetic
    loihi = so.load_net(TRAINED / "oxford" / "network.net", delay_shift=True)
    with torch.no_grad():
        np.testing.assert_array_equal(loihi(x).numpy(), expected)
