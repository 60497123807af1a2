"""format/seek_table.py: a table is a sequence of its entries."""

from replicator.format.envelope import read_tail
from replicator.format.seek_table import SeekEntry
from tests.helpers.sample_objects import KEY, small_snapshot


def table(**options):
    data = small_snapshot(**options)[0]
    return read_tail(data, len(data), KEY).seek


def test_tables_of_the_same_entries_are_equal():
    """Whether the other sequence is a table or not; equal tables have the same hash."""
    one, same, other = table(), table(), table(frame_pages=3)
    assert one == same == list(one)
    assert hash(one) == hash(same)
    assert one != other
    assert one != len(one)


def test_a_part_of_a_table_has_its_entries():
    """Slices and negative positions are those of a sequence."""
    whole = table()
    assert whole[:2] == tuple(whole)[:2]
    assert whole[-1] == list(whole)[-1]
    assert isinstance(whole[0], SeekEntry)
