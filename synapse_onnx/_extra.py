"""Optional packages: one sentence where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from synapse_onnx.errors import InputError

__all__ = ["needed"]


def needed(package: str, extra: str, what: str) -> Any:
    """Import a package of an extra and return it.

    Raises:
        InputError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise InputError(
            f"{what} needs the package {package}: pip install 'synapse-onnx[{extra}]'"
        ) from error
