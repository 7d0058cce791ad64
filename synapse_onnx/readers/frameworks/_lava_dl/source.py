"""A layer of lava-dl that is being converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synapse_onnx.readers.frameworks._convert import Conversion

#: package of lava-dl's classes
PACKAGE = "lava.lib.dl"
PREFIX = f"{PACKAGE}."


@dataclass(frozen=True)
class Source:
    """A layer of lava-dl.

    Attributes:
        conversion: the conversion of the whole module.
        path: path of the layer, for errors.
        layer: the layer.
        module: module of its class below slayer: "neuron.cuba".
        name: name of its class: "Neuron", "AbstractDense".
    """

    conversion: Conversion
    path: str
    layer: Any
    module: str
    name: str

    def part(self, name: str) -> Any:
        """Return ours for the layer in an attribute."""
        return self.conversion.layer(self.path, getattr(self.layer, name), part=name)

    def attributes(self, *names: str) -> dict[str, Any]:
        """Return those of these attributes that the layer has, by name."""
        return {name: getattr(self.layer, name) for name in names if hasattr(self.layer, name)}

    def set_later(self, new: Any, name: str, value: Any) -> None:
        """Set an attribute of ours to a value of lava-dl's, once every layer is converted."""
        self.conversion.set_later(new, name, without_identity(value))


def lava_classes(thing: object) -> list[type]:
    """Return the classes of lava-dl that a thing is of or derives from, the nearest first."""
    return [kind for kind in type(thing).__mro__ if kind.__module__.startswith(PREFIX)]


def without_identity(value: Any) -> Any:
    """Return a value, and None for ``lambda x: x`` of lava-dl, its default for hooks."""
    is_lambda = getattr(value, "__qualname__", "").endswith("<lambda>")
    lavas = (getattr(value, "__module__", None) or "").startswith(PREFIX)
    return None if is_lambda and lavas else value
