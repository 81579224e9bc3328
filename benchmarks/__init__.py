"""Speed and accuracy runs. Each is ``python -m benchmarks.NAME`` and writes ``results/NAME.csv`` with command, commit, machine, date."""
