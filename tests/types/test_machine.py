"""What the process may use of the machine."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource
{first}
def round():
    a = b"x" * 10_000_000
    b = b"x" * 20_000_000
round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_keep_memory_fetches_no_page_again():
    def faults(first):
        return int(subprocess.run([sys.executable, "-c", FAULTS.format(first=first)], capture_output=True, check=True, text=True).stdout)

    kept = faults("from saccade.types.machine import keep_memory; keep_memory()")
    assert kept < 50
    assert faults("") > 1_000


def test_keep_memory_leaves_other_systems_alone(monkeypatch):
    from saccade.types.machine import keep_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked for a C library"))
    keep_memory()
