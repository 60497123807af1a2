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
from benchmarks.outcome import Outcome
from benchmarks.place import Place
from benchmarks.scenarios import cases
from benchmarks.scenarios.base import QUICK, Case, Effort, Figures, Trial
from benchmarks.systems.base import System

RESULTS = Path(__file__).parent / "results"
LARGE = 5 * 1024**3 / 1e6  # MB: 5 GiB


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, two to three minutes")
    parser.add_argument(
        "--curves", action="store_true", help="only the cost of growth, about a quarter of an hour"
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="scenarios whose name begins so; again for more. Their results "
        "replace those of an earlier run, the others stay",
    )
    parser.add_argument(
        "--runs", type=int, metavar="N", help="of each; default 3, quick 1; points of a curve 1"
    )
    parser.add_argument("--large", action="store_true", help="the 5 GiB database too")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--scratch", type=Path, help="where there is room; default: TMPDIR")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    return parser.parse_args()


def main() -> int:
    args = parse()
    planned = plan(args)
    if args.list or not planned:
        print("\n".join(f"{case.name:22} {case.what}" for case, _ in planned))
        return 0 if planned else 2
    for name in [name for name in os.environ if name.startswith(("AWS_", "REPLICATOR_"))]:
        del os.environ[name]  # the machine's own settings are no part of a measurement
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with us
    print(f"{len(planned)} scenarios, {duration(planned, quick=args.quick)}", flush=True)
    directory = args.results / ("quick" if args.quick else "full")
    about, outcomes = machine.describe(), {}
    if args.only or args.curves:
        outcomes = report.read(directory)
    failed = 0
    for outcome in measured(planned, effort_of(args), args.scratch):
        outcomes[outcome.name] = outcome  # written after each trial: nothing is lost
        report.write(directory, about, in_order(outcomes, args))
        failed += bool(outcome.failures)
    return int(failed > 0)


def effort_of(args: argparse.Namespace) -> Effort:
    effort = QUICK if args.quick else Effort()
    if args.quick and not args.curves:  # they would take as long again
        effort = dataclasses.replace(effort, sizes=(), rates=(), many=())
    return dataclasses.replace(effort, sizes=(*effort.sizes, LARGE)) if args.large else effort


def plan(args: argparse.Namespace) -> list[tuple[Case, int]]:
    """What was asked for, and how often each."""
    usual = 1 if args.quick else 3
    return [
        (case, args.runs or (1 if case.curve else usual))
        for case in cases(effort_of(args))
        if (case.curve or not args.curves)
        and (not args.only or case.name.startswith(tuple(args.only)))
    ]


def duration(planned: list[tuple[Case, int]], *, quick: bool) -> str:
    """In words; the scenarios know how long they take in full size."""
    if quick:
        return "two to three minutes"
    seconds = sum(case.seconds * len(case.systems) * runs for case, runs in planned)
    return f"about {seconds / 60:.0f} minutes"


def in_order(outcomes: dict[str, Outcome], args: argparse.Namespace) -> list[Outcome]:
    """As the scenarios are listed; what earlier runs left and is not listed now comes last."""
    place = {case.name: at for at, case in enumerate(cases(effort_of(args)))}
    return sorted(outcomes.values(), key=lambda outcome: place.get(outcome.name, len(place)))


def measured(
    planned: list[tuple[Case, int]], effort: Effort, scratch: Path | None
) -> Iterator[Outcome]:
    """Every case, its systems in turn, as often as asked; the outcome so far after each trial."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=scratch) as name:
        directory = Path(name)
        with Place(directory) as place:
            for case, runs in planned:
                outcome = Outcome(case.name, case.what, machine.now())
                for run in range(runs):
                    turn = run % len(case.systems)
                    for kind in case.systems[turn:] + case.systems[:turn]:
                        attempt(case, kind, outcome, place, directory, effort)
                        yield outcome


def attempt(
    case: Case, kind: type[System], outcome: Outcome, place: Place, directory: Path, effort: Effort
) -> None:
    """One trial; a failure is part of the report."""
    began = time.monotonic()
    try:
        figures = carry_out(case, kind, place, directory, effort)
        outcome.add(kind.name, figures)
        said = summary(figures)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, the others have their turn
        told = isinstance(error, Failed)  # it says itself whose it is
        reason = str(error) if told else f"{kind.name}: {type(error).__name__}: {error}"
        outcome.failures.append(reason)
        said = f"FAILED: {reason}"
    print(f"{case.name:22} {kind.name:26} {time.monotonic() - began:6.1f} s  {said}", flush=True)


def carry_out(
    case: Case, kind: type[System], place: Place, directory: Path, effort: Effort
) -> Figures:
    """In a directory and under a prefix of its own, of which nothing is left."""
    home = Path(tempfile.mkdtemp(dir=directory))
    system = kind(place, home, f"{case.name}-{secrets.token_hex(4)}")
    try:
        return case.run(Trial(system, place, home, effort))
    finally:
        system.kill()
        shutil.rmtree(home, ignore_errors=True)
        place.forget(system.prefix)


def summary(figures: Figures) -> str:
    return ", ".join(report.shown(name, figures[name]) for name in report.BRIEF if name in figures)


if __name__ == "__main__":
    sys.exit(main())
