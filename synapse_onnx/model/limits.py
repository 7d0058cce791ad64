"""Bounds on untrusted files: checked before memory is allocated, and raised by the user."""

from __future__ import annotations

import math
import os
import stat
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from synapse_onnx.errors import InputError

__all__ = ["VARIABLE", "check_archive", "check_file", "load_arrays", "max_bytes", "read_file"]

#: environment variable that sets the bound, in bytes
VARIABLE = "SYNAPSE_ONNX_MAX_BYTES"

_DEFAULT = 2 << 30


def max_bytes() -> int:
    """Return the bound in bytes on a file and on its unpacked contents; 2 GiB by default.

    Raises:
        InputError: the environment variable SYNAPSE_ONNX_MAX_BYTES is no whole number above 0.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return _DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
        raise InputError(f"{VARIABLE} must be a whole number of bytes above 0, got {text[:40]!r}")
    return int(text)


def too_large(what: str, size: int) -> InputError:
    """Make the error of something beyond the bound."""
    return InputError(
        f"{what} {size:,} bytes, and more than {max_bytes():,} are refused; set {VARIABLE} to "
        f"allow more"
    )


def check_file(path: str | os.PathLike[str], grows: int = 1) -> None:
    """Refuse what is no regular file, since it might never end, and files beyond the bound.

    Args:
        path: the file.
        grows: upper bound on the memory that the file takes, in multiples of its size.

    Raises:
        InputError: no such file, a folder or device, or one that is too large.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        raise InputError(f"{os.fspath(path)} cannot be read: {reason or error}") from error
    if not stat.S_ISREG(status.st_mode):
        reason = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no file"
        raise InputError(f"{os.fspath(path)} cannot be read: {reason}")
    if status.st_size * grows > max_bytes():
        takes = "takes in memory up to" if grows > 1 else "has"
        raise too_large(f"{os.fspath(path)} {takes}", status.st_size * grows)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file within the bound.

    Raises:
        InputError: see :func:`check_file`, or the file cannot be read.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes() + 1)  # it may have grown
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes():
        raise too_large(f"{os.fspath(path)} has", len(data))
    return data


def check_archive(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> None:
    """Refuse a ZIP archive that unpacks to more than the bound.

    Raises:
        InputError: it does. ``zipfile`` never reads more of an entry than its declared size.
    """
    size = sum(entry.file_size for entry in archive.infolist())
    if size > max_bytes():
        raise too_large(f"{os.fspath(path)} unpacks to", size)


def load_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read an .npy or .npz file, never running code from it.

    Returns:
        The arrays by name; that of an .npy file has the name "".

    Raises:
        InputError: see :func:`check_file`, or the arrays unpack to more than the bound.
        OSError: the file cannot be read.
        ValueError: it is no such file, or a damaged one, or it holds Python objects.
    """
    check_file(path)
    # numpy leaves a damaged file open when it opens it itself
    with open(path, "rb") as file:
        try:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            if zipped:
                with zipfile.ZipFile(file) as archive:
                    check_archive(archive, path)
                    for entry in archive.infolist():
                        with archive.open(entry) as member:
                            _check_header(member, entry.file_size)
            else:
                _check_header(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return {key: loaded[key] for key in loaded.files}
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:  # what a damaged file raises depends on its bytes
            raise ValueError(str(error)) from error


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuse an array whose header declares more than the file: numpy allocates it first."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, kind = read(file)
    if kind.hasobject:
        return  # refused by numpy
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    if math.prod(shape) * kind.itemsize > size - file.tell():
        raise ValueError("an array that is larger than the file")
