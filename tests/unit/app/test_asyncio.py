"""`AsyncDatabase`: the same database, awaited. Its threads run_with_db the code of `Database`."""

import asyncio

import pytest

from replicator.app import AsyncDatabase, Database
from replicator.errors import DatabaseUnusable, ReplicatorError
from tests.helpers.errors import raises

ADD = "INSERT INTO users (name) VALUES (?)"
NAMES = "SELECT name FROM users ORDER BY id"


@pytest.fixture
def run_with_db(tmp_path):
    """Runs a coroutine function with an open database of users."""

    async def with_database(work):
        async with await AsyncDatabase.open(tmp_path / "app.db", preset="minimal") as db:
            await db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
            return await work(db)

    return lambda work: asyncio.run(with_database(work))


def test_read_and_write(run_with_db):
    """The functions of the database, awaited."""

    async def work(db):
        assert (await db.execute(ADD, ("Ada",))).last_row_id == 1
        assert await db.execute_many(ADD, [("Grace",), ("Barbara",)]) == 2
        assert (
            await db.transact(lambda connection: connection.execute(ADD, ("Jean",)).lastrowid) == 4
        )
        assert (await db.queued(ADD, ("Radia",))).changes == 1
        assert await db.fetch_one(NAMES) == ("Ada",)
        assert await db.fetch_value("SELECT count(*) FROM users") == 5
        return await db.fetch_all(NAMES)

    assert len(run_with_db(work)) == 5


def test_any_function_of_the_database(run_with_db, tmp_path):
    """`run` awaits it in a thread."""

    async def work(db):
        await db.run(Database.backup, tmp_path / "copy.db")
        return await db.run(Database.check, quick=True)

    assert run_with_db(work).ok
    assert (tmp_path / "copy.db").exists()


def test_a_transaction_is_a_block(run_with_db):
    """It commits at its end, and is rolled back by an exception."""

    async def work(db):
        async with db.transaction() as connection:
            await connection.execute(ADD, ("Ada",))
            assert await connection.fetch_all(NAMES) == [("Ada",)]
            assert await connection.run(lambda each: each.in_transaction)
            assert await db.fetch_all(NAMES) == []
        with pytest.raises(KeyError):
            await fail_after(db)
        return await db.fetch_all(NAMES)

    async def fail_after(db):
        async with db.transaction() as connection:
            await connection.execute(ADD, ("Grace",))
            raise KeyError

    assert run_with_db(work) == [("Ada",)]


def test_a_block_of_reads_sees_one_state(run_with_db):
    """Commits of other tasks appear after it."""

    async def work(db):
        async with db.read() as connection:
            assert await connection.fetch_one("SELECT count(*) FROM users") == (0,)
            await db.execute(ADD, ("Ada",))
            assert await connection.fetch_one("SELECT count(*) FROM users") == (0,)

    run_with_db(work)


def test_many_tasks_at_once(run_with_db):
    """More than there are threads: each waits for its turn, the event loop for none."""

    async def work(db):
        async def one(number):
            async with db.transaction() as connection:
                await connection.execute(ADD, (str(number),))
            await db.execute(ADD, (str(number),))
            await db.queued(ADD, (str(number),))
            return await db.fetch_value("SELECT count(*) FROM users WHERE name = ?", (str(number),))

        return await asyncio.gather(*map(one, range(30)))

    assert run_with_db(work) == [3] * 30


def test_a_cancelled_task_leaves_no_transaction(run_with_db):
    """Neither amid a block nor while it waits for its turn."""

    async def work(db):
        inside = asyncio.Event()

        async def held():
            async with db.transaction() as connection:
                await connection.execute(ADD, ("held",))
                inside.set()
                await asyncio.Event().wait()

        async def waiting():
            async with db.transaction() as connection:
                await connection.execute(ADD, ("waiting",))

        holder = asyncio.create_task(held())
        await inside.wait()
        waiter = asyncio.create_task(waiting())
        await asyncio.sleep(0)  # it submits its turn to a thread
        waiter.cancel()
        await asyncio.wait([waiter])
        holder.cancel()
        await asyncio.wait([holder])
        await db.execute(ADD, ("after",))
        return waiter.cancelled(), holder.cancelled(), await db.fetch_all(NAMES)

    assert run_with_db(work) == (True, True, [("after",)])


def test_errors_are_those_of_the_database(tmp_path):
    """At open, and after close."""

    async def wrong():
        (tmp_path / "notes.txt").write_text("no database " * 100)
        with pytest.raises(DatabaseUnusable):
            await AsyncDatabase.open(tmp_path / "notes.txt")
        db = await AsyncDatabase.open(tmp_path / "app.db")
        await db.close()
        with raises(ReplicatorError, "database_closed"):
            async with db.transaction():
                pass

    asyncio.run(wrong())
