"""What the user calls: train, evaluate, predict."""
