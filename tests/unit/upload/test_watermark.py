"""upload/watermark.py: the newest durable transaction, and the threads that wait for it."""

import threading

import pytest

from replicator.errors import Fenced, NotDurable, StoreUnavailable
from replicator.model import Health
from replicator.upload.watermark import ENDED, FAILING, Watermark
from tests.helpers.errors import raises

LONG = 60


@pytest.fixture
def watermark():
    """Transactions up to 7 are durable."""
    return Watermark("memory://", 7)


def test_what_is_durable_already_needs_no_wait(watermark):
    """Whatever happened to the upload since."""
    watermark.change(health=Health(ENDED, Fenced("taken over")), stopped=True)
    assert watermark.wait(7, 0)


def test_a_waiting_thread_wakes_when_the_mark_passes_it(watermark):
    """Not before."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(watermark.wait(9, LONG)))
    thread.start()
    watermark.change(durable_txid=8)
    assert answers == []
    watermark.change(durable_txid=9)
    thread.join(LONG)
    assert answers == [True]


def test_time_that_is_over_is_an_error_with_values(watermark):
    """It names what is missing, where, and why the next append fails."""
    watermark.change(health=Health(FAILING, StoreUnavailable("away")))
    with raises(NotDurable, txid=9, durable_txid=7) as caught:
        watermark.wait(9, 0.01)
    assert (caught.value.txid, caught.value.durable_txid) == (9, 7)


def test_an_upload_that_ended_tells_every_waiter(watermark):
    """With the error that ended it; one that was stopped has none."""
    fenced = Fenced("another writer")
    watermark.change(stopped=True)
    with raises(NotDurable, txid=9, durable_txid=7):
        watermark.wait(9, LONG)
    watermark.change(health=Health(ENDED, fenced))
    assert watermark.state.ended
    with pytest.raises(Fenced) as caught:
        watermark.wait(9, LONG)
    assert caught.value is fenced


def test_txids_of_another_archive_are_not_waited_for(watermark):
    """The caller has to ask for the txid once more."""
    numbering = watermark.state.numbering
    assert watermark.wait(7, 0, numbering)
    watermark.renumber(3)
    assert watermark.txid == 3
    assert not watermark.wait(2, 0, numbering)
    assert not watermark.wait(9, LONG, numbering)
    assert watermark.wait(3, 0, watermark.state.numbering)
