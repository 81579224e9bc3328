"""Classifiers: images to class probabilities."""
