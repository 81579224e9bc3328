"""Classical features: no network."""
