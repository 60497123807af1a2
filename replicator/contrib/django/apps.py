"""The application of ``INSTALLED_APPS``: what happens when Django starts.

Owns the connections to Django: the checks, the mark before a migration, and the middleware by
which a process that serves requests is known. Refuses to start anything in any other process.
"""

from __future__ import annotations

import sys

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.db.models.signals import pre_migrate

from replicator.contrib.django.replicated import replicated, start

MIDDLEWARE = "replicator.contrib.django.serving.start_replicators"


class ReplicatorAppConfig(AppConfig):
    """``replicator.contrib.django``."""

    name = "replicator.contrib.django"
    label = "replicator_django"
    verbose_name = "Replicator"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the parts; in a management command that the settings name, replicate too."""
        from replicator.contrib.django.checks import (
            check_archives,
            check_deployment,
            check_settings,
        )
        from replicator.contrib.django.migrating import mark_before_migrate

        checks.register(check_settings, "replicator")
        checks.register(check_deployment, "replicator", deploy=True)
        checks.register(check_archives, "replicator", deploy=True)
        pre_migrate.connect(mark_before_migrate, sender=self)
        if MIDDLEWARE not in settings.MIDDLEWARE:
            settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]
        for each in replicated().values():
            if len(sys.argv) > 1 and sys.argv[1] in each.commands:
                start(each.alias)
