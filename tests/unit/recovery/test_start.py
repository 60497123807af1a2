"""The table of starts: every local database, every archive, every command, order, expectation."""

import itertools

import pytest

from replicator.recovery.start import (
    Act,
    Archive,
    Asked,
    Command,
    Expect,
    Local,
    Order,
    decide_start,
    log_line,
)

# One row for each local database, one column for each archive, as `run` without any option acts.
ARCHIVES = (
    Archive.UNASKED,
    Archive.NONE,
    Archive.HISTORY,
    Archive.UNREACHABLE,
    Archive.DENIED,
)
WAITS = (
    "archive_unasked",
    "awaited",
    "missing_with_history",
    "archive_unknown",
    "archive_unknown",
)
RUN = {
    Local.MISSING: WAITS,
    Local.REMOVED: WAITS,
    Local.EMPTY: WAITS,
    Local.FRESH: (
        "archive_unasked",
        "first_start",
        "fresh_over_history",
        "not_compared",
        "not_compared",
    ),
    Local.ORPHANED: ("orphaned_log",) * 5,
    Local.NOT_A_DATABASE: ("not_a_database",) * 5,
    Local.CONTENT: ("not_compared",) * 5,
    Local.EQUAL: ("equal", "first_start", "equal", "equal", "equal"),
    Local.CONTINUED: ("continued",) * 5,
    Local.SHRUNK: ("shrunk",) * 5,
    Local.REPLACED: ("replaced",) * 5,
    Local.REWRITTEN: ("rewritten",) * 5,
    Local.SUCCESSOR: ("restored_here", "first_start", *("restored_here",) * 3),
    Local.OLDER: ("older_database", "first_start", *("older_database",) * 3),
    Local.DIFFERENT: ("different_database", "first_start", *("different_database",) * 3),
}
# The rows that differ around a command and with --auto-restore; a pattern is such a command.
RESTORES = (
    "archive_unasked",
    "awaited",
    "missing_restored",
    "store_awaited",
    "store_denied",
)
RESTORING = RUN | {
    Local.MISSING: RESTORES,
    Local.REMOVED: RESTORES,
    Local.EMPTY: RESTORES,
    Local.FRESH: ("archive_unasked", "first_start", *RESTORES[2:]),
}
PATTERN = RESTORING | {Local.REMOVED: ("removed_here",) * 5}
IF_MISSING = dict.fromkeys(Local, ("exists",) * 5) | dict.fromkeys(
    (Local.MISSING, Local.REMOVED, Local.EMPTY, Local.FRESH),
    ("archive_unasked", "no_backup", *RESTORES[2:]),
)
IF_MISSING[Local.ORPHANED] = ("orphaned_log",) * 5
COMMANDS = {
    Command.RUN: RUN,
    Command.AROUND: RESTORING,
    Command.AUTO_RESTORE: RESTORING,
    Command.PATTERN: PATTERN,
    Command.IF_MISSING: IF_MISSING,
}
NO_CONTENT = (
    Local.MISSING,
    Local.REMOVED,
    Local.EMPTY,
    Local.ORPHANED,
    Local.NOT_A_DATABASE,
)
FOLLOWS = (
    Local.EQUAL,
    Local.CONTINUED,
    Local.SHRUNK,
    Local.REPLACED,
    Local.REWRITTEN,
    Local.SUCCESSOR,
)
STAYS = tuple(local for local in FOLLOWS if local is not Local.REPLACED)
UNKNOWN = {
    Archive.UNASKED: "archive_unasked",
    Archive.UNREACHABLE: "store_awaited",
    Archive.DENIED: "store_denied",
}
EVERYTHING = list(itertools.product(Local, Archive, Command, Order, Expect))


def expected(local, archive, command, order, expect):
    """The design, in its plainest form: the code of each start."""
    plain = COMMANDS[command][local][ARCHIVES.index(archive)]
    if command is Command.IF_MISSING:
        return plain
    if expect is not Expect.ANY and archive in UNKNOWN:
        return UNKNOWN[archive]
    if expect is Expect.EXISTING and archive is Archive.NONE:
        return "expected_existing"
    foreign = local not in (*FOLLOWS, Local.CONTENT)
    if expect is Expect.NEW and archive is Archive.HISTORY and foreign:
        return "expected_new"
    if order is Order.TAKE_OVER and local not in NO_CONTENT:
        return "taken_over"
    if order is Order.RESTORE and local not in STAYS:
        if archive in UNKNOWN:
            return UNKNOWN[archive]
        if archive is Archive.HISTORY and local is not Local.CONTENT:
            return "restore_ordered"
    return plain


@pytest.mark.parametrize(("local", "archive"), list(itertools.product(Local, Archive)))
def test_every_start(local, archive):
    """Each combination has the outcome of the table above."""
    for command, order, expect in itertools.product(Command, Order, Expect):
        outcome = decide_start(local, archive, Asked(command, order, expect))
        assert outcome.code == expected(local, archive, command, order, expect), (
            command,
            order,
            expect,
        )


def test_no_start_buries_the_archive():
    """Over a history, nothing is followed but a proved continuation, or what a user ordered."""
    for local, archive, command, order, expect in EVERYTHING:
        if archive is Archive.HISTORY and local not in FOLLOWS and order is not Order.TAKE_OVER:
            outcome = decide_start(local, archive, Asked(command, order, expect))
            assert outcome.act is not Act.FOLLOW


def test_only_a_known_history_is_restored():
    """A restore needs an archive, and never replaces a database that continues it. The order
    replaces another file, although most of its pages are the known ones."""
    for local, archive, *asked in EVERYTHING:
        if decide_start(local, archive, Asked(*asked)).act is Act.RESTORE:
            assert archive is Archive.HISTORY
            assert local not in (*STAYS, Local.CONTENT)


def test_a_database_with_content_is_only_moved_aside_by_order():
    """Without --restore, a start restores nothing over tables, a WAL or an unknown file."""
    for local, archive, command, order, expect in EVERYTHING:
        outcome = decide_start(local, archive, Asked(command, order, expect))
        if outcome.act is Act.RESTORE and order is not Order.RESTORE:
            assert local in (Local.MISSING, Local.REMOVED, Local.EMPTY, Local.FRESH)


def test_a_question_is_only_asked_once():
    """Once the archive answered, no start asks it again; and without a need none does."""
    for local, archive, *asked in EVERYTHING:
        if decide_start(local, archive, Asked(*asked)).act is Act.ASK:
            assert archive is Archive.UNASKED
    assert decide_start(Local.CONTENT, Archive.UNASKED, Asked()).act is Act.COMPARE


def test_the_codes_name_the_acts():
    """One code stands for one act, except that a stray WAL is waited for or refused; each refusal
    and each wait for a person has a hint."""
    acts = {}
    for local, archive, *asked in EVERYTHING:
        outcome = decide_start(local, archive, Asked(*asked))
        acts.setdefault(outcome.code, set()).add(outcome.act)
        assert outcome.act is not Act.REFUSE or outcome.hint
    assert acts.pop("orphaned_log") == {Act.WAIT, Act.REFUSE}
    assert all(len(found) == 1 for found in acts.values()), acts


def test_the_log_line_holds_the_inputs():
    """Who reads it can repeat the decision."""
    for local, archive, *asked in EVERYTHING:
        start = Asked(*asked)
        line = log_line(local, archive, start, decide_start(local, archive, start))
        for each in (local, archive, *asked):
            assert each.value in line
