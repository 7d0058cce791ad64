"""Random networks: torch = ONNX Runtime, in every way to run the graph.

``python tests/random_networks --minutes 30 --seed 1`` draws networks for half an hour, prints what
was compared, and writes every failure, shrunk, to a file of ``tests/cases``, which
``test_random_networks.py`` finds. ``--count 2000`` ends after that many networks. ``--case FILE``
judges one case again.
"""

from .build import INPUTS, MAKERS, NORMS, SYNAPSES, WEIGHTS, Case, Layer, build
from .compare import Verdict, judge
from .draw import VARIANTS, cases, regimes
from .search import CASES, Tally, hunt, read, write

__all__ = [
    "CASES", "INPUTS", "MAKERS", "NORMS", "SYNAPSES", "VARIANTS", "WEIGHTS", "Case", "Layer",
    "Tally", "Verdict", "build", "cases", "hunt", "judge", "read", "regimes", "write",
]  # fmt: skip
