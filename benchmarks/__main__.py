"""Run the scenarios and write the report: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine, report
from benchmarks.measure import Failed
from benchmarks.place import Place
from benchmarks.report import Outcome
from benchmarks.scenarios import cases
from benchmarks.scenarios.base import QUICK, Case, Effort, Trial
from benchmarks.systems.base import System

RESULTS = Path(__file__).parent / "results"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, about two minutes")
    parser.add_argument("--only", metavar="NAME", action="append",
                        help="scenarios whose name begins so; again for more")
    parser.add_argument("--runs", type=int, metavar="N", help="of each; default 3, quick 1")
    parser.add_argument("--large", action="store_true", help="the 5 GiB database too")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--scratch", type=Path, help="where there is room; default: TMPDIR")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    return parser.parse_args()


def main() -> int:
    args = parse()
    effort = dataclasses.replace(QUICK if args.quick else Effort(), large=args.large)
    chosen = [case for case in cases(effort)
              if not args.only or case.name.startswith(tuple(args.only))]
    if args.list or not chosen:
        print("\n".join(f"{case.name:22} {case.what}" for case in chosen))
        return 0 if chosen else 2
    for name in [name for name in os.environ if name.startswith(("AWS_", "REPLICATOR_"))]:
        del os.environ[name]  # the machine's own settings are no part of a measurement
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with us
    about = machine.describe()
    outcomes = []
    for outcome in measured(chosen, effort, args.runs or (1 if args.quick else 3), args.scratch):
        outcomes.append(outcome)  # written after each, so that what is cut short is not lost
        report.write(args.results / ("quick" if args.quick else "full"), about, outcomes)
    return int(any(outcome.failures for outcome in outcomes))


def measured(chosen: list[Case], effort: Effort, runs: int,
             scratch: Path | None) -> Iterator[Outcome]:
    """Every case, its systems in turn, as often as asked."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=scratch) as name:
        directory = Path(name)
        with Place(directory) as place:
            for case in chosen:
                outcome = Outcome(case.name, case.what)
                for run in range(runs):
                    turn = run % len(case.systems)
                    for kind in case.systems[turn:] + case.systems[:turn]:
                        attempt(case, kind, outcome, place, directory, effort)
                yield outcome


def attempt(case: Case, kind: type[System], outcome: Outcome, place: Place, directory: Path,
            effort: Effort) -> None:
    """One trial in a directory and under a prefix of its own; a failure is part of the report."""
    home = Path(tempfile.mkdtemp(dir=directory))
    system = kind(place, home, f"{case.name}-{secrets.token_hex(4)}")
    began = time.monotonic()
    try:
        figures = case.run(Trial(system, place, home, effort))
        outcome.add(kind.name, figures)
        said = ", ".join(report.shown(name, figures[name]) for name in report.BRIEF
                         if name in figures)
    except Failed as error:
        outcome.failures.append(str(error))
        said = f"FAILED: {error}"
    finally:
        system.kill()
        place.forget(system.prefix)
        shutil.rmtree(home, ignore_errors=True)
    print(f"{case.name:22} {kind.name:26} {time.monotonic() - began:6.1f} s  {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
