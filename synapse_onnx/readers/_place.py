"""Where in a file something is wrong."""

from __future__ import annotations

from synapse_onnx.errors import InputError, ShapeError

__all__ = ["Place"]


class Place:
    """A part of a file whose values are checked as they are read."""

    def place(self, key: str) -> str:
        """Name the file, the part and the value."""
        raise NotImplementedError

    def fail(self, key: str, what: str) -> InputError:
        """The error of a value that cannot be right."""
        return InputError(f"{self.place(key)}: {what}")

    def misfit(self, key: str, what: str) -> ShapeError:
        """The error of a value whose shape does not fit the others."""
        return ShapeError(f"{self.place(key)}: {what}")
