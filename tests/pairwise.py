"""Fewer combinations of test parameters, with every pair of values among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any


def pairwise(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Choose combinations of some axes so that every two values of two axes meet in one of them.

    A fault that depends on three values at once can be missed. With two axes all combinations are
    chosen. Chosen greedily, so always the same.
    """
    sizes = [list(axis) for axis in axes]
    places = list(itertools.product(*(range(len(axis)) for axis in sizes)))

    def pairs(place: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
        return set(itertools.combinations(enumerate(place), 2))

    missing = set().union(*map(pairs, places))
    chosen = []
    while missing:
        best = max(places, key=lambda place: len(pairs(place) & missing))
        missing -= pairs(best)
        chosen.append(best)
    return [
        tuple(axis[i] for axis, i in zip(sizes, place, strict=True)) for place in sorted(chosen)
    ]
