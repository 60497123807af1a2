"""The application without a replicator: uvicorn main:app."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from shop import create_tables, router


@asynccontextmanager
async def lifespan(app):
    """Prepares the database."""
    create_tables()
    yield


app = FastAPI(lifespan=lifespan)
app.include_router(router)
