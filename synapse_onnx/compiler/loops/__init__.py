"""Loops over time are found again in the unrolled traces of a network of torch code."""
