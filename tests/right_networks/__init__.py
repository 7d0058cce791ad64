"""Right networks of unusual structure: verify must call each of them equal to its export.

The other generator, ``random_networks``, draws layers of every kind one behind the other. This one
draws what users put around layers: hooks, subclasses, wrappers, layers with two names, results that
nothing uses, arguments that change in place, outputs and inputs of any form, loops over time.

``python tests/right_networks --count 1000 --seed 1`` draws so many networks, prints a table by
structure, and exits with 1 if a right network was called not equal (a false alarm), or anything but
one clear sentence came back (a foreign exception, a sentence of the tracer). ``--only 17`` judges
the network of one seed again.
"""

from .draw import Drawn, draw
from .judge import KINDS, Verdict, judge, judge_sentence
from .table import Table

__all__ = ["KINDS", "Drawn", "Table", "Verdict", "draw", "judge", "judge_sentence"]
