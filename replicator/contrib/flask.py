"""Flask: an extension that replicates, a health check, and durable requests.

    replication = Replicator(app)                  # settings: app.config["REPLICATOR"], environment
    app.register_blueprint(health_blueprint(replication))

    @app.post("/orders")
    @replication.durable()
    def add(): ...                                 # its 200 follows its commit to the bucket

Owns: the handle of one application. Refuses: to replicate an application that is ``testing``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from flask import Blueprint, current_app, jsonify

from replicator import Position, SqliteReplicator, SqliteReplicatorConfig
from replicator.app.durable import wait_durable
from replicator.app.state import status_of
from replicator.contrib.health import UNAVAILABLE, HealthProbe
from replicator.contrib.refusal import refusal
from replicator.errors import NotDurable, NotRunning, ReplicatorError
from replicator.model import ReplicationStatus

__all__ = [
    "Replicator",
    "health_blueprint",
    "not_durable",
]

PATH = "/health/replication"
SETTINGS = "REPLICATOR"  # key of the configuration of Flask: a mapping of settings


class Replicator:
    """The extension. It starts with the first request of each process, or by :meth:`start`.

    ``config`` wins over ``app.config["REPLICATOR"]``, and that over ``REPLICATOR_…`` variables.
    ``durable_timeout`` is the default of :meth:`durable`, in seconds. ``prepare`` and ``log`` are
    those of ``SqliteReplicator``.
    """

    def __init__(
        self,
        app: Any = None,
        config: SqliteReplicatorConfig | None = None,
        *,
        durable_timeout: float = 2.0,
        prepare: str = "",
        log: str | os.PathLike[str] | None = None,
        wait: Callable[..., Position] = wait_durable,
    ) -> None:
        self._config, self._durable_timeout, self._wait = config, durable_timeout, wait
        self._options: dict[str, Any] = {"prepare": prepare, "log": log}
        self._lock = threading.Lock()
        self._handle: SqliteReplicator | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Registers the extension; starts nothing, so that commands and tests need no bucket."""
        app.extensions["replicator"] = self
        app.before_request(self._before_request)
        app.register_error_handler(NotDurable, not_durable)

    def start(self, app: Any = None) -> SqliteReplicator:
        """Starts to replicate, unless it runs; the handle. ``app`` is the current one by default.

        Call it before the application creates a table, so that ``auto_restore`` finds no database
        on a new machine. Raises the errors of ``SqliteReplicator.start``.
        """
        application = app or current_app
        with self._lock:
            if self._handle is None:
                handle = SqliteReplicator(self._settings(application), **self._options)
                handle.start()
                self._handle = handle
            return self._handle

    def _settings(self, app: Any) -> SqliteReplicatorConfig:
        return self._config or SqliteReplicatorConfig.from_env(**app.config.get(SETTINGS, {}))

    def stop(self) -> None:
        """Stops; the last process waits until everything is durable, 40 s at most. The end of the
        program does the same."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.stop()

    @property
    def handle(self) -> SqliteReplicator:
        """The handle; ``NotRunning`` before the start."""
        if self._handle is None:
            raise NotRunning("the application does not replicate", hint="call start() first")
        return self._handle

    def _before_request(self) -> None:
        if self._handle is None and not current_app.testing:
            self.start()

    def status(self) -> ReplicationStatus:
        """The state of the replication; ``NotRunning`` before the start."""
        return self.handle.status()

    @contextlib.contextmanager
    def durable(self, timeout: float | None = None) -> Iterator[None]:
        """A block, or a decorator of a view, that ends after its commits are in the bucket.

        After ``timeout`` seconds it raises ``NotDurable``, which the client gets as status 503. The
        commit is not undone, and the request must not be repeated. An application that is
        ``testing`` and not started does not wait.
        """
        yield
        self.wait(timeout)

    def wait(self, timeout: float | None = None) -> Position | None:
        """Waits until everything that was committed is in the bucket; its position, None if the
        application is ``testing``. Raises as :meth:`durable`."""
        if self._handle is None and current_app.testing:
            return None
        config = self.handle.config
        seconds = self._durable_timeout if timeout is None else timeout
        return self._wait(config.database, timeout=seconds, cache_dir=config.cache)


def not_durable(error: ReplicatorError) -> Any:
    """The answer to a request whose commit is not durable: JSON, with status 503."""
    return jsonify(refusal(error)), UNAVAILABLE


def health_blueprint(
    replication: Replicator | None = None,
    path: str = PATH,
    *,
    database: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """A blueprint with one route, which answers 200 while the database is replicated and 503
    otherwise, with the figures as JSON.

    It is the database of ``replication``, or ``database``, which another process replicates. An
    answer is at most 1 s old, and a sidecar that hangs delays it by 1 s.
    """
    if replication is not None:
        status = replication.status
    elif database is not None:
        status = partial(status_of, database, cache_dir=cache_dir)
    else:
        raise TypeError("health_blueprint() needs a Replicator or a database")
    probe = HealthProbe(status)

    def check() -> Any:
        report = probe.report()
        return jsonify(report.to_dict()), report.http_status

    blueprint = Blueprint("replication_health", __name__)
    blueprint.add_url_rule(path, view_func=check, methods=["GET"])
    return blueprint
