"""The memory of a process that runs only the replicator: settings of the C library and numpy."""

import ctypes
import os
import subprocess
import sys

import pytest

from replicator.system import process

TRIMS = """
import ctypes
from pathlib import Path
from replicator.system import process

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

process.use_one_arena()
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free.argtypes = [ctypes.c_void_p]
blocks = [malloc(65536) for _ in range(513)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
for block in blocks[:-1]:  # the last keeps the end of the heap where it is
    free(block)
before = resident()
process.trim_heap()
print(before - resident())
"""
STAYS_APART = (
    TRIMS.replace("use_one_arena()", "release_large_buffers()").partition("blocks =")[0]
    + """
large = []
for _ in range(2):  # the second time glibc would take it from the heap
    large.append(malloc(24 << 20))
    ctypes.memset(large[-1], 1, 24 << 20)
    end = malloc(100)
    before = resident()
    free(large[-1])
print(before - resident())
"""
)
THREADS = """
import os
from replicator.system import process

with process.one_blas_thread():
    import numpy
numpy.ones((2, 2)) @ numpy.ones((2, 2))
print(len(os.listdir("/proc/self/task")), os.environ.get(process.BLAS_THREADS))
"""
has_trim = hasattr(ctypes.CDLL(None), "malloc_trim")


def run(code):
    environment = {k: v for k, v in os.environ.items() if k != process.BLAS_THREADS}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.split()


@pytest.mark.skipif(not has_trim, reason="the C library is not glibc")
def test_trim_heap_returns_free_memory():
    """Free memory below the end of the heap, 32 MiB here, is returned to the system."""
    assert int(run(TRIMS)[0]) > 16 << 20


@pytest.mark.skipif(not has_trim, reason="the C library is not glibc")
def test_a_large_buffer_is_returned_when_it_is_freed():
    """Also the second time, when glibc would have taken it from the heap."""
    assert int(run(STAYS_APART)[0]) > 20 << 20


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_numpy_starts_no_threads():
    """One thread after numpy was imported and used; the environment is as before."""
    assert run(THREADS) == ["1", "None"]


def test_the_setting_of_the_user_is_restored(monkeypatch):
    """Also after an error in the block."""
    monkeypatch.setenv(process.BLAS_THREADS, "7")
    with pytest.raises(ImportError), process.one_blas_thread():
        import replicator.nothing_of_the_kind  # noqa: F401
    assert os.environ[process.BLAS_THREADS] == "7"


def test_another_c_library(monkeypatch):
    """Without the functions of glibc the heap keeps its settings, and nothing fails."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    process.use_one_arena()
    process.release_large_buffers()
    process.trim_heap()
