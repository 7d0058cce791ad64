"""Blocks: what they are made of, what they take, what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnx
import pytest
import torch
from networks import assert_exact, spikes
from neurons import EQUATIONS, KINDS, RESONATORS, example
from torch import nn

import synapse_onnx as so

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("compiled_once")]
CUBA = example("cuba")


# -- every neuron has its blocks ---------------------------------------------------------------


def test_every_neuron_has_blocks() -> None:
    common = {"Input", "Dense", "Conv", "ConvT", "Pool", "Unpool", "Flatten", "Average",
              "TimeDecimation"}  # fmt: skip
    for kind in KINDS:
        extra = {"Output"} if kind == "sigma_delta" else {"Affine", "Recurrent", "KWTA"}
        assert set(getattr(so.block, kind).__all__) == common | extra
    with pytest.raises(AttributeError, match="blocks are made for: adrf, adrf_iz, alif, cuba"):
        _ = so.block.izhikevich
    with pytest.raises(AttributeError, match=r"sigma_delta has no KWTA; the blocks .* Average, Co"):
        _ = so.block.sigma_delta.KWTA


def test_blocks_can_be_imported_pickled_and_copied() -> None:
    import synapse_onnx.block.cuba as blocks

    block = blocks.Dense(CUBA, 4, 3, delay=True)
    x = spikes(2, 4, 9)
    y = block(x)
    assert type(block).__module__ == "synapse_onnx.block.cuba"
    for other in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
        assert torch.equal(other(x), y)


@pytest.mark.parametrize("kind", KINDS)
def test_images_through_every_synapse(kind: str) -> None:
    torch.manual_seed(3)
    blocks, given = getattr(so.block, kind), example(kind)
    if kind != "sigma_delta":
        given["shared_param"] = False  # a parameter a channel, over images too
    pools = [blocks.Pool(given, 2), blocks.Unpool(given, 2)]
    transposed = [blocks.ConvT(given, 4, 4, 3, padding=1, weight_scale=3)]
    # all blocks with a real, a complex and a graded neuron; the others are made of the same parts
    every = kind in ("cuba", "rf", "sigma_delta")
    odd = [*KINDS].index(kind) % 2 == 1
    network = nn.Sequential(
        blocks.Conv(given, 2, 4, 3, padding=1, weight_scale=3, delay=True),
        *(pools if every or odd else []),
        *(transposed if every or not odd else []),
        blocks.Flatten(),
        blocks.Dense(given, 64, 6, weight_scale=8, weight_norm=True),
        blocks.Average(3),
    )
    x = spikes(2, 2, 4, 4, 24, rate=0.5)
    assert float(network(x).detach().abs().sum()) > 0
    if kind == "sigma_delta":  # graded messages: sums of reals
        report = so.verify(network.eval(), so.export(network, x), x)
        assert report.ok, str(report)
    else:
        assert_exact(network, x)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sigma_delta"])
def test_the_float_regime(kind: str) -> None:
    torch.manual_seed(4)
    blocks, given = getattr(so.block, kind), example(kind, regime="float")
    network = nn.Sequential(
        blocks.Dense(given, 12, 10, weight_scale=2, delay=True),
        blocks.Recurrent(given, 10, 8, weight_scale=2),
        blocks.Affine(given, 8, 3),
    )
    x = spikes(2, 12, 30, rate=0.4)
    network(x)
    report = so.verify(network.eval(), so.export(network, x), x)
    assert report.ok, str(report)
    assert any(row.spike_flips is not None and row.values for row in report.layers)


# -- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "norm"),
    [(kind, ("MeanOnlyBatchNorm", "WgtScaleBatchNorm")[i % 2]) for i, kind in enumerate(KINDS)],
)
def test_norms_are_part_of_the_neuron(kind: str, norm: str) -> None:
    torch.manual_seed(0)
    given = example(kind, norm=getattr(so.neuron.norm, norm))
    network = nn.Sequential(getattr(so.block, kind).Dense(given, 12, 6, weight_scale=2))
    for _ in range(3):
        network(spikes(4, 12, 20, rate=0.4))
    neuron = network[0].neuron
    norms = [module for module in neuron.children() if hasattr(module, "running_mean")]
    assert len(norms) == (2 if kind in RESONATORS else 1)
    assert all(float(each.running_mean.abs().sum()) > 0 for each in norms)
    assert norms[0].running_mean.shape == (6,)
    x = spikes(2, 12, 20, rate=0.4)
    assert_exact(network, x)
    with torch.no_grad():
        assert torch.equal(so.freeze(network)(x), network(x))
    fresh = nn.Sequential(getattr(so.block, kind).Dense(given, 12, 6, weight_scale=2))
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), network(x))


def test_pools_leave_a_norm_out() -> None:
    given = {**CUBA, "norm": so.neuron.norm.MeanOnlyBatchNorm}
    assert so.block.cuba.Pool(given, 2).neuron.norm is None
    assert given["norm"] is not None  # the caller's own


def test_dropout_is_for_training_alone() -> None:
    given = {**CUBA, "dropout": so.neuron.dropout.Dropout(1.0)}
    block = so.block.cuba.Dense(given, 12, 6, weight_scale=3)
    x = spikes(2, 12, 20, rate=0.4)
    assert float(block(x).detach().sum()) == 0
    assert_exact(nn.Sequential(block), x)
    assert float(block(x).detach().sum()) > 0


@pytest.mark.parametrize("kind", ["cuba", "rf"])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_a_mask_cuts_synapses_off(kind: str, weight_norm: bool) -> None:
    torch.manual_seed(0)  # no weight that is kept may round to zero
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    block = getattr(so.block, kind).Dense(
        example(kind), 4, 3, weight_scale=5, weight_norm=weight_norm, mask=mask
    )
    parts = [block.synapse.real, block.synapse.imag] if kind == "rf" else [block.synapse]
    x = spikes(2, 4, 30, rate=0.6).requires_grad_()
    block(x).sum().backward()
    for part in parts:
        assert torch.equal(part.effective_weight[..., 0, 0, 0] != 0, mask.bool())
        weight = part.weight_v if weight_norm else part.weight
        assert float((weight.grad[..., 0, 0, 0] * (1 - mask)).abs().sum()) == 0 or weight_norm
    assert_exact(nn.Sequential(block), x.detach())
    assert "mask" in block.state_dict()
    with pytest.raises(so.ShapeError, match=r"mask must be a tensor of shape \(3, 4\)"):
        so.block.cuba.Dense(CUBA, 4, 3, mask=torch.ones(4, 3))


def test_the_spike_rate_is_logged() -> None:
    block = so.block.cuba.Dense(CUBA, 4, 3, weight_scale=5, count_log=True).eval()
    x = spikes(2, 4, 30, rate=0.6)
    y, rate = block(x)
    assert float(rate) == pytest.approx(float((y > 0).float().mean()))
    assert so.block.cuba.Average(1, count_log=True)(y)[1] is None
    found = so.Session(so.export(block, x)).run(x.numpy())
    assert np.array_equal(found[0], y.detach().numpy())
    assert found[1] == pytest.approx(float(rate))


def test_hooks_quantise_unless_none_is_given() -> None:
    weight = so.block.cuba.Dense(CUBA, 4, 3).synapse.effective_weight * 32
    assert torch.equal(weight, weight.round())
    plain = so.block.cuba.Dense(CUBA, 4, 3, pre_hook_fx=None).synapse
    assert torch.equal(plain.effective_weight, plain.weight)


@pytest.mark.parametrize("shift", [True, False])
def test_layers_send_one_step_later(shift: bool) -> None:
    torch.manual_seed(0)
    block = so.block.cuba.Dense(CUBA, 12, 6, weight_scale=3, delay_shift=shift)
    x = spikes(2, 12, 20, rate=0.4)
    sent = block.neuron(block.synapse(x))
    block.neuron.reset()
    expected = torch.cat([torch.zeros_like(sent[..., :1]), sent[..., :-1]], -1) if shift else sent
    assert torch.equal(block(x), expected)
    sigma_delta = so.block.sigma_delta.Dense(example("sigma_delta"), 4, 3)
    assert sigma_delta.step is None


def test_an_input_is_transformed_and_encoded() -> None:
    x = torch.rand(2, 3, 20, generator=torch.Generator().manual_seed(0))
    block = so.block.cuba.Input(CUBA, weight=1.3, bias=-0.2, delay_shift=False)
    q8 = block.neuron.quantize_8bit
    current = q8(x) * q8(torch.tensor(1.3)) + q8(torch.tensor(-0.2))
    assert torch.equal(block(x), so.neuron.cuba.Neuron(**CUBA)(current))
    assert block.shape == (3,)
    assert torch.equal(so.block.cuba.Input(delay_shift=False)(x), x)
    found = so.Session(so.export(block.eval(), x)).run(x.numpy())
    np.testing.assert_array_equal(found, block(x).detach().numpy())
    pair = so.block.rf.Input(example("rf"), weight=2.0)
    assert pair((x, x)).shape == x.shape


@pytest.mark.parametrize("bits", [4, 8])
def test_narrow_weights_are_stored_as_such(bits: int) -> None:
    """The recurrent and the complex ones too: int4 where the hook's grid has no more."""
    torch.manual_seed(0)
    hook = so.quantize.Quantizer(scale=16 if bits == 4 else 64, bits=bits)
    x = spikes(2, 12, 20, rate=0.4)
    for kind in ("cuba", "rf"):
        blocks, given = getattr(so.block, kind), example(kind)
        network = nn.Sequential(
            blocks.Dense(given, 12, 16, weight_scale=3, pre_hook_fx=hook),
            blocks.Recurrent(given, 16, 12, weight_scale=3, pre_hook_fx=hook),
        )
        assert_exact(network, x)
        model = so.export(network, x)
        wanted = onnx.TensorProto.INT4 if bits == 4 else onnx.TensorProto.INT8
        stored = {
            tensor.name: tensor.data_type
            for tensor in model.graph.initializer
            if tensor.name.endswith("weight")
        }
        assert len(stored) == (6 if kind == "rf" else 3)
        assert set(stored.values()) == {wanted}


def test_recurrent_keeps_its_last_spikes() -> None:
    torch.manual_seed(1)
    given = {**CUBA, "persistent_state": True}
    block = so.block.cuba.Recurrent(given, 12, 8, weight_scale=3, delay_shift=False).eval()
    x = spikes(2, 12, 30, rate=0.4)
    with torch.no_grad():
        whole = block(x)
        block.neuron.reset()
        parts = torch.cat([block(chunk) for chunk in x.split([11, 19], -1)], -1)
    assert torch.equal(whole, parts)
    assert torch.equal(block.neuron.spikes_state, whole[..., -1])
    other = so.block.cuba.Recurrent(CUBA, 12, 8)
    other.load_state_dict({**block.state_dict(), "spike_state": torch.zeros(2, 8)})


def test_the_recurrent_product_stands_in_the_loop() -> None:
    block = so.block.cuba.Recurrent(CUBA, 12, 8, weight_scale=3).eval()
    model = so.export(block, spikes(2, 12, 9))
    body = next(f for f in model.functions if f.name == "RecurrentCuba")
    (scan,) = (node for node in body.node if node.op_type == "Scan")
    inner = [node.op_type for node in scan.attribute[0].g.node] or [
        node.op_type for a in scan.attribute for node in a.g.node
    ]
    assert inner.count("MatMul") == 1
    assert sum(node.op_type == "RecurrentCuba" for node in model.graph.node) == 1


@pytest.mark.parametrize("kind", EQUATIONS)
def test_winners_keep_the_others_silent(kind: str) -> None:
    torch.manual_seed(0)
    block = getattr(so.block, kind).KWTA(example(kind), 10, 6, num_winners=2, weight_scale=2)
    x = spikes(3, 10, 60, rate=0.6)
    y = block.eval()(x).detach()
    assert y.sum() > 0
    lateral = block.lateral.real if kind in RESONATORS else block.lateral
    weight = lateral.effective_weight[..., 0, 0, 0].detach()
    assert torch.equal(weight.diagonal(), torch.full((6,), 0.5))
    assert torch.equal(weight - torch.diag(weight.diagonal()), torch.eye(6) - 1)
    if kind in RESONATORS:
        assert torch.count_nonzero(block.lateral.imag.effective_weight) == 0
    assert set(block.state_dict()) == {
        "self_excitation",
        *(f"synapse.{name}" for name in block.synapse.state_dict()),
        *(f"neuron.{name}" for name in block.neuron.state_dict()),
    }
    assert_exact(nn.Sequential(block), x)
    for other in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
        assert torch.equal(other(x), y)
        other.self_excitation.data.fill_(1)  # its lateral weights are its own
        assert not torch.equal(other(x), y)
    assert torch.equal(block(x), y)


def test_winners_are_a_number_of_neurons() -> None:
    with pytest.raises(so.InputError, match="num_winners must be 1 to 6, got 7"):
        so.block.cuba.KWTA(CUBA, 10, 6, 7)
    with pytest.raises(so.InputError, match=r"self_excitation must lie in \[0, 1\]"):
        so.block.cuba.KWTA(CUBA, 10, 6, 2, self_excitation=1.5)


@pytest.mark.parametrize("kind", ["cuba", "rf"])
def test_an_affine_block_without_dynamics_is_its_synapse(kind: str) -> None:
    given = example(kind, shared_param=False)
    block = getattr(so.block, kind).Affine(given, 4, 3, dynamics=False).eval()
    x = spikes(2, 4, 9)
    z = block.synapse(x)
    assert torch.equal(block(x), z[1] if kind == "rf" else z)
    assert_exact(nn.Sequential(block), x)


def test_blocks_refuse_what_does_not_fit() -> None:
    blocks = so.block.cuba
    with pytest.raises(so.InputError, match="factor must be a power of two, got 3"):
        blocks.TimeDecimation(3)
    with pytest.raises(so.ShapeError, match=r"5 neurons, which do not make 2 equal groups"):
        blocks.Average(2)(torch.zeros(1, 5, 4))
    with pytest.raises(so.ShapeError, match=r"Flatten: expected \(N, C, H, W, T\)"):
        blocks.Flatten()(torch.zeros(1, 5, 4))
    with pytest.raises(so.InputError, match="neuron_params must be a mapping"):
        blocks.Dense(4, 3, 2)
    with pytest.raises(so.InputError, match=r"feedback goes with no norm"):
        blocks.Recurrent({**CUBA, "norm": so.neuron.norm.MeanOnlyBatchNorm}, 4, 3)
    with pytest.raises(so.ShapeError, match=r"got one real tensor|expected 4 input"):
        blocks.Dense(CUBA, 4, 3)(torch.zeros(1, 5, 4))
