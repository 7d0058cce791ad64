"""Where in a file something is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from synapse_onnx.errors import InputError, ShapeError, SynapseError

__all__ = ["Place", "located"]


@contextlib.contextmanager
def located(where: str, part: str) -> Iterator[None]:
    """Put file and part before the sentence of an error that does not name them yet."""
    try:
        yield
    except SynapseError as error:
        if str(error).startswith(f"{where}: "):
            raise
        raise type(error)(f"{where}: {part}: {error}") from error


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
