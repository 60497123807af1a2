"""``python -m tests.fuzz``: all targets in turn, for so many seconds, within 300 MiB.

The limit for data includes the stacks of threads, which are hardly used; the peak of the memory
in use is compared at the end.
"""

import argparse
import random
import resource
import sys
import time

from tests.fuzz.fuzzer import Defect, Fuzzer
from tests.fuzz.targets import TARGETS

MOST_MEMORY = 300  # MiB in use
MOST_DATA = 1 << 30  # bytes of data, stacks of threads included
SLICE = 1.0  # seconds for a target before the next one


def main():
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--target", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
    print(f"seed {arguments.seed}", flush=True)
    fuzzers = [Fuzzer(name, arguments.seed) for name in arguments.target or TARGETS]
    until, defects = time.monotonic() + arguments.seconds, 0
    while time.monotonic() < until:
        for fuzzer in fuzzers:
            stop = time.monotonic() + SLICE
            while time.monotonic() < stop:
                try:
                    fuzzer.run(20)
                except Defect as defect:
                    defects += 1
                    print(defect, flush=True)
    for fuzzer in fuzzers:
        print(f"{fuzzer.name:<18} {fuzzer.inputs:>12,}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    total = sum(fuzzer.inputs for fuzzer in fuzzers)
    print(f"{total:,} inputs, {defects} defects, peak memory {peak} MiB")
    return int(defects > 0 or peak > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
