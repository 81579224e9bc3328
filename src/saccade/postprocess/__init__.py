"""After a network: tiling, test-time augmentation, ensembles."""
