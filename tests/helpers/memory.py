"""A limit for the memory that a block of a test may take beyond what is there."""

import contextlib
import resource


@contextlib.contextmanager
def memory_limit(most_bytes):
    """The block raises ``MemoryError`` as soon as it needs more than ``most_bytes`` more."""
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = (each for each in status if each.startswith("VmData:"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024 + most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
