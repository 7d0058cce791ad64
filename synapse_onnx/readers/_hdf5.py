"""Opening HDF5 files that come from elsewhere, before anything of them is believed."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError

__all__ = ["MAX_BYTES", "open_hdf5"]

#: most bytes that the arrays of a file may unpack to
MAX_BYTES = 2 << 30


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], extra: str, what: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, and yield the ``h5py.File``.

    What can lead out of the file (links, external storage) is refused, and arrays that are larger
    than the memory that anyone would give them, before they are read.

    Args:
        path: the file.
        extra: the extra of this package that brings h5py.
        what: what reads it, for messages.

    Raises:
        InputError: no such file, no HDF5 file, a damaged one, or one that is refused. An error of
            HDF5 within the block becomes one too.
    """
    h5py = needed("h5py", extra, what)
    where = os.fspath(path)
    if not Path(where).is_file():
        reason = "it is a folder" if Path(where).is_dir() else "no such file"
        raise InputError(f"{where} cannot be read: {reason}")
    try:
        with h5py.File(where, "r") as file:
            _check(h5py, file, where)
            yield file
    except PermissionError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    except Exception as error:
        # h5py raises whatever fits what a damaged file says; our own faults stay what they are
        *_, (last, _) = traceback.walk_tb(error.__traceback__)
        if "h5py" not in last.f_code.co_filename:
            raise
        raise InputError(f"{where} is no HDF5 file, or a damaged one") from error


def _check(h5py: Any, file: Any, where: str) -> None:
    """Walk the links of a file without following one that leads elsewhere."""
    total, groups, seen = 0, [("", file)], {file.id}
    while groups:
        base, group = groups.pop()
        for key in group:
            name = f"{base}/{key}" if base else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise InputError(f"{where}: {name} is a link to another place, which is refused")
            item = group[key]
            if isinstance(item, h5py.Group):
                if item.id in seen:
                    raise InputError(f"{where}: {name} leads back to a group that holds it")
                seen.add(item.id)
                groups.append((name, item))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise InputError(f"{where}: the values of {name} are in another file")
                total += item.nbytes if item.shape is not None else 0
                if total > MAX_BYTES:
                    raise InputError(
                        f"{where}: {name} brings the arrays of this file to more than "
                        f"{MAX_BYTES >> 30} GiB, which is refused"
                    )
