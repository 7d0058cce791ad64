"""A share of the right networks, and proof that the generator can fail."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import pytest
import right_networks as right

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, on what the networks do

#: the networks of these tests
SEEDS = range(30)
#: of these a share runs with every change; the others are of the same sweep
QUICK = 15
#: lists of steps whose time is the last axis; a stream of chunks of one length that cuts bins
REFUSED = {5, 24}


def _swept(seeds: Iterable[int]) -> list[object]:
    return [pytest.param(s, marks=[pytest.mark.slow] * (s >= QUICK)) for s in seeds]


@pytest.mark.parametrize("seed", _swept(SEEDS))
def test_a_right_network_is_called_equal(seed: int, request: pytest.FixtureRequest) -> None:
    if seed < QUICK:  # the others are compiled once more by verify
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


@pytest.mark.parametrize("seed", _swept([0, 1, 2, 4, 7, 9, 14, 15, 18, 19, 25]))
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
