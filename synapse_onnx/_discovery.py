"""Which files of a package are found by themselves."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable

__all__ = ["public_modules"]


def public_modules(folders: Iterable[str]) -> list[str]:
    """Return the names of the files in a package's folders, sorted; none with an underscore."""
    modules = pkgutil.iter_modules(folders)
    return sorted(m.name for m in modules if not (m.ispkg or m.name.startswith("_")))
