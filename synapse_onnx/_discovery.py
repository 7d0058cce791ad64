"""Which files of a package are found by themselves."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable

__all__ = ["public_modules"]


def public_modules(folders: Iterable[str]) -> list[str]:
    """Return the names of the modules in a package's folders, sorted; none with an underscore."""
    return sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_"))
