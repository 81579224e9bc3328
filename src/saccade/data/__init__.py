"""Data in: formats, named sets, synthetic scenes, one data set class, transforms. Import from the submodules."""
