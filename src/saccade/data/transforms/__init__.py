"""Augmentation recipes (original pixels) and preprocessing (network pixels)."""
