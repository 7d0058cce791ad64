"""Folders as the input of ``run``: which files are run, and where their outputs go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from synapse_onnx.errors import InputError

__all__ = ["Job", "jobs_of"]

#: suffixes of files that are run
_SUFFIXES = (".npy", ".npz", ".csv")


class Job(NamedTuple):
    """A file to run, and the file to write; absolute paths."""

    source: str
    target: str


def jobs_of(folder: str, output: str, suffix: str) -> list[Job]:
    """Return a job for every file of arrays or events in a folder, sorted by name.

    Raises:
        InputError: no such file, two files with one output, or a folder that cannot be used.
    """
    if output.endswith((".npz", ".npy")):
        raise InputError(
            f"{output} is a file's name, and --input is a folder; give -o a folder as well"
        )
    source, target = Path(folder).absolute(), Path(output).absolute()
    try:
        names = sorted(path.name for path in source.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    names = [name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]
    if not names:
        raise InputError(f"the folder {folder} is empty: it holds no .npy, .npz or .csv file")
    seen: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in seen:
            raise InputError(
                f"{seen[stem]} and {name} of {folder} would both be written to {stem}{suffix}; "
                f"rename one of them"
            )
        seen[stem] = name
    if target.exists() and not target.is_dir():
        raise InputError(f"{output} cannot be written: it is a file, and --input is a folder")
    if target.resolve() == source.resolve():
        raise InputError(f"{output} is the folder of the inputs; give another for the outputs")
    if not target.parent.is_dir():
        raise InputError(f"{output} cannot be written: there is no folder {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{output} cannot be written: the folder is read-only")
    return [Job(str(source / name), str(target / f"{Path(name).stem}{suffix}")) for name in names]
