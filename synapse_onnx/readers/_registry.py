"""The registry of readers: which reader reads a file, and with which options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from synapse_onnx._discovery import public_modules
from synapse_onnx.errors import InputError, RegistryError

__all__ = ["Reader", "all_readers", "reader_for", "register"]

_READERS: dict[str, Reader] = {}


@dataclass(frozen=True)
class Reader:
    """A file format that holds networks.

    Attributes:
        name: name of the format, for messages and documentation.
        suffixes: endings of the names of such files, with the dot.
        extra: the extra of this package that installs the reader's imports; "" for none.
        load: path, and options by keyword -> the network. Its signature and docstring document
            the options: each is a bool, int, float or str, with a default.
        doc: one line for the documentation.
    """

    name: str
    suffixes: tuple[str, ...]
    extra: str
    load: Callable[..., nn.Module]
    doc: str

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The options of ``load``, by name."""
        parameters = inspect.signature(self.load).parameters
        return dict(list(parameters.items())[1:])

    def read(self, path: str, options: Mapping[str, str]) -> nn.Module:
        """Read a file with options as strings, as on the command line.

        Raises:
            InputError: an unknown option, or a string that is no value of its type; and what
                ``load`` raises.
        """
        values = {name: self._option(name, text) for name, text in options.items()}
        return self.load(path, **values)

    def _option(self, name: str, text: str) -> Any:
        if name not in self.options:
            raise InputError(
                f"{self.name} files have no option {name!r}; there are: {', '.join(self.options)}"
            )
        kind = str(self.options[name].annotation)
        if kind.startswith("bool"):
            if text.lower() not in ("true", "false"):
                raise InputError(f"option {name} must be true or false, got {text!r}")
            return text.lower() == "true"
        for number, expected in ((int, "a whole number"), (float, "a number")):
            if kind.startswith(number.__name__):
                try:
                    return number(text)
                except ValueError:
                    raise InputError(f"option {name} must be {expected}, got {text!r}") from None
        return text


def register(reader: Reader) -> Reader:
    """Add a reader and return it.

    Raises:
        RegistryError: another reader has its name or one of its suffixes.
    """
    for other in _READERS.values():
        shared = {reader.name} & {other.name} | set(reader.suffixes) & set(other.suffixes)
        if shared:
            raise RegistryError(f"two readers claim {', '.join(sorted(shared))}")
    _READERS[reader.name] = reader
    return reader


def all_readers() -> list[Reader]:
    """Return every reader, by name."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    for module in public_modules(folder):
        importlib.import_module(f"{package}.{module}")
    return [_READERS[name] for name in sorted(_READERS)]


def reader_for(path: str) -> Reader | None:
    """Return the reader of a file, by the end of its name; None where there is none."""
    suffix = Path(path).suffix.lower()
    return next((reader for reader in all_readers() if suffix in reader.suffixes), None)
