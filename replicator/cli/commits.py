"""The commits of ``replicator history``: the options that choose them, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from replicator.cli import options, output

if TYPE_CHECKING:
    from replicator.inspect.transactions import Transaction
    from replicator.store.address import StoreAddress


@dataclass(frozen=True, slots=True)
class Commits(options.Options):
    """The commits to list, and whether their tables are wanted."""

    transactions: Annotated[
        bool,
        options.option("--transactions", help="list the commits of one database, newest first"),
    ] = False
    since: Annotated[
        str | None,
        options.option(
            "--since",
            metavar="WHEN",
            help="list commits from then on: a time, a txid, or the name of a pin",
        ),
    ] = None
    until: Annotated[
        str | None, options.option("--until", metavar="WHEN", help="list commits up to then")
    ] = None
    tables: Annotated[
        bool, options.option("--tables", help="list commits with the tables that they touched")
    ] = False
    table: Annotated[
        str,
        options.option("--table", metavar="NAME", help="list only commits that touched this table"),
    ] = ""
    limit: Annotated[
        int,
        options.option(
            "--limit", metavar="N", min=0, help="maximum number of commits to list; 0: no limit"
        ),
    ] = 50
    scratch: options.Scratch = None

    @property
    def any(self) -> bool:
        bounds = self.since is not None or self.until is not None
        return self.transactions or bounds or self.with_tables

    @property
    def with_tables(self) -> bool:
        return self.tables or bool(self.table)


def list_commits(target: StoreAddress, commits: Commits, *, as_json: bool) -> None:
    """Print the commits of a database, newest first."""
    from replicator.archive.locate import open_archive
    from replicator.archive.point import NEWEST_POINT, RestorePoint
    from replicator.inspect.transactions import span_of, touching, transactions

    limit = commits.limit or None
    since, until = (
        NEWEST_POINT if each is None else RestorePoint.parse(each)
        for each in (commits.since, commits.until)
    )
    with open_archive(target) as (store, prefix):
        span = span_of(store, prefix, since, until)
        found = (
            touching(store, prefix, span, table=commits.table, limit=limit, scratch=commits.scratch)
            if commits.with_tables
            else transactions(store, prefix, span)
        )
        rows = list(islice(found, limit))
    if as_json:
        output.emit_json(rows)
        return
    columns = (">transaction", "committed", ">frames", ">WAL")
    if commits.with_tables:
        output.table(
            (*columns, "tables", "note"),
            [(*_commit(row), _tables(row), _note(row)) for row in rows],
        )
    else:
        output.table((*columns, "note"), [(*_commit(row), _note(row)) for row in rows])


def _commit(each: Transaction) -> tuple[str, ...]:
    one = each.first_txid == each.txid
    name = f"{each.txid:,}" if one else f"{each.first_txid:,} … {each.txid:,}"
    at = "" if each.committed_ms is None else output.moment(each.committed_ms)
    return name, at, f"{each.frames:,}", output.size(each.bytes)


def _note(each: Transaction) -> str:
    return {
        "commit": "",
        "step": "kept as one step",
        "start": "a generation begins",
        "catch-up": "caught up after a gap",
        "missing": "[bold red]missing[/]",
    }[each.kind]


def _tables(each: Transaction) -> str:
    if each.tables is None:
        return "unknown"
    unknown = (
        [f"unknown ({output.plural(each.unknown_pages, 'page')})"] if each.unknown_pages else []
    )
    return output.safe(", ".join([*each.tables, *unknown]) or "none")
