"""Properties of operators: each row against ONNX's reference evaluator, or its schema."""

from __future__ import annotations

import types

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from synapse_onnx.model import operators
from synapse_onnx.model.operators import FLOAT32_EXACT, Operator, operator_of

ROWS = operators._OPERATORS


def row(name: str, domain: str = "") -> Operator:
    return operator_of(types.SimpleNamespace(op_type=name, domain=domain))


def test_every_row_is_an_operator_of_onnx() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(ROWS) <= names
    assert list(ROWS) == sorted(ROWS)


def test_an_operator_without_a_row_has_no_property() -> None:
    assert row("MatMul") == row("Add", "com.microsoft") == Operator(False, False, False)
    assert row("Add") != row("MatMul")


def node(name: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    """An operator on arrays of shape (2, 2, 4), with its other inputs and attributes."""
    rng = np.random.default_rng(0)
    schema = onnx.defs.get_schema(name, 21)
    data = rng.integers(1, 9, (2, 2, 4)).astype(np.float32)
    if name in ("And", "Or", "Xor", "Not"):
        data = data > 4
    others = {
        "Clip": [np.float32(2), np.float32(5)],
        "Expand": [np.array([3, 1, 1, 1])],
        "Gather": [np.array([1, 0])],
        "GatherElements": [rng.integers(0, 2, data.shape)],
        "GatherND": [np.array([[0, 1], [1, 1]])],
        "Reshape": [np.array([4, -1])],
        "Slice": [np.array([1]), np.array([2])],
        "Split": [],
        "Squeeze": [],
        "Tile": [np.array([1, 2, 1])],
        "Unsqueeze": [np.array([0])],
        "Where": [data + 1, data],
    }
    attributes = {
        "Cast": {"to": onnx.TensorProto.INT32},
        "Concat": {"axis": 1},
        "DepthToSpace": {"blocksize": 2},
        "MaxPool": {"kernel_shape": [2]},
        "Mod": {"fmod": 1},
        "SpaceToDepth": {"blocksize": 2},
        "Split": {"num_outputs": 2},
        "Transpose": {"perm": [2, 0, 1]},
    }
    if name == "DepthToSpace":
        data = np.concatenate([data, data + 9]).reshape(1, 8, 2, 2)
    if name == "SpaceToDepth":
        data = data.reshape(1, 1, 4, 4)
    if name == "Where":
        inputs = [data > 4, *others[name]]
    elif name in others:
        inputs = [data, *others[name]]
    else:
        count = min(max(schema.min_input, 1), 2) if schema.max_input < 9 else 2
        inputs = [data, *([data[::-1].copy()] if count > 1 else [])]
    feeds = {f"i{i}": value for i, value in enumerate(inputs)}
    outputs = ["y", "z"] if name == "Split" else ["y"]
    return onnx.helper.make_node(name, list(feeds), outputs, **attributes.get(name, {})), feeds


def run(made: onnx.NodeProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    graph = onnx.helper.make_graph(
        [made],
        "g",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in feeds.items()
        ],
        [onnx.helper.make_tensor_value_info("y", 0, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(["y"], feeds)[0]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.elementwise])
def test_an_element_wise_operator_commutes_with_a_transpose(name: str) -> None:
    made, feeds = node(name)
    turned = {
        key: np.transpose(value, (2, 0, 1)) if value.ndim else value for key, value in feeds.items()
    }
    found = run(made, feeds)
    assert found.shape == feeds["i0"].shape
    np.testing.assert_array_equal(run(made, turned), np.transpose(found, (2, 0, 1)))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.copies])
def test_an_operator_that_copies_gives_elements_of_its_data(name: str) -> None:
    made, feeds = node(name)
    data = feeds if ROWS[name].joins else {"i0": feeds["i0"]}
    found = run(made, feeds)
    assert found.dtype == feeds["i0"].dtype
    assert found.size
    assert set(found.ravel()) <= {element for array in data.values() for element in array.ravel()}


def test_only_operators_of_many_inputs_join() -> None:
    for name, properties in ROWS.items():
        if properties.joins:
            assert properties.copies
            assert onnx.defs.get_schema(name, 21).max_input > 9


def test_float32_holds_every_integer_up_to_24_bits() -> None:
    assert FLOAT32_EXACT == 16_777_216
    whole = np.arange(FLOAT32_EXACT - 3, FLOAT32_EXACT + 1)
    np.testing.assert_array_equal(whole.astype(np.float32).astype(np.int64), whole)
    assert int(np.float32(FLOAT32_EXACT + 1)) != FLOAT32_EXACT + 1
