"""Places of boxes and lines: ranks from top to bottom, columns from left to right.

A box's rank is its longest path from a source; a source is just above its first taker. A box
has the column of what it takes from, so a chain is straight; of several that want one column, the
one with the longest path ahead gets it, and the others get the nearest. A value that passes ranks
has a column there as well, one for all its takers, so no line crosses a box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter

from synapse_onnx.report._boxes import Box

#: least distance between two columns
_APART = 22.0
#: height below a rank that is kept free of curves, for the labels of the lines
_STUB = 20.0
#: least and largest height of the curves between two ranks, and what a curve's width adds
_LOW, _HIGH, _SLOPE = 26.0, 110.0, 0.1

Point = tuple[float, float]


class Layout:
    """Places of boxes and lines; sets ``x`` and ``y`` of the boxes, and the order of their outlets.

    Args:
        boxes: by their keys.
        lines: (key of the box that returns it, value, key of the box that takes it).

    Attributes:
        routes: where each line begins, turns and ends, from top to bottom: it is vertical where two
            points share x, else a curve.
        width: of the whole.
        height: of the whole.

    Raises:
        ValueError: the lines go round in a cycle.
    """

    def __init__(self, boxes: Mapping[str, Box], lines: Sequence[tuple[str, str, str]]) -> None:
        self._boxes, self._lines = boxes, lines
        self._givers: dict[str, list[str]] = {key: [] for key in boxes}
        self._takers: dict[str, list[str]] = {key: [] for key in boxes}
        for source, _, target in lines:
            self._givers[target].append(source)
            self._takers[source].append(target)
        self._ranks: dict[str, int] = {}
        self._ahead: dict[str, int] = {}  # length of the longest path to an end
        self._rank()
        self._taken = defaultdict[int, set[int]](set)  # column -> ranks that are occupied
        self._columns: dict[str, int] = {}  # of boxes
        self._choose_columns()
        self._lanes: dict[str, int] = {}  # columns of the values that pass ranks
        self._choose_lanes()
        self.width = self._place_columns()
        self.routes, self.height = self._place_ranks(self._place_lines())

    def _rank(self) -> None:
        order = list(TopologicalSorter(self._givers).static_order())
        for key in order:
            self._ranks[key] = max((self._ranks[g] + 1 for g in self._givers[key]), default=0)
        for key in reversed(order):
            takers = self._takers[key]
            self._ahead[key] = max((self._ahead[taker] + 1 for taker in takers), default=0)
            if takers and not self._givers[key]:
                self._ranks[key] = min(self._ranks[taker] for taker in takers) - 1

    def _choose_columns(self) -> None:
        order = sorted(self._boxes, key=lambda key: -self._ahead[key])
        rows = defaultdict[int, list[str]](list)
        for key in order:
            if self._givers[key]:
                rows[self._ranks[key]].append(key)
        for rank in sorted(rows):
            wishes = {key: self._wish(key) for key in rows[rank]}
            heirs = {wish: key for key, wish in reversed(wishes.items())}
            for key in sorted(wishes, key=lambda key: heirs[wishes[key]] != key):
                self._columns[key] = self._claim([wishes[key]], [rank], 2)
        for key in order:
            if not self._givers[key]:
                near = [self._columns[taker] for taker in self._takers[key]] or [0]
                self._columns[key] = self._claim(near, [self._ranks[key]], 2)

    def _wish(self, key: str) -> int:
        """Return the column of the lowest box that it takes from, the innermost of several."""
        placed = [giver for giver in self._givers[key] if giver in self._columns]
        placed.sort(key=lambda giver: (-self._ranks[giver], abs(self._columns[giver])))
        return self._columns[placed[0]] if placed else 0

    def _claim(self, ends: Collection[int], ranks: Collection[int], step: int) -> int:
        """Take the free column that is nearest to others, the right one if in doubt.

        Boxes take every second column, so that there is one for a line beside each.
        """
        low, high = min(self._taken, default=0) // 2 * 2 - 2, max(self._taken, default=0) + 3
        free = [c for c in range(low, high, step) if self._taken[c].isdisjoint(ranks)]
        column = min(free, key=lambda c: (sum(abs(c - end) for end in ends), c not in ends, -c))
        self._taken[column].update(ranks)
        return column

    def _choose_lanes(self) -> None:
        """Choose the columns of values that pass ranks, for short ones first: the inner ones."""
        spans: dict[str, tuple[str, str]] = {}
        for source, value, target in self._lines:
            _, last = spans.get(value, (source, target))
            spans[value] = source, max(last, target, key=self._ranks.__getitem__)
        passed = {v: range(self._ranks[s] + 1, self._ranks[t]) for v, (s, t) in spans.items()}
        for value in sorted(spans, key=lambda value: len(passed[value])):
            if passed[value]:
                ends = [self._columns[key] for key in spans[value]]
                self._lanes[value] = self._claim(ends, passed[value], 1)

    def _place_columns(self) -> float:
        """Give x to boxes, and order outlets as their lines go on; return the width of all."""
        aims = {v: self._lanes.get(v, self._columns[t]) for _, v, t in self._lines}
        lefts, rights = defaultdict[int, float](float), defaultdict[int, float](float)
        for key, box in self._boxes.items():
            box.labels = dict(sorted(box.labels.items(), key=lambda label: aims[label[0]]))
            (left, right), column = box.reach, self._columns[key]
            lefts[column], rights[column] = max(lefts[column], left), max(rights[column], right)
        self._axes: dict[int, float] = {}
        x = 0.0
        for column in sorted({*self._columns.values(), *self._lanes.values()}):
            self._axes[column] = x + lefts[column]
            x = self._axes[column] + rights[column] + _APART
        for key, box in self._boxes.items():
            box.x = self._axes[self._columns[key]]
        return max(x - _APART, 0.0)

    def _place_lines(self) -> list[list[float]]:
        """Return the x at which each line leaves a box, passes ranks, and enters a box.

        It enters in the middle from above, else on the side from which it comes.
        """
        places = []
        coming = defaultdict[str, list[tuple[float, int]]](list)
        for i, (source, value, target) in enumerate(self._lines):
            leaves = self._boxes[source].x + self._boxes[source].outlets[value]
            passed = self._ranks[target] - self._ranks[source] > 1
            passes = self._axes[self._lanes[value]] if passed else leaves
            places.append([leaves, passes, self._boxes[target].x])
            coming[target].append((passes - self._boxes[target].x, i))
        for target, lines in coming.items():
            for side in (-1, 1) if len(lines) > 1 else ():
                beside = sorted((side * far, i) for far, i in lines if side * far > 0.05)
                part = side * self._boxes[target].width / 2 / (len(beside) + 1)
                for number, (_, i) in enumerate(beside, 1):
                    places[i][2] += number * part
        return places

    def _place_ranks(self, places: Sequence[Sequence[float]]) -> tuple[list[list[Point]], float]:
        """Give y to boxes; return the points of the lines, and the height of all."""
        heights, bends = defaultdict[int, float](float), defaultdict[int, float](float)
        for key, box in self._boxes.items():
            heights[self._ranks[key]] = max(heights[self._ranks[key]], box.room)
        for (source, _, target), (leaves, passes, enters) in zip(self._lines, places, strict=True):
            above, below = self._ranks[source], self._ranks[target] - 1
            bends[above] = max(bends[above], abs(passes - leaves))
            bends[below] = max(bends[below], abs(enters - passes))
        tops, curves = [0.0], [0.0]  # where the rank begins, and the curves below it
        for rank in range(len(heights)):
            curves.append(tops[rank] + heights[rank] + _STUB)
            tops.append(curves[-1] + min(max(_LOW, _SLOPE * bends[rank]), _HIGH))
        for key, box in self._boxes.items():
            box.y = tops[self._ranks[key]] + heights[self._ranks[key]] / 2
        routes = []
        for (source, _, target), (leaves, passes, enters) in zip(self._lines, places, strict=True):
            above, below = self._ranks[source], self._ranks[target]
            route = [(leaves, self._boxes[source].bottom), (leaves, curves[above + 1])]
            if below > above + 1:
                route += [(passes, tops[above + 1]), (passes, curves[below])]
            routes.append([*route, (enters, tops[below]), (enters, self._boxes[target].top)])
        return routes, curves[-1]
