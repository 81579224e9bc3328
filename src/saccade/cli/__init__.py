"""The command line: one file a verb, parsing only."""
