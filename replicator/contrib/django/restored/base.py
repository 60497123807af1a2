"""The backend of SQLite on a copy of a restore point, opened so that SQLite refuses every write.

Owns: the moment of the restore, which is the first connection. Refuses: writes, locks and side
files: the copy is immutable.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base

from replicator.app.restored import restored_copy
from replicator.contrib.django.replicated import entry


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to the alias that :func:`replicator.contrib.django.restore_point` made."""

    def get_connection_params(self) -> dict[str, Any]:
        """Those of SQLite, with the copy as database. The errors of a restore pass through.

        A test run gives the connection the name of the mirrored database, which is used as it is.
        """
        wanted = self.settings_dict.get("RESTORE_POINT")
        if not wanted:
            raise ImproperlyConfigured("use restore_point() for this entry of DATABASES")
        params: dict[str, Any] = super().get_connection_params()
        if self.settings_dict["NAME"] != wanted["name"]:
            return params
        copy = restored_copy(
            entry(wanted["of"]).config(),
            wanted["at"],
            max_age=wanted["max_age"],
            directory=wanted["directory"],
        )
        return params | {"database": f"file:{quote(str(copy))}?mode=ro&immutable=1"}
