"""Darknet's own files: network descriptions (``.cfg``), weights, word trees; and the networks that they describe."""
