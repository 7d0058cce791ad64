"""Opening HDF5 files that come from elsewhere, before anything of them is believed."""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.model.limits import check_file, max_bytes
from synapse_onnx.readers import _hdf5_copy

__all__ = ["open_hdf5"]

#: seconds that HDF5 may take for a file, and bytes for which it gets one more
_SECONDS, _BYTES_A_SECOND = 8, 50 << 20


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], extra: str, what: str) -> Iterator[Any]:
    """Read an HDF5 file in a process of its own, and yield a copy as ``h5py.File``.

    HDF5 may crash on a damaged file, or loop for ever. The other process has bounds on time and
    memory, refuses what can lead out of the file (links, external storage) and arrays beyond the
    bound, and writes the arrays into a fresh file. Only that is opened here, without attributes.

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
    check_file(where)
    try:
        with open(where, "rb"):  # so that the reason is known where it cannot be
            pass
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error
    try:
        with tempfile.TemporaryDirectory(prefix="synapse-onnx-") as folder:
            copy = os.path.join(folder, "copy.h5")
            _copy(where, copy)
            with h5py.File(copy, "r") as file:
                yield file
    except Exception as error:
        # h5py raises whatever fits what a damaged file says; our own faults stay what they are
        *_, (last, _) = traceback.walk_tb(error.__traceback__)
        if "h5py" not in last.f_code.co_filename:
            raise
        raise InputError(f"{where} is no HDF5 file, or a damaged one") from error


def _copy(where: str, copy: str) -> None:
    """Copy the arrays of a file in another process, which may crash or hang."""
    seconds = _SECONDS + Path(where).stat().st_size // _BYTES_A_SECOND
    # what is installed is found as here, without what runs at the start of Python (-S)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        "OPENBLAS_NUM_THREADS": "1",  # whose threads take address space
        "HDF5_PLUGIN_PRELOAD": "::",  # a file must not choose libraries to be loaded
    }
    python = multiprocessing.spawn.get_executable()
    command = [os.fsdecode(python or sys.executable), "-S", "-P", _hdf5_copy.__file__]
    try:
        ended = subprocess.run(
            [*command, os.path.abspath(where), copy, str(max_bytes()), str(seconds)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{where}: HDF5 has not read it within {seconds} s; the file is damaged"
        ) from error
    except OSError as error:
        raise SynapseError(f"Python cannot be started to read {where}: {error}") from error
    if ended.returncode == _hdf5_copy.REFUSED:
        raise InputError(f"{where}: {ended.stderr.decode(errors='replace')}")
    if ended.returncode != 0:
        raise InputError(f"{where} is no HDF5 file, or a damaged one")
