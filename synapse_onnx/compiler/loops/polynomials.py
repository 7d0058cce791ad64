"""Steps of a loop as polynomials: of the states before, of the input, and of spikes.

A spike is a comparison, 0 or 1, so that it is its own square. Coefficients are arrays: one number,
one for a channel, or one for a neuron. Two steps that are written in other ways, such as
``v + (x - v) / tau`` and ``(1 - 1 / tau) * v + x / tau``, are one polynomial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Monomial", "Polynomial", "is_close"]

#: (symbol, power) of each factor, sorted; () of a constant
Monomial = tuple[tuple[str, int], ...]

#: symbols of spikes begin with this
SPIKE = "spike"


class Polynomial:
    """A sum of monomials with coefficients, which are arrays."""

    def __init__(self, terms: Mapping[Monomial, Any]) -> None:
        self.terms = {
            monomial: np.asarray(value, np.float64)
            for monomial, value in terms.items()
            if np.any(np.asarray(value) != 0)
        }

    @classmethod
    def constant(cls, value: Any) -> Polynomial:
        """Return a polynomial without symbols."""
        return cls({(): value})

    @classmethod
    def symbol(cls, name: str) -> Polynomial:
        """Return a symbol as a polynomial."""
        return cls({((name, 1),): 1.0})

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for monomial, value in other.terms.items():
            terms[monomial] = terms.get(monomial, 0.0) + value
        return Polynomial(terms)

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + other.scaled(-1.0)

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, Any] = {}
        for one, value in self.terms.items():
            for two, factor in other.terms.items():
                product = _product(one, two)
                terms[product] = terms.get(product, 0.0) + value * factor
        return Polynomial(terms)

    def scaled(self, factor: Any) -> Polynomial:
        """Return the polynomial times a number or an array of them."""
        return Polynomial({monomial: value * factor for monomial, value in self.terms.items()})

    def of(self, *symbols: str) -> Any:
        """Return the coefficient of a product of symbols, of the constant without any."""
        return self.terms.get(tuple(sorted((name, 1) for name in symbols)), 0.0)

    @property
    def symbols(self) -> set[str]:
        """All symbols in it."""
        return {name for monomial in self.terms for name, _ in monomial}

    @property
    def value(self) -> Any:
        """The coefficient of a polynomial without symbols; None of one that has any."""
        return None if self.symbols else self.of()

    def is_close_to(self, other: Polynomial) -> bool:
        """Whether all coefficients are equal, but for roundings."""
        return self.is_parallel_to(other) and is_close(self.of(), other.of())

    def is_parallel_to(self, other: Polynomial) -> bool:
        """Whether all coefficients but the constants are equal, but for roundings."""
        monomials = (self.terms.keys() | other.terms.keys()) - {()}
        return all(
            is_close(self.terms.get(each, 0.0), other.terms.get(each, 0.0)) for each in monomials
        )


def _product(one: Monomial, two: Monomial) -> Monomial:
    powers: dict[str, int] = {}
    for name, power in one + two:
        powers[name] = 1 if name.startswith(SPIKE) else powers.get(name, 0) + power
    return tuple(sorted(powers.items()))


def is_close(one: Any, other: Any) -> bool:
    """Whether two coefficients are equal, but for roundings of float32."""
    one, other = np.asarray(one), np.asarray(other)
    return bool(np.all(np.abs(one - other) <= 1e-6 * (1e-6 + np.maximum(abs(one), abs(other)))))
