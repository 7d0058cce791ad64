"""Why the steps of a network have no common form."""

from __future__ import annotations

__all__ = ["NoLoopError", "UndrivenError"]


class NoLoopError(Exception):
    """Why the steps of a network have no common form; the place is a line of the user's code."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.place = place


class UndrivenError(NoLoopError):
    """A value changes from step to step, and no input tells its step."""
