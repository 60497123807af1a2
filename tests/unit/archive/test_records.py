"""archive/records.py: small records beside the log, each under a key of its own."""

import pytest

from replicator.archive.keys import Keys
from replicator.archive.records import MOST_TRIES, PRUNED, add_record, list_records
from replicator.errors import ObjectExists

KEYS = Keys("app.db")


def test_records_of_one_millisecond_get_different_keys(store):
    """The second one is a millisecond later."""
    made = [add_record(store, KEYS, PRUNED, 7, 1000, {}) for _ in range(2)]
    assert [record.at_ms for record in made] == [1000, 1001]
    assert list_records(store, KEYS) == made


def test_a_record_without_a_free_key_is_given_up(store):
    """Each try is one PUT, and their number has a bound."""

    def taken(method, key):
        if method == "put":
            raise ObjectExists(f"{key} exists", key=key)

    store.before = taken
    with pytest.raises(ObjectExists):
        add_record(store, KEYS, PRUNED, 7, 1000, {})
    assert len(store.keys("put")) == MOST_TRIES
