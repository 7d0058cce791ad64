"""Files and folders on disk: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from synapse_onnx.errors import InputError

__all__ = ["write_atomically", "write_folder"]


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
            os.chmod(name, 0o666 & ~mask)  # mkstemp makes 0600
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # interrupted after the replacement
                os.unlink(name)
            raise
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def write_folder(
    path: str | os.PathLike[str],
    files: Mapping[str, bytes | Path],
    may_replace: Callable[[Path], bool],
) -> None:
    """Write a folder next to its path, and move it there when it is complete.

    Args:
        path: the folder. An existing one is replaced if it is empty or ``may_replace`` allows it.
        files: name within the folder -> content, or the path of a file to copy.
        may_replace: whether an existing folder may be replaced.

    Raises:
        InputError: the folder cannot be written, or holds something else; it is not changed.
    """
    target = Path(path)
    if target.is_dir() and not target.is_symlink():
        try:
            replaceable = not any(target.iterdir()) or may_replace(target)
        except OSError as error:
            raise InputError(f"{target} cannot be read: {error.strerror or error}") from error
    else:
        replaceable = not os.path.lexists(target)
    if not replaceable:
        raise InputError(
            f"{target} cannot be written: it is there, and holds something else; name a folder "
            f"that does not exist"
        )
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        folder = temporary / "new"
        folder.mkdir()  # with the user's umask; mkdtemp makes 0700
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
        if target.exists():
            os.rename(target, temporary / "old")
        try:
            os.rename(folder, target)
        except OSError:
            if (temporary / "old").exists():
                os.rename(temporary / "old", target)
            raise
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
