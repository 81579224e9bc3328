"""Detectors: images to boxes, labels and scores."""
