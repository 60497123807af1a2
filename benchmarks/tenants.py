"""Many small databases restored by one command, next to one command for each.

    python -m benchmarks.tenants               # 200 databases of about 100 kB; some minutes

One sidecar replicates them to SeaweedFS, behind the counting proxy. Then they are restored twice,
and each file is compared with its source. The second `restore --all` meets complete files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import database
from benchmarks.measure import Failed, Ran, run
from benchmarks.place import Place

SIZE = 100_000  # bytes of a database
REPLICATOR = (sys.executable, "-m", "replicator")


@dataclass(frozen=True)
class Figures:
    """Of all commands of one way together; ``peak`` is that of the largest one, in bytes."""

    seconds: float
    cpu: float
    peak: int
    requests: int
    down: int

    def row(self, way: str) -> str:
        return (
            f"| {way} | {self.seconds:.1f} s | {self.cpu:.1f} s | {self.peak / 1e6:.0f} MB "
            f"| {self.requests:,} | {self.down / 1e6:.1f} MB |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tenants", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    print("| way | wall | CPU | peak memory | requests | bytes down |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    for way, figures in measured(count):
        print(figures.row(way), flush=True)
    return 0


def measured(count: int) -> Iterator[tuple[str, Figures]]:
    with tempfile.TemporaryDirectory(prefix="tenants-") as name, Place(Path(name)) as place:
        home = Path(name)
        sources = [home / "data" / f"tenant-{number:04}.db" for number in range(count)]
        replicate(sources, place)
        bucket = ("--bucket", "bench", "--endpoint-url", place.url)
        into, alone = home / "into", home / "alone"
        every = [*REPLICATOR, "restore", *bucket, "--all", "--into", into]
        single = [
            [*REPLICATOR, "restore", *bucket, "--prefix", path.name, "-o", alone / path.name]
            for path in sources
        ]
        for way, commands, made in (
            ("`restore --all`", [every], into),
            ("the same again", [every], into),
            (f"{count} times `restore`", single, alone),
        ):
            yield way, total(commands, place, home)
            for path in sources:
                compare(path, made / path.name)


def replicate(sources: list[Path], place: Place) -> None:
    """Make the databases, and copy them to the bucket."""
    sources[0].parent.mkdir()
    for seed, path in enumerate(sources):
        database.make(path, SIZE, seed)
    config = sources[0].parent / "replicator.toml"
    store = f'bucket = "bench"\nendpoint_url = "{place.server.endpoint_url}"\n'
    config.write_text(f'{store}[[database]]\npath = "*.db"\n')
    run([*REPLICATOR, "run", "--config", config, "--", "true"], place.environment(), config.parent)


def total(commands: list[list[str | Path]], place: Place, home: Path) -> Figures:
    mark = place.mark()
    ran: list[Ran] = [run(command, place.environment(), home) for command in commands]
    asked = place.since(mark)
    return Figures(
        sum(each.seconds for each in ran),
        sum(each.cpu for each in ran),
        max(each.peak_rss for each in ran),
        len(asked),
        sum(each.down for each in asked),
    )


def compare(source: Path, made: Path) -> None:
    if database.digest(made) != database.digest(source):
        raise Failed(f"{made} is not {source}")


if __name__ == "__main__":
    raise SystemExit(main())
