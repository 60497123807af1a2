"""The application of main.py with its replicator: uvicorn replicated:app."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from shop import DATABASE, create_tables, router

from replicator import SqliteReplicator, SqliteReplicatorConfig


@asynccontextmanager
async def lifespan(app):
    """Replicates from the start of each worker to its end."""
    config = SqliteReplicatorConfig.from_env(db_path=DATABASE, auto_restore=True)
    with SqliteReplicator(config):
        create_tables()
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(router)
