"""Landmarks: a set of named points an image, one file a paper."""
