"""Files on disk: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from synapse_onnx.errors import InputError

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that its path holds the old content or the new one, never a part.

    Raises:
        InputError: the folder is missing or cannot be written to.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)  # mkstemp gives 0600
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # interrupted behind the replacement
                os.unlink(name)
            raise
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
