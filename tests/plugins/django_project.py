"""A Django project whose database is replicated to a directory."""

import contextlib

import pytest

from tests.helpers.django_project import Project, configured, forget, set_up


@pytest.fixture(scope="session")
def django_process():
    """Django is configured in this process."""
    set_up()


@pytest.fixture
def project(django_process, tmp_path):
    """A project; the settings of the process are its own."""
    found = Project(tmp_path)
    with configured(**found.settings()):
        yield found


@pytest.fixture
def settings_without():
    """``settings_without(name)``: in its block Django has no such setting."""

    @contextlib.contextmanager
    def block(name):
        from django.conf import settings
        from django.test.utils import override_settings

        with override_settings():
            delattr(settings, name)
            forget()
            yield
        forget()

    return block


@pytest.fixture(scope="module")
def migrated_project(django_process, tmp_path_factory):
    """A project with the tables of Django, replicated by one sidecar for all tests of a module."""
    from django.core.management import call_command

    found = Project(tmp_path_factory.mktemp("project"))
    with configured(**found.settings()):
        call_command("migrate", verbosity=0)
        yield found
