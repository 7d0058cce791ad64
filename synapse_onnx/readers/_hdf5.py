"""Opens HDF5 files from untrusted sources.

libhdf5 may crash or loop for ever on a damaged file (for crashes see
https://github.com/HDFGroup/hdf5/issues/5193), and a crash would end the user's Python. HDF5 files
may also refer to other files (external links, external storage, virtual datasets) and unpack to any
size. So a child process with limits on time and memory reads the file, and writes its arrays into a
fresh one.
"""

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

#: seconds that the child process may take for a file, and bytes for which it gets one more
_SECONDS, _BYTES_A_SECOND = 8, 50 << 20


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], extra: str, what: str) -> Iterator[Any]:
    """Copy an HDF5 file by a child process, and yield the copy as ``h5py.File``.

    The child process refuses links out of the file and arrays beyond
    :func:`synapse_onnx.model.limits.max_bytes`. The copy has no attributes.

    Args:
        path: the file.
        extra: the extra of this package that installs h5py.
        what: the function that reads the file, for messages.

    Raises:
        InputError: no such file, no HDF5 file, a damaged one, or one that is refused. An error of
            h5py within the ``with`` block becomes one too.
    """
    h5py = needed("h5py", extra, what)
    where = os.fspath(path)
    check_file(where)
    try:
        with open(where, "rb"):  # for the reason of the system where it cannot be opened
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
        # h5py raises KeyError, RuntimeError, OSError and others on a damaged file; an error that
        # was not raised in h5py is a fault of ours and passes
        *_, (last, _) = traceback.walk_tb(error.__traceback__)
        if "h5py" not in last.f_code.co_filename:
            raise
        raise InputError(f"{where} is no HDF5 file, or a damaged one") from error


def _copy(where: str, copy: str) -> None:
    """Copy the arrays of a file in a child process, which may crash or hang."""
    seconds = _SECONDS + Path(where).stat().st_size // _BYTES_A_SECOND
    # -S skips site, which takes long and may run code; h5py is found by PYTHONPATH
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        "OPENBLAS_NUM_THREADS": "1",  # every thread takes address space, which is limited
        "HDF5_PLUGIN_PRELOAD": "::",  # a file must not choose libraries to be loaded
    }
    python = multiprocessing.spawn.get_executable()
    command = [os.fsdecode(python or sys.executable), "-S", "-P", _hdf5_copy.__file__]
    try:
        process = subprocess.run(
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
    if process.returncode == _hdf5_copy.REFUSED:
        raise InputError(f"{where}: {process.stderr.decode(errors='replace')}")
    if process.returncode != 0:
        raise InputError(f"{where} is no HDF5 file, or a damaged one")
