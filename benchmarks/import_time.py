"""How long ``import saccade`` and the command's help take, in fresh processes.

python -m benchmarks.import_time [--quick] [--processes 10]

Seconds from starting a process to its end, in turns over all commands; ``over_python_s`` is the median less that of an empty Python.
The program fails when one of ours loads torch, Lightning, timm, scikit-learn or matplotlib.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np

from benchmarks.common import seconds, timed, write_csv

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import saccade"': ["-c", "import saccade"],
    "saccade --help": ["-c", "from saccade.cli.main import main; main()", "--help"],
    "saccade train --help": ["-c", "from saccade.cli.main import main; main()", "train", "--help"],
    'python -c "import torch"': ["-c", "import torch"],
}
HEAVY = ("torch", "torchvision", "lightning", "timm", "sklearn", "matplotlib")


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def loaded(arguments: list[str]) -> set[str]:
    """Heavy packages that the command loads."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()} & set(HEAVY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10, help="processes a command")
    parser.add_argument("--quick", action="store_true", help="3 processes a command")
    arguments = parser.parse_args()
    heavy = {name: loaded(command) for name, command in COMMANDS.items() if "torch" not in name}  # files are in memory from here on
    run(COMMANDS['python -c "import torch"'])
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(3 if arguments.quick else arguments.processes):
        for name, command in COMMANDS.items():
            times[name].append(timed(lambda: run(command)))  # noqa: B023
    empty = float(np.median(times["python -c pass"]))
    rows = []
    for name, values in times.items():
        measured = seconds("wall", np.array(values))
        rows.append({"what": name, "processes": len(values)} | measured | {"over_python_s": measured["wall_s"] - empty})
        print(f"{name:28} {measured['wall_s']:.3f} s, {rows[-1]['over_python_s']:.3f} s over an empty Python")
    print(write_csv("import_time", rows))
    if any(heavy.values()):
        raise SystemExit(f"heavy packages are loaded: {heavy}")


if __name__ == "__main__":
    main()
