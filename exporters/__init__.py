"""Recipes: short runnable programs that train, export and verify one network each.

``python -m exporters`` lists them; every module here without a leading underscore is one, with a
function ``main`` that is a click command.
"""
