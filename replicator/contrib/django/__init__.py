"""Django: three lines of settings replicate a database.

    INSTALLED_APPS = [..., "replicator.contrib.django"]
    DATABASES = {"default": sqlite(BASE_DIR / "shop.db")}
    REPLICATOR = {"default": {"bucket": "backups"}}

Owns the names that ``settings.py`` imports. Refuses to import a model or a connection, which need
the settings.
"""

from replicator.contrib.django.databases import restore_point, sqlite

__all__ = ["restore_point", "sqlite"]
