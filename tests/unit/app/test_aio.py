"""The same for asyncio: the loop stays free, and a cancelled call leaves nothing inconsistent."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig, wait_durable
from replicator.app import aio
from replicator.errors import NotDurable, NotRunning
from tests.helpers.control import answering
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, replicating


def test_a_block_and_a_wait(answered, app):
    """As the blocking ones; a hundred tasks wait at the same time and share requests."""

    async def main():
        async with aio.durable(app.db, LONG) as commit:
            app.insert()
        assert commit.durable
        assert await aio.wait_durable(app.path, timeout=LONG) == commit.position
        app.insert()
        return await asyncio.gather(*(aio.wait_durable(app.path, timeout=LONG) for _ in range(100)))

    positions = asyncio.run(main())
    assert {each.txid for each in positions} == {answered.status().durable_txid}


def test_blocks_of_tasks_queue(answered, app):
    """A block awaits in its transaction while another task begins one: no error, no standstill."""
    order = []

    async def write(name):
        with contextlib.closing(sqlite3.connect(app.path, timeout=LONG)) as connection:
            async with aio.durable(connection, LONG):
                connection.execute("INSERT INTO t(body) VALUES (?)", (name,))
                order.append(name)
                await asyncio.sleep(0)
                order.append(name)

    async def main():
        await asyncio.gather(*(write(name) for name in "abc"))

    asyncio.run(main())
    assert order == list("aabbcc")


def test_errors_of_the_wait(answered, app, hooked):
    """``raise`` and ``degrade``, as the blocking ones."""
    hooked.go_away()

    async def main():
        with raises(NotDurable):
            async with aio.durable(app.db, 0.05):
                app.insert()
        async with aio.durable(app.db, 0.05, "degrade") as commit:
            app.insert()
        assert (commit.durable, commit.error.code) == (False, "not_durable")

    asyncio.run(main())
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_a_cancelled_wait_leaves_the_others(answered, app, hooked):
    """The request continues for those who still wait, and the commit is kept."""
    arrived, release = threading.Event(), threading.Event()

    def slow(method, key):
        if method == "put":
            arrived.set()
            assert release.wait(LONG)

    hooked.before = slow

    async def main():
        async def commit():
            async with aio.durable(app.db, LONG):
                app.insert()

        cancelled = asyncio.create_task(commit())
        assert await asyncio.to_thread(arrived.wait, LONG)
        other = asyncio.create_task(aio.wait_durable(app.path, timeout=LONG))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        release.set()
        return await other

    assert asyncio.run(main()).txid == answered.status().txid
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_a_cancelled_block_rolls_back(answered, app):
    """A cancellation inside the block leaves no row, no transaction and no queue."""

    async def main():
        inside = asyncio.Event()

        async def commit():
            async with aio.durable(app.db, LONG):
                app.insert()
                inside.set()
                await asyncio.sleep(LONG)

        task = asyncio.create_task(commit())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not app.db.in_transaction
        async with aio.durable(app.db, LONG):
            app.insert()

    asyncio.run(main())
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (1,)


# ------------------------------------------------------------------------------ the handle


@pytest.fixture
def asynchronous(app, tmp_path):
    """The handle for asyncio, with a sidecar process and a bucket in a directory."""
    (tmp_path / "bucket").mkdir()
    config = SqliteReplicatorConfig(db_path=app.path, url=f"file://{tmp_path / 'bucket'}")
    return SqliteReplicator(config, log=tmp_path / "log")


def test_the_handle(asynchronous, app, tmp_path):
    """Start, flush, status, mark, events, restore and stop; a cancelled flush and a cancelled
    restore leave the next calls unharmed, and the end of the program waits for no thread."""

    async def until(events, name):
        async for event in events:
            if event.name == name:
                return

    async def main():
        async with asynchronous as replicator:
            events = replicator.events(past=True)
            app.insert()
            assert (await replicator.flush(LONG)).txid == (await replicator.status()).durable_txid
            store = tmp_path / "bucket"
            store.rename(tmp_path / "away")
            app.insert()
            flush = asyncio.create_task(replicator.flush())
            await until(events, "store_failing")
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush
            (tmp_path / "away").rename(store)
            position = await replicator.mark("safe", LONG)
            await until(events, "store_answers")
            await events.aclose()
            report = await replicator.restore(output=tmp_path / "copy.db")
            assert report.txid == position.txid
            restoring = asyncio.create_task(replicator.restore(output=tmp_path / "half.db"))
            await asyncio.sleep(0)
            restoring.cancel()
            with pytest.raises(asyncio.CancelledError):
                await restoring
            assert not (tmp_path / "half.db").exists()
            return position

    position = asyncio.run(main())
    assert position.txid
    assert not asynchronous.started


def test_a_cancelled_start_stops(asynchronous):
    """No sidecar is left of a start that was cancelled."""

    async def main():
        async def use():
            async with asynchronous:
                raise AssertionError("the block must not run")

        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not asynchronous.started
    with pytest.raises(NotRunning):
        wait_durable(asynchronous.config.database, timeout=0.0)


def test_events_of_a_replicator(app, hooked):
    """Each has a stable name; a failure that is repeated is one event until it is over."""
    with replicating(app.path, hooked) as found, answering(found.config.cache, found):
        found.flush(LONG)
        first = found.events("", 0, 0.0)
        assert [each["name"] for each in first["events"]] == ["generation", "following"]
        assert found.events(first["log"], None, LONG) == {**first, "events": []}
        hooked.go_away()
        app.insert()
        with pytest.raises(NotDurable):
            found.flush(0.3)
        hooked.come_back()
        found.flush(LONG)
        names = [
            each["name"] for each in found.events(first["log"], first["after"], LONG)["events"]
        ]
        assert names == ["store_failing", "store_answers"]
