"""One path for a layer that is registered under several names: the first.

torch names a node after the way by which ``forward`` reached its module. Parameters, states and
metadata have the first path of a layer, and two calls of one layer are two nodes of one name.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import onnx_ir as ir
from torch import nn

from synapse_onnx.compiler.freezer import deployables, other_paths
from synapse_onnx.ops import DOMAIN

__all__ = ["use_first_paths"]

#: the paths of the modules around a node, outermost first, and the node's own name
_SCOPES = "pkg.torch.onnx.name_scopes"


def use_first_paths(model: ir.Model, network: nn.Module) -> None:
    """Give the nodes of a layer of this package its first path, in a graph as torch wrote it."""
    firsts = other_paths(network)
    known = {path for path, _ in network.named_modules(remove_duplicate=False)}
    if len(known) == sum(1 for _ in nn.Module.modules(network)):
        return  # no module has two names
    layers = [path for path, _ in deployables(network)]
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        if node.domain == DOMAIN and len(scopes) > 1 and scopes[-2] not in known:
            scopes[-2] = _whole(scopes[-2], layers, node)
        node.metadata_props[_SCOPES] = repr([_first(path, firsts) for path in scopes])


def _whole(path: str, layers: Sequence[str], node: ir.Node) -> str:
    """Return the path of the one layer that ends like this, and whose parameters the node has.

    Where a module has two names, torch 2.13 may leave out the path of the module that holds it:
    one ``nn.ReLU`` behind two blocks makes "synapse" of "0.synapse" and of "2.synapse".
    """
    fitting = [layer for layer in layers if f".{layer}".endswith(f".{path}")]
    if len(fitting) > 1:
        given = [str(value.name) for value in node.inputs if value is not None]
        owned = [layer for layer in fitting if any(n.startswith(f"{layer}.") for n in given)]
        fitting = owned or fitting
    return fitting[0] if len(fitting) == 1 else path


def _first(path: str, firsts: dict[str, str]) -> str:
    for other, first in firsts.items():
        if path == other or path.startswith(f"{other}."):
            return first + path.removeprefix(other)
    return path
