"""A model without a table, by which the page of restore points has its entry in the admin."""

from __future__ import annotations

from django.db import models


class RestorableDatabase(models.Model):
    """One replicated database. Django never makes a table of it, nor permissions."""

    class Meta:
        """No table, no permissions."""

        managed = False
        default_permissions = ()
        app_label = "replicator_django"
        verbose_name = "restore point"
        verbose_name_plural = "restore points"

    def __str__(self) -> str:
        return "restore points"
