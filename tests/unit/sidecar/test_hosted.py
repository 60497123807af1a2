"""The sidecar of an application, in a thread of the test: its start, its errors, and its end."""

import json
import socket
import threading
from dataclasses import replace

import pytest

from replicator.errors import AlreadyRunning, ConfigError, RefusedError
from replicator.handle.spawn import settings_of
from replicator.sidecar import hosted
from replicator.sidecar.control_client import ask, attach, checked, fingerprint, read_reply
from replicator.sidecar.hosted import HostedRequest, HostedTimes
from replicator.sidecar.leases import ENDING, Leases
from replicator.store.directory import DirectoryStore
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, config_for, replicating, restored, wait_for
from tests.helpers.strange_schema import make_strange, supply

pytestmark = pytest.mark.app(rows=5)

QUICK = HostedTimes(final_flush=LONG, flush=0.05, confirm=LONG, check=0.05)


class Hosted:
    """A sidecar in a thread, and the end of the application."""

    def __init__(self, config, times=QUICK, **request):
        self.config = config
        self.ours, theirs = socket.socketpair()
        self.request = HostedRequest(settings=json.loads(json.dumps(settings_of(config))), path=[])
        self.codes = []
        self._arguments = HostedRequest(self.request.settings, [], **request), theirs
        self._thread = threading.Thread(target=self._run, args=(times,))
        self._thread.start()

    def _run(self, times):
        self.codes.append(hosted.run(*self._arguments, times=times))

    def outcome(self):
        """The first answer; raises the error of the start."""
        return checked("attach", read_reply(self.ours))

    def join(self):
        self._thread.join(LONG)
        return self.codes[0]


@pytest.fixture
def config(path, bucket_dir):
    """The settings of the application."""
    return config_for(path, url=f"file://{bucket_dir}", prefix="app.db")


def attached(config, **other):
    address = config.address
    request = {
        "database": fingerprint(config.database),
        "url": address.url,
        "endpoint_url": address.endpoint_url,
    }
    return attach(config.cache, request | other)[0]


def test_it_ends_with_the_last_lease(config, app, bucket_dir, out):
    """Everything committed by then is in the bucket, and the exit code is 0."""
    sidecar = Hosted(config)
    sidecar.outcome()
    second = attached(config)
    assert checked("attach", read_reply(second)) == {}
    sidecar.ours.close()
    app.insert(7)
    assert ask(config.cache, {"command": "leave", "timeout": LONG}) == {"last": False}
    second.close()
    assert sidecar.join() == 0
    assert restored(DirectoryStore(bucket_dir), out)[1] == app.image()


def test_an_application_that_comes_back_keeps_it(config, app, bucket_dir, tmp_path):
    """The store is away when the last lease ends: a new handle is served during the last flush."""
    sidecar = Hosted(config)
    sidecar.outcome()
    ask(config.cache, {"command": "flush", "timeout": LONG})
    bucket_dir.rename(tmp_path / "away")
    app.insert(3)
    sidecar.ours.close()
    second = attached(config)
    (tmp_path / "away").rename(bucket_dir)
    assert ask(config.cache, {"command": "flush", "timeout": LONG})["txid"]
    second.close()
    assert sidecar.join() == 0


def test_a_store_that_stays_away_is_not_waited_for(config, app, bucket_dir, tmp_path):
    """The rest stays in the cache, and the exit code says that it is not durable; the handle that
    left last gets the error."""
    sidecar = Hosted(config, HostedTimes(final_flush=0.3, flush=0.05, confirm=0.0, check=0.05))
    sidecar.outcome()
    ask(config.cache, {"command": "flush", "timeout": LONG})
    bucket_dir.rename(tmp_path / "away")
    app.insert(3)
    answer = ask(config.cache, {"command": "leave", "timeout": LONG}, connected=sidecar.ours.close)
    assert answer["last"]
    assert answer["error"]["exit_code"] == 5
    assert sidecar.join() == 5


def test_the_error_of_the_start_is_the_answer(config, app, store):
    """The handle gets the class, the code and the values of the error."""
    with replicating(config.db_path, store) as other:
        sidecar = Hosted(config)
        with raises(AlreadyRunning, path=str(other.config.cache)):
            sidecar.outcome()
        assert sidecar.join() == AlreadyRunning.exit_code


@pytest.mark.parametrize("name", ["nowhere:f", "json:nowhere", "json:decoder", "json"])
def test_a_function_that_cannot_be_imported_is_refused(config, app, name):
    """The function of drills is a function of a module."""
    sidecar = Hosted(config, prepare=name)
    with raises(ConfigError, setting="prepare"):
        sidecar.outcome()
    assert sidecar.join() == ConfigError.exit_code


def test_a_function_of_the_application_prepares_drills(config, app, caplog):
    """A drill passes its connection to the named function first, so that its check is complete."""
    supply(app.db)
    make_strange(app.db, "collation")
    sidecar = Hosted(
        replace(config, drill_interval=0.01), prepare="tests.helpers.strange_schema:supply"
    )
    sidecar.outcome()
    app.insert()
    txid = ask(config.cache, {"command": "flush", "timeout": LONG})["txid"]
    wait_for(lambda: ask(config.cache, {"command": "status"})["last_verified_txid"] == txid)
    assert "inconclusive" not in caplog.text
    sidecar.ours.close()
    assert sidecar.join() == 0


def test_a_refused_start_is_not_repeated(config, app):
    """A start that expects an archive where there is none is refused."""
    sidecar = Hosted(config_for(config.db_path, url=config.url, prefix="x", expect="existing"))
    with pytest.raises(RefusedError):
        sidecar.outcome()
    assert sidecar.join() == RefusedError.exit_code


def test_handles_of_other_databases_and_destinations_are_refused(config, app):
    """A sidecar serves handles for its database and its destination only."""
    sidecar = Hosted(config)
    sidecar.outcome()
    with raises(ConfigError, code="other_database"):
        attached(config, database=["x"])
    attached(config, database="x", source=fingerprint(config.source)).close()  # a switched link
    with raises(ConfigError, code="other_destination"):
        attached(config, url="file:///elsewhere")
    with raises(ConfigError, code="other_destination"):
        attached(config, endpoint_url="http://elsewhere")
    sidecar.ours.close()
    assert sidecar.join() == 0


def test_the_end_of_the_application_ends_the_start(config):
    """While a start is decided, which may take hours, the end of the application ends it."""
    leases, left = Leases(hosted=True), []
    ours, theirs = socket.socketpair()
    leases.add(theirs)
    with hosted.ending_with_the_application(leases, left.append):
        ours.close()
        wait_for(lambda: left)
    assert left[0] == 0
    with raises(AlreadyRunning, code=ENDING):
        leases.add(socket.socket())
