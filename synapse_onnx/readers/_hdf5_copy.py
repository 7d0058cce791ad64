"""Copy the arrays of an HDF5 file into a fresh one; run as a script, in a process of its own.

    python _hdf5_copy.py FROM TO BYTES SECONDS

HDF5 may crash on a damaged file, or never end. This process may, so nothing of the package is
imported here. It leaves with 0 when the copy is whole, with 3 and a sentence on stderr where it
refuses the file, and by anything else where the file is damaged.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

#: exit code of a refusal
REFUSED = 3
#: most groups within groups
_DEEP = 50


class RefusedError(Exception):
    """Why a file is refused, which need not be damaged for it."""


def _limit(size: int, seconds: int) -> None:
    """Bound memory and processor time, where the system can."""
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
    """Walk the links of a file without following one that leads elsewhere; groups have None."""
    total, groups, seen = 0, [("", file, 0)], {file.id}
    found: list[tuple[str, Any]] = []
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
                if depth > _DEEP:
                    raise RefusedError(f"it has groups within groups, more than {_DEEP} deep")
                seen.add(item.id)
                groups.append((name, item, depth + 1))
                found.append((name, None))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise RefusedError(f"the values of {name} are in another file")
                total += item.nbytes if item.shape is not None else 0
                if total > most:
                    raise RefusedError(
                        f"{name} brings the arrays of this file to more than {most:,} bytes, which "
                        f"is refused; set SYNAPSE_ONNX_MAX_BYTES to allow more"
                    )
                found.append((name, item))
    return found


def copy_arrays(source: str, target: str, most: int) -> None:
    """Copy groups and datasets; attributes are left out.

    Args:
        source: the file.
        target: the file to write.
        most: bytes that the arrays may unpack to.

    Raises:
        RefusedError: a link or values that lead out of the file, or arrays beyond ``most``.
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
