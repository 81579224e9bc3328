"""The words that all rooms speak: Sample, target keys, Prediction, Geometry, Recipe, and the errors a user sees.

Nothing here loads torch on import except :mod:`saccade.types.sample`, :mod:`saccade.types.geometry` and
:mod:`saccade.types.prediction`; import from the submodules.
"""
