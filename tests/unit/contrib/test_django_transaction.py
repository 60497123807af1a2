"""Commits that wait until they are in the bucket: the order of COMMIT, wait and callback."""

import sqlite3
from functools import partial

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError
from django.db import transaction as plain
from django.db.transaction import TransactionManagementError

from replicator.contrib.django import transaction
from replicator.contrib.django.migrating import mark_before_migrate
from replicator.errors import NotDurable, ReplicatorError


def add(name, then=None, **options):
    """Commits one row, or adds it to the open transaction; ``then`` gets its name once it is
    durable."""
    from django.contrib.auth.models import Group

    if then is not None:
        transaction.on_durable(partial(then, name), **options)
    return Group.objects.create(name=name)


def add_twice(name, then=None):
    """The second one violates a constraint, and the transaction is rolled back."""
    add(name, then)
    add(name)


def names(project):
    """The rows in the bucket."""
    with sqlite3.connect(project.restored()) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM auth_group")}


def test_after_the_block_the_transaction_is_in_the_bucket(migrated_project):
    """Restored from the bucket alone, without a further look at the database."""
    with transaction.durable_atomic():
        add("first")
        add("second")
    assert {"first", "second"} <= names(migrated_project)


def test_a_block_that_fails_rolls_back_and_raises_its_error(migrated_project):
    """It neither commits nor waits: the bucket is away."""
    with migrated_project.away(), pytest.raises(IntegrityError), transaction.durable_atomic():
        add_twice("never")
    transaction.wait_durable()
    assert "never" not in names(migrated_project)


def test_the_block_is_the_outermost(migrated_project):
    """Inside another transaction there is no COMMIT to wait for."""
    with plain.atomic(), pytest.raises(RuntimeError), transaction.durable_atomic():
        pass
    with plain.atomic(), pytest.raises(TransactionManagementError):
        transaction.wait_durable()
    plain.set_autocommit(False)
    with pytest.raises(TransactionManagementError):
        transaction.wait_durable()
    plain.set_autocommit(True)


def test_the_callback_comes_after_the_bucket_has_the_transaction(migrated_project):
    """Each callback finds its row in the bucket; one of a nested block waits for the outermost."""
    seen = []
    with plain.atomic():
        with plain.atomic():
            add("nested")
            transaction.on_durable(lambda: seen.append(names(migrated_project)))
        add("outer")
        assert seen == []
    assert {"nested", "outer"} <= seen[0]


def test_the_callback_of_a_rolled_back_transaction_is_not_called(migrated_project):
    """As with on_commit."""
    seen = []
    with pytest.raises(IntegrityError), plain.atomic():
        add_twice("never", seen.append)
    assert seen == []


def test_outside_a_transaction_the_callback_waits_for_what_is_committed(migrated_project):
    """Autocommit: the statement before is in the bucket."""
    seen = []
    add("alone")
    transaction.on_durable(lambda: seen.append("alone" in names(migrated_project)))
    assert seen == [True]


def test_a_late_bucket_keeps_the_commit_and_calls_nothing(migrated_project):
    """NotDurable after the COMMIT: the row is in the database now, and in the bucket later."""
    from django.contrib.auth.models import Group

    seen = []
    with migrated_project.away():
        with pytest.raises(NotDurable), transaction.durable_atomic(timeout=0.1):
            add("late")
        with pytest.raises(NotDurable), plain.atomic():
            add("later", seen.append, timeout=0.1)
        assert Group.objects.filter(name__in=["late", "later"]).count() == 2
    transaction.wait_durable(timeout=60)
    assert seen == []
    assert {"late", "later"} <= names(migrated_project)


def test_a_database_that_is_not_replicated_is_refused(migrated_project):
    """No promise is made that cannot be kept: before the block runs."""
    with pytest.raises(ImproperlyConfigured), transaction.durable_atomic(using="other"):
        raise AssertionError
    with pytest.raises(ImproperlyConfigured):
        transaction.on_durable(print, using="other")


# ----------------------------------------------------------------------------- migrations


def marks(project):
    """The names that the bucket has."""
    return {path.stem for path in project.bucket.glob("shop.db/pins/before-migrate-*.json")}


def test_a_migration_is_marked_before_it_and_sent_after_it(migrated_project):
    """The mark gives the table back that the migration drops; one more run has nothing to do, and
    marks nothing."""
    before = marks(migrated_project)
    call_command("migrate", "sessions", "zero", verbosity=0)
    (name,) = marks(migrated_project) - before
    assert "django_session" in tables(migrated_project.restored(at=name))
    transaction.wait_durable()
    assert "django_session" not in tables(migrated_project.restored())
    call_command("migrate", "sessions", verbosity=0)
    with_both = marks(migrated_project)
    call_command("migrate", verbosity=0)
    assert marks(migrated_project) == with_both
    assert len(with_both) == len(before) + 2


def tables(path):
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


def test_a_migration_without_its_mark_does_not_begin(migrated_project):
    """The bucket is away: the command ends with the reason, before it changes anything."""
    with migrated_project.away(), pytest.raises(CommandError) as caught:
        mark_before_migrate("default", [("sessions.0001_initial", True)], patience=0.1)
    assert isinstance(caught.value.__cause__, ReplicatorError)
