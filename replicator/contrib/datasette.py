"""Datasette: a page and a JSON document with the state of the replication of each database.

Owns: ``/-/replication``, ``/-/replication.json``, and a link in the menu. Refuses: to write, to
open a database, and to show one that the visitor may not see, a path, an address or an error.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from datasette import Forbidden, Response, hookimpl

from replicator.app.state import status_of
from replicator.contrib.health import HealthProbe, HealthReport

PAGE = "/-/replication"
PLUGIN = "replicator"  # key of the configuration: {"cache_dir": "…"} for a database

TEMPLATE = """\
{% extends "base.html" %}
{% block title %}Replication{% endblock %}
{% block content %}
<h1>Replication</h1>
<div class="table-wrapper"><table class="rows-and-columns">
<thead><tr><th>database</th><th>state</th><th>durable</th><th>lag</th><th>waiting</th>
<th>last upload</th><th>last snapshot</th><th>last drill</th></tr></thead>
<tbody>
{% for name, cells in rows %}
<tr><td>{{ name }}</td>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p>The same as <a href="{{ urls.path(page) }}.json">JSON</a>. <code>replicator status</code> shows
errors.</p>
{% endblock %}
"""

_probes: WeakKeyDictionary[Any, dict[str, HealthProbe]] = WeakKeyDictionary()


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The two routes."""
    return [(rf"^{PAGE}$", show), (rf"^{PAGE}\.json$", answer)]


@hookimpl
def menu_links(datasette: Any) -> list[dict[str, str]]:
    """A link to the page."""
    return [{"href": datasette.urls.path(PAGE), "label": "Replication"}]


async def show(datasette: Any, request: Any) -> Any:
    """The page."""
    rows = [(name, _cells(report)) for name, report in await _reports(datasette, request.actor)]
    template = datasette.jinja_env.from_string(TEMPLATE)
    context = {"rows": rows, "page": PAGE}
    return Response.html(await datasette.render_template(template, context, request=request))


async def answer(datasette: Any, request: Any) -> Any:
    """The document: an object for each database."""
    found = await _reports(datasette, request.actor)
    return Response.json({"databases": {name: report.to_dict() for name, report in found}})


async def _reports(datasette: Any, actor: Any) -> list[tuple[str, HealthReport]]:
    """The report of each database that the visitor may see."""
    if not await datasette.permission_allowed(actor, "view-instance", default=True):
        raise Forbidden("view-instance")
    seen = [
        (name, probe)
        for name, probe in _probes_of(datasette)
        if await datasette.permission_allowed(actor, "view-database", name, default=True)
    ]
    reports = await asyncio.gather(*(asyncio.to_thread(probe.report) for _, probe in seen))
    return [(name, report) for (name, _), report in zip(seen, reports, strict=True)]


def _probes_of(datasette: Any) -> Iterator[tuple[str, HealthProbe]]:
    """The name and the probe of each database that is a file."""
    known = _probes.setdefault(datasette, {})
    for name, database in datasette.databases.items():
        if database.path:
            path = os.path.abspath(database.path)
            if path not in known:
                options = datasette.plugin_config(PLUGIN, database=name) or {}
                ask = partial(status_of, path, cache_dir=options.get("cache_dir"))
                known[path] = HealthProbe(ask)
            yield name, known[path]


def _cells(report: HealthReport) -> list[str]:
    return [
        report.state if report.healthy else f"{report.state}, not healthy",
        "" if report.txid is None else f"{report.durable_txid} of {report.txid}",
        "" if report.lag_seconds is None else f"{report.lag_seconds:.1f} s",
        "" if report.pending_bytes is None else f"{report.pending_bytes:,} bytes",
        _moment(report.last_wal_sync),
        _moment(report.last_snapshot),
        _moment(report.last_verified_ms),
    ]


def _moment(ms: int | None) -> str:
    return "" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
