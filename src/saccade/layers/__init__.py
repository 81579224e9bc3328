"""Blocks that three papers or more share; below three, a paper keeps its own copy."""
