"""Live networks of other frameworks and of plain torch, as their authors write them.

``python -m tests.live_networks`` exports each, compares the file with the framework's own forward
at four sizes, and prints a table with a row a network. ``--framework snntorch`` and
``--name Leaky`` choose some, ``--pages docs/reference/live-networks`` writes the documentation.

A framework is one file whose name ends in ``_networks.py``, or several: it says FRAMEWORK, and
NETWORKS, a list of :class:`~network.Network`. It is found by itself, and left out, with the reason,
where what it imports is missing. A column of the table is a function in ``columns.py``.
"""
