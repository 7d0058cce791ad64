"""A share of the right networks, and proof that the generator can fail."""

from __future__ import annotations

import onnx
import pytest
import right_networks as right

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, on what the networks do

#: the networks of these tests
SEEDS = range(15)
#: what verify compiles once more, as it does for users
ANEW = {1, 14}
#: lists of steps whose time is the last axis
REFUSED = {5}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_network_is_called_equal(seed: int, request: pytest.FixtureRequest) -> None:
    if seed not in ANEW:
        request.getfixturevalue("compiled_once")
    drawn = right.draw(seed)
    verdict = right.judge(drawn)
    assert verdict.kind == ("refused" if seed in REFUSED else "equal"), f"{drawn}\n{verdict.why}"


def _one_weight(model: onnx.ModelProto) -> None:
    """Change one weight of the first layer, as a file that went wrong would have it."""
    weights = (t for t in model.graph.initializer if t.name.endswith("weight"))
    tensor = next(weights, None)
    assert tensor is not None, "choose seeds with a layer of ours"
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 7, 9, 14])
@pytest.mark.usefixtures("compiled_once")
def test_a_wrong_weight_is_not_called_equal(seed: int) -> None:
    drawn = right.draw(seed)
    verdict = right.judge(drawn, _one_weight)
    assert verdict.kind == "FALSE ALARM", str(drawn)


def test_the_table_counts_by_structure() -> None:
    table = right.Table()
    drawn = right.draw(0)
    table.add(drawn, right.Verdict("equal"))
    table.add(drawn, right.Verdict("FOREIGN EXCEPTION", "KeyError: 'x'"))
    assert [verdict.why for _, verdict in table.wrong] == ["KeyError: 'x'"]
    rows = {line.split("  ")[0]: line.split()[-2:] for line in str(table).splitlines()}
    assert rows[drawn.structures[0]] == ["1", "1"]


def test_sentences_of_the_tracer_are_not_clear() -> None:
    said = "the module cannot be traced in module 'a': RuntimeError: see TORCH_LOGS"
    assert right.judge_sentence(said).kind == "UNCLEAR"
    said = "the exported model does not pass onnx.checker: Graph must be in SSA form"
    assert right.judge_sentence(said).kind == "UNCLEAR"
    assert right.judge_sentence("output 0 has no time; return (N, C, T)").kind == "refused"
