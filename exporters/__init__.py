"""Recipes: short runnable programs that train, export and verify one network each.

``python -m exporters`` lists them. Every module here without a leading underscore is a recipe: its
``main`` is a click command.
"""
