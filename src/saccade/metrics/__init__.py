"""Metrics: one a file. Import from the submodules."""
