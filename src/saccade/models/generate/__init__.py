"""Generators: noise to images."""
