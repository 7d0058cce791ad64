"""Looks for no doctests in files of networks, whose frameworks warn when they are imported."""

from .collection import files

collect_ignore = [f"{file}.py" for file in files()]
