"""A Django project in the process of the tests: its settings change with each test.

``set_up`` configures Django once for the process. ``Project`` is a database and a bucket in a
directory; inside its block the settings, the connections and the replicators are those of it.
"""

import contextlib
import warnings
from types import SimpleNamespace

import django
from django.conf import settings
from django.db import connections
from django.test.utils import override_settings

from replicator import restore
from replicator.contrib.django import replicated, sqlite  # a module, and a function

URLS = "tests.helpers.django_urls"
CONTRIB = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages")]


def set_up():
    """Configures Django, at the first call in a process."""
    if not settings.configured:
        settings.configure(
            SECRET_KEY="of the tests",
            INSTALLED_APPS=[*CONTRIB, "django.contrib.sessions", "replicator.contrib.django"],
            ROOT_URLCONF=URLS,
            DATABASES={},
            REPLICATOR={},
            USE_TZ=True,
            STATIC_URL="static/",
            TEMPLATES=[
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "APP_DIRS": True,
                    "OPTIONS": {
                        "context_processors": ["django.contrib.auth.context_processors.auth"]
                    },
                }
            ],
        )
        django.setup()


def forget():
    """The next look at the settings reads them again."""
    replicated.replicated.cache_clear()
    connections.close_all()
    for alias in list(connections):
        with contextlib.suppress(AttributeError):
            del connections[alias]
    connections.__dict__.pop("settings", None)
    connections._settings = None


@contextlib.contextmanager
def configured(**values):
    """The block runs with these settings."""
    changed = override_settings(**values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Django warns of a test that replaces DATABASES
        changed.enable()
    forget()
    replicated.replicated()  # as when Django starts
    try:
        yield
    finally:
        for alias in list(replicated.replicated()):
            replicated.stop(alias)
        changed.disable()
        forget()


class Project:
    """A database in a directory, and its bucket in another one."""

    def __init__(self, directory):
        self.directory = directory
        self.path = directory / "shop.db"
        self.bucket = directory / "bucket"
        self.bucket.mkdir()
        self.copies = 0

    def settings(self, **given):
        """The settings of the project; ``given`` are keys of the entry in REPLICATOR."""
        return {
            "DATABASES": {"default": sqlite(self.path)},
            "REPLICATOR": {"default": {"url": f"file://{self.bucket}", **given}},
        }

    @contextlib.contextmanager
    def away(self):
        """In the block the bucket does not answer."""
        away = self.directory / "away"
        self.bucket.rename(away)
        try:
            yield
        finally:
            away.rename(self.bucket)

    def restored(self, **options):
        """A copy of the database from the bucket alone."""
        self.copies += 1
        copy = self.directory / f"copy-{self.copies}.db"
        restore(url=f"file://{self.bucket}", prefix="shop.db", output=copy, **options)
        return copy


def person(*, staff=True, active=True):
    """A user as the admin looks at it, without a table of users."""
    return SimpleNamespace(
        is_active=active,
        is_staff=staff,
        is_authenticated=True,
        has_usable_password=lambda: False,
        get_short_name=str,
        get_username=str,
        has_module_perms=lambda app: False,
        pk=1,
    )
