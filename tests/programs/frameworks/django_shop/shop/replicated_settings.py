"""The settings of settings.py, for the server of `manage.py runserver` with the replicator."""

from shop.settings import *  # noqa: F403

WSGI_APPLICATION = "shop.replicated.application"
