"""For servers: gunicorn wsgi:app -w 2 --threads 4."""

from shop import create_app, create_tables, replication

app = create_app()
replication.start(app)  # restores a lost database
create_tables()
