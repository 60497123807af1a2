"""The processes in which a replicator starts: those that serve requests, and no others."""

import contextlib
import json
import sqlite3
import sys

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import Client, RequestFactory
from django.test.utils import setup_test_environment, teardown_test_environment

from replicator.contrib.django import transaction
from replicator.contrib.django.apps import MIDDLEWARE
from replicator.contrib.django.replicated import handle_of, start
from replicator.contrib.django.serving import start_replicators
from replicator.contrib.django.views import health
from replicator.errors import ConfigError
from tests.helpers.django_project import configured
from tests.helpers.errors import raises


@pytest.fixture
def test_run():
    """The state of `manage.py test`."""
    setup_test_environment()
    yield
    teardown_test_environment()


def answer():
    """(status, document) of the health view."""
    found = health(RequestFactory().get("/health"))
    return found.status_code, json.loads(found.content)


def test_a_handler_of_requests_starts_the_replicator(project):
    """The health view has 503 before, and 200 after, without a path or an address."""
    assert answer()[0] == 503
    with contextlib.closing(sqlite3.connect(project.path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with configured(**project.settings(), MIDDLEWARE=[MIDDLEWARE]):
        WSGIHandler()
        first = handle_of("default")
        ASGIHandler()
        assert handle_of("default") is first
        assert handle_of("default").failed is None
        handle_of("default").flush(60)
        status, document = answer()
        assert (status, document["healthy"]) == (200, True)
        assert str(project.directory) not in json.dumps(document)


def test_ready_puts_the_middleware_first(django_process):
    """Before any other, which might use the database."""
    from django.conf import settings

    assert settings.MIDDLEWARE[0] == MIDDLEWARE


def test_a_process_that_only_loads_django_starts_nothing(project):
    """As every management command does."""
    assert handle_of("default") is None


def test_a_server_that_cannot_replicate_does_not_start(project):
    """The error of the start passes through the handler."""
    with (
        configured(**project.settings(bucket="too"), MIDDLEWARE=[MIDDLEWARE]),
        raises(ConfigError, setting="bucket"),
    ):
        WSGIHandler()


def test_in_a_test_run_nothing_is_replicated(project, test_run):
    """No sidecar is started, neither by requests nor by durable commits, whose callbacks are
    called at once."""
    seen = []
    with configured(**project.settings(), MIDDLEWARE=[MIDDLEWARE]):
        assert Client().get("/replicator/health").status_code == 503
        with transaction.durable_atomic():
            transaction.on_durable(lambda: seen.append(1))
        assert seen == [1]
        assert handle_of("default") is None
        assert list(project.bucket.iterdir()) == []


def test_a_database_in_place_of_that_of_the_settings_is_not_replicated(project):
    """`manage.py testserver` makes a test database, without a test run."""
    connections["default"].settings_dict["NAME"] = ":memory:"
    with pytest.raises(MiddlewareNotUsed):
        start_replicators(None)
    assert handle_of("default") is None


def test_a_named_command_replicates(project):
    """`commands` of an entry lists management commands that do as a server."""
    from django.apps import apps

    arguments, sys.argv = sys.argv, ["manage.py", "run_huey"]
    try:
        with configured(**project.settings(commands=["run_huey"])):
            project.path.touch()
            apps.get_app_config("replicator_django").ready()
            assert handle_of("default") is start("default")
    finally:
        sys.argv = arguments
