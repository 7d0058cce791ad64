"""Finds the frameworks of this folder, and their networks."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from .network import Network

__all__ = ["Framework", "files", "frameworks", "load"]


@dataclass
class Framework:
    """A framework: its networks by name, or why it is left out."""

    name: str
    networks: dict[str, Network] = field(default_factory=dict)
    missing: str = ""


def files() -> list[str]:
    """Return the names of the files with networks, without importing them."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return [name for name in names if name.endswith("_networks") and not name.startswith("test_")]


def load(file: str) -> Framework:
    """Return the networks of one file; without what it imports, the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the framework about its own imports
            module = importlib.import_module(f"{__package__}.{file}")
    except ImportError as error:
        name = file.removesuffix("_networks").partition("_")[0]
        return Framework(name, missing=f"{file} cannot be imported: {error}")
    networks = {network.name: network for network in module.NETWORKS}
    if len(networks) < len(module.NETWORKS):
        raise ValueError(f"two networks of {file} have one name")
    return Framework(module.FRAMEWORK, networks)


def frameworks() -> dict[str, Framework]:
    """Return all frameworks, each with the networks of all its files."""
    found: dict[str, Framework] = {}
    for framework in map(load, files()):
        known = found.setdefault(framework.name, Framework(framework.name))
        both = known.networks.keys() & framework.networks
        if both:
            raise ValueError(f"two networks of {framework.name} are named {min(both)}")
        known.networks.update(framework.networks)
        known.missing = known.missing or framework.missing
    return found
