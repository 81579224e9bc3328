"""Segmenters: images to a class a pixel."""
