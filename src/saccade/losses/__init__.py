"""Losses: one a file, formula and paper in the docstring."""
