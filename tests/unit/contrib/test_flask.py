"""Flask: the extension replicates, the health check answers, views wait for the bucket."""

import contextlib
import sqlite3

import pytest
from flask import Flask

from replicator import SqliteReplicatorConfig, restore
from replicator.contrib.flask import Replicator, health_blueprint
from replicator.errors import ConfigError, NotRunning
from tests.helpers.fake_handles import FakeHandle


def application(replication, handle=None):
    """An application with one durable view; ``handle`` replaces the one that a start would make."""
    app = Flask("shop")
    replication.init_app(app)
    replication._handle = handle
    app.register_blueprint(health_blueprint(replication))

    @app.post("/orders")
    @replication.durable()
    def add():
        return {"added": True}

    return app


def test_a_durable_view_answers_after_the_wait():
    """Its timeout is that of the extension, or its own."""
    handle = FakeHandle()
    replication = Replicator(durable_timeout=1.5, wait=handle.wait)
    app = application(replication, handle)
    assert app.test_client().post("/orders").get_json() == {"added": True}
    with app.app_context(), replication.durable(3.0):
        pass
    assert handle.waits == [1.5, 3.0]


def test_a_view_that_is_not_durable_answers_503():
    """The client learns that the change is stored, and nothing about the server."""
    handle = FakeHandle()
    handle.away = True
    answer = application(Replicator(wait=handle.wait), handle).test_client().post("/orders")
    assert (answer.status_code, answer.get_json()["error"]) == (503, "not_durable")
    assert "secret" not in answer.text


def test_an_exception_in_a_view_does_not_wait():
    """There is nothing to make durable."""
    handle = FakeHandle()
    replication = Replicator(wait=handle.wait)
    app = application(replication, handle)
    with app.app_context(), pytest.raises(ZeroDivisionError), replication.durable():
        raise ZeroDivisionError
    assert handle.waits == []


def test_an_application_under_test_needs_no_bucket():
    """With `testing` nothing starts, and durable views do not wait."""
    replication = Replicator()
    app = application(replication)
    app.testing = True
    assert app.test_client().post("/orders").status_code == 200
    with pytest.raises(NotRunning):
        _ = replication.handle


def test_a_health_check_without_a_sidecar_is_unavailable():
    """503, and no path of the server."""
    handle = FakeHandle()
    handle.away = True
    answer = application(Replicator(), handle).test_client().get("/health/replication")
    assert (answer.status_code, answer.get_json()["state"]) == (503, "unknown")
    assert "secret" not in answer.text


def test_a_health_check_needs_a_database():
    """Without one it could only ever answer 503."""
    with pytest.raises(TypeError):
        health_blueprint()


def test_the_first_request_needs_settings():
    """A missing bucket is the error of the configuration, by its name."""
    app = application(Replicator())
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ConfigError) as caught:
        app.test_client().post("/orders")
    assert caught.value.setting == "db_path"


def test_the_first_request_starts_to_replicate(tmp_path):
    """The settings are those of the application; what a view committed is in the bucket after its
    response; another process' view of the health agrees."""
    database, bucket = tmp_path / "app.db", tmp_path / "bucket"
    bucket.mkdir()
    app = Flask("shop")
    settings = {"db_path": str(database), "url": f"file://{bucket}", "prefix": "app.db"}
    app.config["REPLICATOR"] = settings
    replication = Replicator(app, durable_timeout=60)
    app.register_blueprint(health_blueprint(database=database))

    @app.post("/orders")
    def add():
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            with replication.durable():
                connection.execute("CREATE TABLE orders AS SELECT 'one' AS key")
            return {"txid": replication.status().durable_txid}

    try:
        assert app.test_client().post("/orders").get_json()["txid"] > 0
        restore(url=f"file://{bucket}", prefix="app.db", output=tmp_path / "copy.db")
        assert app.test_client().get("/health/replication").status_code == 200
    finally:
        replication.stop()
        replication.stop()  # the second one does nothing
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT key FROM orders").fetchall() == [("one",)]


def test_a_given_config_wins(tmp_path):
    """Over the configuration of Flask, which may be that of another database."""
    config = SqliteReplicatorConfig(db_path=tmp_path / "app.db", url=f"file://{tmp_path}")
    app = Flask("shop")
    app.config["REPLICATOR"] = {"db_path": "/nowhere", "url": "file:///nowhere"}
    assert Replicator(app, config)._settings(app) is config
