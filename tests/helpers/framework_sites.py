"""The applications of the tests in e2e/frameworks, and the commands that start them.

``around`` is ``replicator run DB -- CMD``, with the command ``plain``; ``inside`` is the library's
handle in the application, which the command ``replicated`` loads.
"""

from tests.helpers.frameworks import EXAMPLES, Site
from tests.plugins.scoreboard import effort

ORDERS = effort(60, 600)  # acknowledged before an end, and after a restart
MIGRATE = "python manage.py migrate --noinput -v 0"
GUNICORN = "-b 127.0.0.1:{port} --log-level warning"
UVICORN = "--port {port} --log-level warning"


def django(options):
    return Site(
        "django_shop",
        f"gunicorn shop.wsgi -w 3{options} {GUNICORN}",
        f"gunicorn shop.replicated -w 3{options} {GUNICORN}",
        prepare=MIGRATE,
        table="orders_order",
    )


APSW = "shop:application -w 2 --threads 4"
SITES = {
    "Django": django(""),
    "Django, --preload": django(" --preload"),
    "FastAPI": Site(
        "fastapi_shop",
        f"uvicorn main:app --workers 2 {UVICORN}",
        f"uvicorn replicated:app --workers 2 {UVICORN}",
        auto_restore=True,
    ),
    "apsw": Site(
        "apsw_shop",
        f"gunicorn {APSW} {GUNICORN}",
        f"gunicorn -c replicated.py {APSW} {GUNICORN}",
    ),
    "Huey": Site(
        "huey_shop",
        f"gunicorn web:application --threads 4 {GUNICORN}",
        f"gunicorn replicated_web:application --threads 4 {GUNICORN}",
        queue="huey_consumer tasks.huey -w 3 -k process",
        replicated_queue="huey_consumer replicated.huey -w 3 -k process",
    ),
    "better-sqlite3": Site("node_shop", "node server.js {port}"),
}

RELOADING = {
    "uvicorn": Site(
        "fastapi_shop",
        "uvicorn main:app --reload --port {port} --log-level warning",
        "uvicorn replicated:app --reload --port {port} --log-level warning",
        auto_restore=True,
    ),
    "runserver": Site(
        "django_shop",
        "python manage.py runserver 127.0.0.1:{port}",
        "python manage.py runserver 127.0.0.1:{port} --settings shop.replicated_settings",
        prepare=MIGRATE,
        table="orders_order",
    ),
}

# Applications whose 200 means that the order is in the bucket.
DURABLE = {
    "FastAPI": Site(
        "fastapi",
        plain="",
        replicated=f"uvicorn main:app --workers 2 {UVICORN}",
        auto_restore=True,
        shelf=EXAMPLES,
    ),
    "Flask": Site(
        "flask",
        plain="",
        replicated=f"gunicorn wsgi:app -w 2 --threads 4 {GUNICORN}",
        auto_restore=True,
        shelf=EXAMPLES,
    ),
    "SQLAlchemy": Site(
        "sqlalchemy", f"gunicorn shop:app -w 2 --threads 4 {GUNICORN}", shelf=EXAMPLES
    ),
}


def django_example(serve):
    """The application of examples/django."""
    return Site(
        "django",
        plain="",
        replicated=serve,
        prepare=MIGRATE,
        restore="python manage.py replicator restore --if-missing --if-backup-exists",
        table="orders_order",
        shelf=EXAMPLES,
    )


DJANGO_EXAMPLES = {
    "gunicorn": django_example(f"gunicorn shop.wsgi -w 3 {GUNICORN}"),
    "gunicorn --preload": django_example(f"gunicorn shop.wsgi -w 3 --preload {GUNICORN}"),
}
DJANGO_RUNSERVER = django_example("python manage.py runserver 127.0.0.1:{port}")
