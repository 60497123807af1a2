"""Takes orders; each 200 means that the order is in the bucket.

REPLICATOR_BUCKET=backups replicator run shop.db -- gunicorn shop:app -w 2 --threads 4
"""

import os

from flask import Flask, request
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from replicator.contrib.flask import health_blueprint, not_durable
from replicator.contrib.sqlalchemy import make_durable, reading, replicated_engine
from replicator.errors import NotDurable


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """One order."""

    __tablename__ = "orders"
    key: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


engine = replicated_engine("shop.db")
Sessions = sessionmaker(engine)
make_durable(Sessions, timeout=10)
Base.metadata.create_all(engine)

app = Flask(__name__)
app.register_blueprint(health_blueprint(database="shop.db"))
app.register_error_handler(NotDurable, not_durable)


@app.post("/orders")
def add():
    """Takes one order."""
    order = request.get_json()
    with Sessions.begin() as session:
        session.add(Order(key=order["key"], body=order["body"]))
    return {"worker": os.getpid()}


@app.get("/orders")
def every():
    """Returns all orders."""
    with Session(reading(engine)) as session:
        return {order.key: order.body for order in session.scalars(select(Order))}
