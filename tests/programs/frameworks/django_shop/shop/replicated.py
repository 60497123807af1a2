"""The application of wsgi.py with its replicator."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from replicator import SqliteReplicator, SqliteReplicatorConfig

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()

database = settings.DATABASES["default"]["NAME"]
replicator = SqliteReplicator(SqliteReplicatorConfig.from_env(db_path=database))
replicator.start()
