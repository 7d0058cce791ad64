"""A layered layout of an acyclic graph: blocks in ranks from top to bottom, curves between them.

A block's rank is its longest path from a source; sources move down to just above their first taker.
A value that passes a rank has a place there, one for all its takers, so that no curve crosses a
block. The order within a rank is by barycentres; the places within an order are those nearest to
the neighbours', by least squares (pool adjacent violators). The time is about linear in blocks and
passed ranks.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Block", "Edge", "Layout", "Route", "lay_out"]

#: least distance between two blocks, and between a line and its neighbour
_APART, _BESIDE = 22.0, 14.0
#: height below a rank that is kept free of curves, for the labels of the lines
_STUB = 20.0
#: least and largest height of the curves between two ranks, and what a curve's width adds
_LOW, _HIGH, _SLOPE = 26.0, 110.0, 0.1
#: sweeps over the ranks: for the order, and for the places
_ORDERS, _PLACES = 8, 20

Point = tuple[float, float]


@dataclass(frozen=True)
class Block:
    """A rectangle to place.

    Attributes:
        width: of all that it takes, names of its outputs included.
        height: the same.
        inlet: where lines may enter its top, from and to, counted from its left.
        outlets: where lines leave its bottom, counted from its left.
    """

    width: float
    height: float
    inlet: tuple[float, float]
    outlets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Edge:
    """A line from an outlet of one block to the top of another, both by index."""

    source: int
    outlet: int
    target: int


@dataclass(frozen=True)
class Route:
    """A line from top to bottom: vertical where two points share x, else a curve between them.

    Attributes:
        points: (x, y) of its ends, and of where it turns.
    """

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        corners: left and top of every block.
        routes: of every edge.
        width: of the whole.
        height: of the whole.
    """

    corners: tuple[Point, ...]
    routes: tuple[Route, ...]
    width: float
    height: float


@dataclass
class _Item:
    """What has a place in a rank: a block, or a value that passes; its links go up and down."""

    width: float
    block: int | None
    ups: list[_Link] = field(default_factory=list)
    downs: list[_Link] = field(default_factory=list)
    order: int = 0
    left: float = 0.0


@dataclass
class _Link:
    """A line between items of two ranks, which leaves and enters so far from their left."""

    upper: _Item
    lower: _Item
    leaves: float
    enters: float

    @property
    def weight(self) -> float:
        """Return how straight it should be: a long line more than a short one."""
        return (1.0, 3.0, 9.0)[(self.upper.block is None) + (self.lower.block is None)]


def lay_out(blocks: Sequence[Block], edges: Sequence[Edge]) -> Layout:
    """Place blocks and lines.

    Args:
        blocks: the rectangles.
        edges: the lines, without a cycle.

    Raises:
        ValueError: the lines go round in a cycle.
    """
    ranks = _ranks(len(blocks), edges)
    rows, paths = _rows(blocks, edges, ranks)
    _order(rows)
    _spread_inlets(blocks, rows)
    _place(rows)
    return _draw(blocks, edges, rows, paths)


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return the rank of every block: one below the lowest that it takes from."""
    takers: list[set[int]] = [set() for _ in range(count)]
    givers: list[set[int]] = [set() for _ in range(count)]
    for edge in edges:
        takers[edge.source].add(edge.target)
        givers[edge.target].add(edge.source)
    waits = [len(sources) for sources in givers]
    ready = [i for i in range(count) if not waits[i]]
    ranks = [0] * count
    for i in ready:  # grows on the way
        for taker in takers[i]:
            ranks[taker] = max(ranks[taker], ranks[i] + 1)
            waits[taker] -= 1
            if not waits[taker]:
                ready.append(taker)
    if len(ready) < count:
        raise ValueError("the graph has a cycle")
    for i in range(count):
        if not givers[i] and takers[i]:
            ranks[i] = min(ranks[taker] for taker in takers[i]) - 1
    return ranks


def _rows(
    blocks: Sequence[Block], edges: Sequence[Edge], ranks: Sequence[int]
) -> tuple[list[list[_Item]], list[list[_Link]]]:
    """Return the items of every rank, and the links of every edge."""
    rows: list[list[_Item]] = [[] for _ in range(max(ranks, default=0) + 1)]
    items = [_Item(block.width, i) for i, block in enumerate(blocks)]
    for item, rank in zip(items, ranks, strict=True):
        rows[rank].append(item)
    ends: dict[tuple[int, int], int] = defaultdict(int)  # of a value -> its last rank
    for edge in edges:
        value = (edge.source, edge.outlet)
        ends[value] = max(ends[value], ranks[edge.target])
    chains: dict[tuple[int, int], list[_Link]] = {}
    for (source, outlet), end in ends.items():
        chain: list[_Link] = []
        above, leaves = items[source], blocks[source].outlets[outlet]
        for rank in range(ranks[source] + 1, end):
            passing = _Item(0.0, None)
            rows[rank].append(passing)
            chain.append(_link(above, passing, leaves, 0.0))
            above, leaves = passing, 0.0
        chains[source, outlet] = chain
    paths: list[list[_Link]] = []
    for edge in edges:
        passed = ranks[edge.target] - ranks[edge.source] - 1
        path = chains[edge.source, edge.outlet][:passed]
        above = path[-1].lower if path else items[edge.source]
        leaves = 0.0 if path else blocks[edge.source].outlets[edge.outlet]
        inlet = blocks[edge.target].inlet
        last = _link(above, items[edge.target], leaves, sum(inlet) / 2)
        paths.append([*path, last])
    return rows, paths


def _link(upper: _Item, lower: _Item, leaves: float, enters: float) -> _Link:
    link = _Link(upper, lower, leaves, enters)
    upper.downs.append(link)
    lower.ups.append(link)
    return link


def _order(rows: list[list[_Item]]) -> None:
    """Order every rank so that few lines cross: the best of some sweeps down and up."""
    for row in rows:
        _number(row)
    best = _crossings(rows)
    kept = [list(row) for row in rows]
    for sweep in range(_ORDERS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            keys = {id(item): _barycentre(item, down) for item in row}
            row.sort(key=lambda item: keys[id(item)])
            _number(row)
        crossings = _crossings(rows)
        if crossings < best:
            best, kept = crossings, [list(row) for row in rows]
        if not best:
            break
    for row, order in zip(rows, kept, strict=True):
        row[:] = order
        _number(row)


def _number(row: Iterable[_Item]) -> None:
    for i, item in enumerate(row):
        item.order = i


def _barycentre(item: _Item, down: bool) -> float:
    """Return the mean place of the neighbours in the rank above or below, as they are ordered."""
    if down:
        places = [link.upper.order + _share(link.leaves, link.upper) for link in item.ups]
    else:
        places = [link.lower.order + _share(link.enters, link.lower) for link in item.downs]
    return sum(places) / len(places) if places else float(item.order)


def _share(offset: float, item: _Item) -> float:
    """Return how far to the right on an item a line ends, 0 to less than 1."""
    return 0.9 * offset / item.width if item.width else 0.45


def _crossings(rows: Sequence[Sequence[_Item]]) -> int:
    """Count the pairs of lines that cross, by a Fenwick tree a rank."""
    total = 0
    for row, below in itertools.pairwise(rows):
        tree = [0] * (len(below) + 1)
        seen = 0
        for item in row:
            for link in sorted(item.downs, key=lambda link: (link.leaves, link.lower.order)):
                i, before = link.lower.order + 1, 0
                while i:
                    before += tree[i]
                    i -= i & -i
                total += seen - before
                seen += 1
                i = link.lower.order + 1
                while i <= len(below):
                    tree[i] += 1
                    i += i & -i
    return total


def _spread_inlets(blocks: Sequence[Block], rows: Sequence[Sequence[_Item]]) -> None:
    """Let lines enter a block side by side, in the order in which they come."""
    for item in (item for row in rows for item in row):
        if item.block is None:
            continue
        begin, end = blocks[item.block].inlet
        item.ups.sort(key=lambda link: (link.upper.order, link.leaves))
        for i, link in enumerate(item.ups):
            link.enters = begin + (end - begin) * (i + 1) / (len(item.ups) + 1)


def _place(rows: Sequence[Sequence[_Item]]) -> None:
    """Give every item its left, in the order of its rank and apart from its neighbours."""
    for row in rows:
        _settle(row, [(0.0, 1.0)] * len(row))
    for sweep in range(_PLACES):
        down = sweep % 2 == 0
        # as the rank before it wants it, towards the end as both do
        both = sweep >= _PLACES // 2
        for row in rows if down else reversed(rows):
            _settle(row, [_wish(item, down or both, both or not down) for item in row])
    for row in rows:  # chains become straight
        _settle(row, [_wish(item, True, False) for item in row])
    low = min((item.left for row in rows for item in row), default=0.0)
    for item in (item for row in rows for item in row):
        item.left -= low


def _wish(item: _Item, ups: bool, downs: bool) -> tuple[float, float]:
    """Return the left that would make an item's lines straight, and how much it matters."""
    wishes = []
    if ups:
        wishes += [(link.upper.left + link.leaves - link.enters, link) for link in item.ups]
    if downs:
        wishes += [(link.lower.left + link.enters - link.leaves, link) for link in item.downs]
    weight = sum(link.weight for _, link in wishes)
    if not weight:
        return item.left, 0.01
    return sum(left * link.weight for left, link in wishes) / weight, weight


def _settle(row: Sequence[_Item], wishes: Sequence[tuple[float, float]]) -> None:
    """Place a row as near to its wishes as its order and distances allow, by least squares."""
    offsets, offset = [], 0.0
    for i, item in enumerate(row):
        if i:
            lone = item.block is None or row[i - 1].block is None
            offset += row[i - 1].width + (_BESIDE if lone else _APART)
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of items
    for (left, matters), offset in zip(wishes, offsets, strict=True):
        mean, weight, number = left - offset, matters, 1
        while pools and pools[-1][0] > mean:
            before, heavy, many = pools.pop()
            mean = (mean * weight + before * heavy) / (weight + heavy)
            weight, number = weight + heavy, number + many
        pools.append((mean, weight, number))
    means = [mean for mean, _, number in pools for _ in range(number)]
    for item, mean, offset in zip(row, means, offsets, strict=True):
        item.left = mean + offset


def _draw(
    blocks: Sequence[Block],
    edges: Sequence[Edge],
    rows: Sequence[Sequence[_Item]],
    paths: Sequence[Sequence[_Link]],
) -> Layout:
    """Give every rank its height, and turn places into points."""
    corners: list[Point] = [(0.0, 0.0)] * len(blocks)
    spans: dict[int, tuple[float, float]] = {}  # item -> top and bottom of its rank
    y = width = 0.0
    for row in rows:
        high = max((blocks[i.block].height for i in row if i.block is not None), default=0.0)
        for item in row:
            spans[id(item)] = (y, y + high)
            width = max(width, item.left + item.width)
            if item.block is not None:
                corners[item.block] = (item.left, y + (high - blocks[item.block].height) / 2)
        wide = max((abs(_bend(link)) for item in row for link in item.downs), default=0.0)
        y += high + _STUB + min(max(_LOW, _SLOPE * wide), _HIGH)
    bottom = max((spans[id(item)][1] for item in rows[-1]), default=0.0)
    routes = []
    for edge, path in zip(edges, paths, strict=True):
        top = corners[edge.source][1] + blocks[edge.source].height
        points = [(path[0].upper.left + path[0].leaves, top)]
        for link in path:
            points.append((points[-1][0], spans[id(link.upper)][1] + _STUB))
            points.append((link.lower.left + link.enters, spans[id(link.lower)][0]))
        points.append((points[-1][0], corners[edge.target][1]))
        routes.append(Route(tuple(points)))
    return Layout(tuple(corners), tuple(routes), width, bottom + _STUB)


def _bend(link: _Link) -> float:
    return link.upper.left + link.leaves - link.lower.left - link.enters
