"""The table of starts: what a start does with the local database and its archive. Pure.

A start never begins a generation from a database that could bury the archive, and it never deletes
or overwrites a file. A database that is empty or has no table counts as missing. One that neither
equals the newest state of the archive nor provably follows it is refused until a user chooses.

Owns: the decision, its reason code, and its hint. Refuses: to look at a file or at a bucket; the
inputs are values, and ``ASK`` or ``COMPARE`` name the input that is wanted next.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Local(enum.Enum):
    """The local database."""

    MISSING = "missing"
    REMOVED = "missing, with its cache"  # the file was removed on this machine
    EMPTY = "empty"  # 0 bytes
    FRESH = "without tables"
    ORPHANED = "missing, with a WAL"  # a WAL or a journal without its database
    NOT_A_DATABASE = "not a database"
    CONTENT = "with content"  # it has tables, and was not compared yet
    EQUAL = "equal to the head"
    CONTINUED = "continued by its cache"
    SHRUNK = "continued by its cache, but shrunk"  # to less than half, or it lost all its tables
    REPLACED = "another file with most of its pages"  # as the cache knows them
    REWRITTEN = "the file of its cache, with other pages"  # most of them differ
    SUCCESSOR = "restored from the head, and written since"
    OLDER = "older than the head"
    DIFFERENT = "different"


class Archive(enum.Enum):
    """The archive below the prefix."""

    UNASKED = "not asked"
    NONE = "none"
    HISTORY = "history"
    UNREACHABLE = "unreachable"
    DENIED = "denied"


class Command(enum.Enum):
    """The command that starts."""

    RUN = "run"
    AROUND = "run around a command"
    AUTO_RESTORE = "run --auto-restore"
    PATTERN = "run, named by the bucket below a pattern"
    IF_MISSING = "restore --if-missing"


class Order(enum.Enum):
    """The choice of a user between two databases."""

    NONE = "none"
    TAKE_OVER = "take-over"
    RESTORE = "restore"


class Expect(enum.Enum):
    """The archive that a user expects."""

    ANY = "any"
    EXISTING = "existing"
    NEW = "new"


class Act(enum.Enum):
    """The next step."""

    ASK = "ask the archive"
    COMPARE = "compare with the archive"
    FOLLOW = "follow"
    WAIT = "wait for the database"
    WAIT_STORE = "wait for the store"
    RESTORE = "restore"  # files that exist are moved aside first
    KEEP = "leave the file alone"
    NOTHING = "nothing to restore"
    SKIP = "leave it in the bucket"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Asked:
    """A start as it was asked for."""

    command: Command = Command.RUN
    order: Order = Order.NONE
    expect: Expect = Expect.ANY


PLAIN_RUN = Asked()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decision. ``code`` is stable; ``hint`` is the next step of a user, "" if there is none."""

    act: Act
    code: str
    hint: str = ""


NOTHING_THERE = frozenset({Local.MISSING, Local.REMOVED, Local.EMPTY, Local.FRESH})
NO_FILE = NOTHING_THERE - {Local.FRESH}
FOLLOWS = frozenset(
    {
        Local.EQUAL,
        Local.CONTINUED,
        Local.SHRUNK,
        Local.REPLACED,
        Local.REWRITTEN,
        Local.SUCCESSOR,
    }
)
BY_CACHE = frozenset({Local.CONTINUED, Local.SHRUNK, Local.REPLACED, Local.REWRITTEN})
STAYS = FOLLOWS - {Local.REPLACED}  # even if the order is to restore
RESTORING = frozenset({Command.AROUND, Command.AUTO_RESTORE, Command.PATTERN})
UNKNOWN = frozenset({Archive.UNREACHABLE, Archive.DENIED})

CHOOSE = (
    "find out which database is the right one. If it is the one in the bucket: stop every program "
    "that uses the local file, and start with --restore, which moves the local file aside. If it "
    "is the local one: stop the other replicator and start here with --take-over, which keeps the "
    "other history restorable"
)
_LOST = (
    "restore it with `replicator restore`, or start with --auto-restore; if the application made a "
    "new file already, stop the application and start with --restore"
)
_PINNED = "the state before is pinned: replicator history"

_ASK = Outcome(Act.ASK, "archive_unasked")
_COMPARE = Outcome(Act.COMPARE, "not_compared")
_FIRST = Outcome(Act.FOLLOW, "first_start")
_KEEP = Outcome(Act.KEEP, "exists")
_RESTORE = Outcome(Act.RESTORE, "missing_restored")
_RESTORE_ORDERED = Outcome(Act.RESTORE, "restore_ordered")
_WAIT_STORE = Outcome(
    Act.WAIT_STORE, "store_awaited", "check the network and the endpoint, or raise --wait-store"
)
_DENIED = Outcome(
    Act.REFUSE, "store_denied", "check the access key, the secret and the policy of the bucket"
)
_ORPHANED = Outcome(
    Act.REFUSE,
    "orphaned_log",
    "the WAL may hold transactions: bring its database back, or start with --restore, which moves "
    "the WAL aside",
)
_NO_DATABASE = Outcome(
    Act.REFUSE,
    "not_a_database",
    "name a plain SQLite file; --restore moves this one aside and restores the database",
)

# The next step of a start that needs the archive, while it is not known.
_UNANSWERED = {
    Archive.UNASKED: _ASK,
    Archive.UNREACHABLE: _WAIT_STORE,
    Archive.DENIED: _DENIED,
}

# The local databases that were compared with the archive, or continue it.
_COMPARED = {
    Local.EQUAL: Outcome(Act.FOLLOW, "equal"),
    Local.CONTINUED: Outcome(Act.FOLLOW, "continued"),
    Local.SHRUNK: Outcome(Act.FOLLOW, "shrunk", _PINNED),
    Local.REPLACED: Outcome(Act.FOLLOW, "replaced", _PINNED),
    Local.REWRITTEN: Outcome(Act.FOLLOW, "rewritten", _PINNED),
    Local.SUCCESSOR: Outcome(Act.FOLLOW, "restored_here"),
    Local.OLDER: Outcome(Act.REFUSE, "older_database", CHOOSE),
    Local.DIFFERENT: Outcome(Act.REFUSE, "different_database", CHOOSE),
}


def decide_start(local: Local, archive: Archive, asked: Asked) -> Outcome:
    """The outcome of a start. An expectation counts for more than an order, an order for more than
    the rest."""
    for rule in (_expected, _ordered, _asked):
        outcome = rule(local, archive, asked)
        if outcome is not None:
            return outcome
    return _plain(local, archive)


def log_line(local: Local, archive: Archive, asked: Asked, outcome: Outcome) -> str:
    """The decision with its inputs, for the log."""
    return (
        f"start: {outcome.act.value} ({outcome.code}); database: {local.value}; "
        f"archive: {archive.value}; asked: {asked.command.value}, order {asked.order.value}, "
        f"expect {asked.expect.value}"
    )


def _expected(local: Local, archive: Archive, asked: Asked) -> Outcome | None:
    """The archive has to be what the user expects, before anything else counts."""
    if asked.expect is Expect.ANY or asked.command is Command.IF_MISSING:
        return None
    if archive in _UNANSWERED:
        return _UNANSWERED[archive]
    if asked.expect is Expect.EXISTING and archive is Archive.NONE:
        hint = "check --bucket and --prefix; for a new archive start with --expect any"
        return Outcome(Act.REFUSE, "expected_existing", hint)
    foreign = local not in FOLLOWS | {Local.CONTENT}
    if asked.expect is Expect.NEW and archive is Archive.HISTORY and foreign:
        hint = "check --bucket and --prefix: each database needs a prefix of its own"
        return Outcome(Act.REFUSE, "expected_new", hint)
    return None


def _ordered(local: Local, archive: Archive, asked: Asked) -> Outcome | None:
    """The orders. Neither applies to a database that does not exist, or that the bucket cannot
    replace."""
    if asked.command is Command.IF_MISSING:
        return None
    if asked.order is Order.TAKE_OVER and local not in NO_FILE | {
        Local.ORPHANED,
        Local.NOT_A_DATABASE,
    }:
        return Outcome(Act.FOLLOW, "taken_over")
    if asked.order is not Order.RESTORE or local in STAYS:
        return None
    if archive in _UNANSWERED:
        return _UNANSWERED[archive]
    if archive is Archive.NONE or local is Local.CONTENT:
        return None
    return _RESTORE_ORDERED


def _asked(local: Local, archive: Archive, asked: Asked) -> Outcome | None:
    """The commands that restore a missing database."""
    if asked.command is Command.PATTERN and local is Local.REMOVED:
        return Outcome(Act.SKIP, "removed_here", "restore it with `replicator restore --prefix`")
    if asked.command is Command.IF_MISSING:
        return _if_missing(local, archive)
    if asked.command not in RESTORING:
        return None
    if local is Local.ORPHANED:
        return _ORPHANED
    if local not in NOTHING_THERE:
        return None
    if archive in _UNANSWERED:
        return _UNANSWERED[archive]
    return _RESTORE if archive is Archive.HISTORY else None


def _if_missing(local: Local, archive: Archive) -> Outcome:
    if local is Local.ORPHANED:
        return _ORPHANED
    if local not in NOTHING_THERE:
        return _KEEP
    if archive in _UNANSWERED:
        return _UNANSWERED[archive]
    if archive is Archive.NONE:
        return Outcome(Act.NOTHING, "no_backup", "check the bucket and the prefix")
    return _RESTORE


def _plain(local: Local, archive: Archive) -> Outcome:
    """A sidecar that restores nothing, or has nothing to restore from."""
    if local is Local.NOT_A_DATABASE:
        return _NO_DATABASE
    if local is Local.ORPHANED:
        return Outcome(Act.WAIT, "orphaned_log", _ORPHANED.hint)
    if local in NO_FILE:
        return _without_file(archive)
    if local is Local.FRESH:
        return _without_tables(archive)
    if local is Local.CONTENT:
        return _COMPARE
    if archive is Archive.NONE and local not in BY_CACHE:
        return _FIRST
    return _COMPARED[local]


def _without_file(archive: Archive) -> Outcome:
    if archive is Archive.UNASKED:
        return _ASK
    if archive in UNKNOWN:
        return Outcome(Act.WAIT, "archive_unknown")
    if archive is Archive.NONE:
        return Outcome(Act.WAIT, "awaited")
    return Outcome(Act.WAIT, "missing_with_history", _LOST)


def _without_tables(archive: Archive) -> Outcome:
    if archive is Archive.UNASKED:
        return _ASK
    if archive in UNKNOWN:  # the comparison, which waits for the store, decides
        return _COMPARE
    if archive is Archive.NONE:
        return _FIRST
    return Outcome(Act.REFUSE, "fresh_over_history", _LOST)
