"""Faults planted in the package, one at a time, to see that the tests notice.

    python tests/mutation synapse_onnx/ops --sample 30 --seed 1

The tests of a file are those of its room, ``tests/<room>``, and of what else names the file
(:mod:`mutation.selection`). They run once on the package as it is, to see that they pass, how long
they take and which lines they run. A mutant is given the tests that run its line, quickest first,
until one fails.
"""
