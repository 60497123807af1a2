"""The databases that one command restores: those of a bucket, or those of a TOML file.

Owns the search, and the name of each database below a common directory: its prefix, without the
part that was given. Refuses to judge a name from a bucket; see :mod:`.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replicator.archive.keys import Keys, default_prefix
from replicator.archive.listing import find_databases, search_databases
from replicator.archive.locate import no_backup, url_of
from replicator.config.file import ConfigFile, Entry
from replicator.config.patterns import Pattern, matches
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ConfigError, ReplicatorError
from replicator.store.address import StoreAddress
from replicator.store.base import Store

EXAMPLE = "any"  # a name, to learn the prefix above it
ROOT_NAME = "restored.db"  # of a database without a prefix

OpenStore = Callable[[StoreAddress], Store]


@dataclass(frozen=True, slots=True)
class Source:
    """A database in a bucket. ``error``: the part of a bucket called ``name`` could not be
    searched."""

    name: str
    store: Store | None
    prefix: str = ""
    error: ReplicatorError | None = None

    @property
    def url(self) -> str:
        return "" if self.store is None else url_of(self.store, self.prefix)


def in_bucket(store: Store, prefix: str) -> list[Source]:
    """The databases below ``prefix``, and at it, by name. ``NoBackup`` if there is none."""
    root = Keys(prefix).root
    found = [
        Source(_name(folder, root), store, folder) for folder in search_databases(store, prefix)
    ]
    if not found:
        raise no_backup(url_of(store, prefix))
    return _sorted(found)


def _name(folder: str, root: str) -> str:
    """The name below ``root``; for a database at the root itself, the last part of its prefix."""
    if f"{folder}/" == root or not folder:
        return default_prefix(folder) if folder else ROOT_NAME
    return folder.removeprefix(root)


def in_file(file: ConfigFile, open_store: OpenStore) -> list[Source]:
    """The databases of the file: those with an entry of their own, and those that a bucket holds
    and a pattern names, each once. The name of each is its whole prefix."""
    found: list[Source] = []
    for entry in file.entries:
        try:
            found += _of_entry(file, entry, open_store)
        except ReplicatorError as error:
            found.append(Source(entry.name, None, error=error))
    return _sorted(
        list({(id(each.store), each.prefix, each.error): each for each in found}.values())
    )


def _of_entry(file: ConfigFile, entry: Entry, open_store: OpenStore) -> Iterator[Source]:
    if entry.pattern is not None:
        store = open_store(example_config(file, entry, entry.pattern).address)
        configs = named_by_pattern(file, entry, entry.pattern, store)
    else:
        name = default_prefix(entry.path)
        configs = iter([file.config(entry, Path(entry.path), name)])
    for config in configs:
        address = config.address
        yield Source(address.prefix, open_store(address), address.prefix)


def _sorted(found: list[Source]) -> list[Source]:
    return sorted(found, key=lambda source: source.name)


def chosen(found: list[Source], only: Sequence[str]) -> list[Source]:
    """Those whose name one of the patterns ``only`` names; all without a pattern. ``ConfigError``
    if there is none. A part of a bucket that could not be searched stays."""
    if not only:
        return found
    patterns = [pattern.split("/") for pattern in only]
    named = [
        source
        for source in found
        if source.error is not None
        or any(matches(pattern, source.name.split("/")) for pattern in patterns)
    ]
    if not named:
        raise ConfigError(
            f"{', '.join(map(repr, only))} names none of {len(found)} databases",
            setting="only",
            code="no_match",
            hint="list them with replicator history; * names no slash, ** any number of folders",
        )
    return named


def example_config(file: ConfigFile, entry: Entry, pattern: Pattern) -> SqliteReplicatorConfig:
    """The settings of a database of the pattern; the last part of its prefix is
    :data:`EXAMPLE`."""
    return file.config(entry, Path(pattern.fixed) / EXAMPLE, EXAMPLE)


def named_by_pattern(
    file: ConfigFile, entry: Entry, pattern: Pattern, store: Store
) -> Iterator[SqliteReplicatorConfig]:
    """The settings of each database that the bucket holds and that the pattern names."""
    parent = example_config(file, entry, pattern).address.prefix.removesuffix(EXAMPLE)
    for prefix in find_databases(store, parent.rstrip("/")):
        name = prefix.removeprefix(parent)
        if prefix.startswith(parent) and pattern.names(name):
            yield file.config(entry, Path(pattern.fixed) / name, name)
