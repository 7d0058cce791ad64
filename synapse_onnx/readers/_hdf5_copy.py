"""Copies the arrays of an HDF5 file into a fresh one: a script, run as a child process.

    python _hdf5_copy.py FROM TO BYTES SECONDS

It imports nothing of the package, so that it starts fast. Exit code 0: the copy is complete; 3: the
file is refused, with the reason on stderr; anything else, a crash included: the file is damaged.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

#: exit code of a refusal
REFUSED = 3
#: deepest nesting of groups
_MAX_DEPTH = 50


class RefusedError(Exception):
    """The reason to refuse a file, which need not be damaged."""


def _limit(size: int, seconds: int) -> None:
    """Limit memory and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    bounds = {
        resource.RLIMIT_AS: 2 * size + (1 << 30),
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in bounds.items():
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(kind, (bound, bound))


def _datasets(h5py: Any, file: Any, most: int) -> list[tuple[str, Any]]:
    """Return (name, dataset) of everything in a file, and (name, None) of groups.

    h5py's ``visititems`` would skip links silently; here a link is a reason to refuse the file.
    """
    total, groups, seen = 0, [("", file, 0)], {file.id}
    items: list[tuple[str, Any]] = []
    while groups:
        base, group, depth = groups.pop()
        for key in group:
            name = f"{base}/{key}" if base else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise RefusedError(f"{name} is a link to another place, which is refused")
            item = group[key]
            if isinstance(item, h5py.Group):
                if item.id in seen:
                    raise RefusedError(f"{name} leads back to a group that holds it")
                if depth > _MAX_DEPTH:
                    raise RefusedError(f"it has groups within groups, more than {_MAX_DEPTH} deep")
                seen.add(item.id)
                groups.append((name, item, depth + 1))
                items.append((name, None))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise RefusedError(f"the values of {name} are in another file")
                total += item.nbytes if item.shape is not None else 0
                if total > most:
                    raise RefusedError(
                        f"{name} brings the arrays of this file to more than {most:,} bytes, which "
                        f"is refused; set SYNAPSE_ONNX_MAX_BYTES to allow more"
                    )
                items.append((name, item))
    return items


def copy_arrays(source: str, target: str, most: int) -> None:
    """Copy groups and datasets, which may unpack to ``most`` bytes, without their attributes.

    Raises:
        RefusedError: a link or values out of the file, or arrays larger than ``most``.
        Exception: what h5py raises on a damaged file.
    """
    import h5py

    with h5py.File(source, "r") as file, h5py.File(target, "w") as copy:
        for name, item in _datasets(h5py, file, most):
            if item is None:
                copy.require_group(name)
            elif item.shape is None:
                copy.create_dataset(name, data=h5py.Empty(item.dtype))
            else:
                copy.create_dataset(name, data=item[()], dtype=item.dtype)


def _main(source: str, target: str, most: int, seconds: int) -> None:
    _limit(most, seconds)
    try:
        copy_arrays(source, target, most)
    except RefusedError as refusal:
        sys.stderr.write(str(refusal))
        sys.exit(REFUSED)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
