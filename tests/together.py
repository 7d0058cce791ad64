"""One export of many modules.

Most of an export is work that ``torch.onnx.export`` does anew at every call, however small the
network: torch 2.13 reads its table of some 500 translations (half a second) and builds its table of
decompositions (a quarter). The modules of several tests are therefore branches of one network,
which is exported once. Each branch has its own inputs and outputs, so a fault shows in its own
outputs only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx
from torch import Tensor, nn

import synapse_onnx as so

T = TypeVar("T")


@dataclass(frozen=True)
class Branch:
    """A module, its example inputs, and how many tensors it returns."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: int = 1


class Network(nn.Module):
    """Calls every branch with its share of the inputs, and returns all outputs."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([branch.module for branch in branches])
        self.counts = [len(branch.inputs) for branch in branches]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        results: list[Tensor] = []
        for branch, share in zip(self.branches, _split(inputs, self.counts), strict=True):
            result = branch(*share)
            results += result if isinstance(result, tuple) else (result,)
        return tuple(results)


@dataclass(frozen=True)
class Together:
    """A model of several branches."""

    model: onnx.ModelProto
    branches: tuple[Branch, ...]

    @property
    def arrays(self) -> list[Any]:
        """The example inputs of all branches, as arrays in the order of the model's inputs."""
        return [x.numpy() for branch in self.branches for x in branch.inputs]

    def by_branch(self, outputs: Any) -> dict[str, tuple[Any, ...]]:
        """Split the outputs of one run of the model among the branches."""
        values = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
        counts = [branch.outputs for branch in self.branches]
        names = [branch.name for branch in self.branches]
        return dict(zip(names, _split(values, counts), strict=True))


def export(branches: Sequence[Branch], **options: Any) -> Together:
    """Export several modules as one network; options are those of ``so.export``."""
    inputs = [x for branch in branches for x in branch.inputs]
    return Together(so.export(Network(branches), inputs, **options), tuple(branches))


def groups(
    items: Iterable[T],
    *,
    alike: Callable[[T], Hashable],
    apart: Callable[[T], Hashable],
    most: int = 12,
) -> list[list[T]]:
    """Divide items into groups that are exported together.

    Args:
        items: what is exported.
        alike: equal for all items of a group, say the batch size and the number of steps.
        apart: different for all items of a group. A model has one function of each op, whose body
            follows from all nodes of that op: an op that occurs once has the body that it has in a
            model by itself.
        most: most items of a group.
    """
    found: list[tuple[Hashable, set[Hashable], list[T]]] = []
    for item in items:
        key, mark = alike(item), apart(item)
        for other, marks, group in found:
            if other == key and mark not in marks and len(group) < most:
                marks.add(mark)
                group.append(item)
                break
        else:
            found.append((key, {mark}, [item]))
    return [group for _, _, group in found]


def _split(values: Sequence[T], counts: Sequence[int]) -> list[tuple[T, ...]]:
    shares, begin = [], 0
    for count in counts:
        shares.append(tuple(values[begin : begin + count]))
        begin += count
    assert begin == len(values), "values without a branch"
    return shares
