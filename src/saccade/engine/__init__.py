"""Configuration, trainer glue, evaluator, predictor, bundle."""
