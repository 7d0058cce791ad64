"""The contract of a torch module that has a deployment form."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Deployable"]


class Deployable(nn.Module):
    """A layer that ``freeze`` turns into its deployment form and ``verify`` compares by itself.

    A layer that holds others freezes them too: nothing below it is visited.
    """

    #: whether the outputs are spikes, to be counted as flips where they differ
    spiking: bool = False

    def freeze(self) -> None:
        """Turn this layer into its deployment form, in place."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the states that the layer keeps between calls, if it has any."""

    def describe(self) -> dict[str, Any]:
        """Return what a model's metadata says of this layer, frozen: plain JSON values."""
        raise NotImplementedError
