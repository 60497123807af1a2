"""Datasette: the state of the replication as a page and as JSON, for those who may see it."""

import asyncio

import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig

pytestmark = pytest.mark.frameworks


@pytest.fixture
def datasette_of():
    """``datasette_of(path, **options)``: a Datasette with the plugin."""
    from datasette.app import Datasette
    from datasette.plugins import pm

    from replicator.contrib import datasette as plugin

    added = not pm.has_plugin("replicator")
    if added:  # installed without its entry point
        pm.register(plugin, "replicator")
    yield lambda path, **options: Datasette([str(path)], **options)
    if added:
        pm.unregister(name="replicator")


def get(datasette, path, actor=None):
    cookies = {"ds_actor": datasette.sign({"a": actor}, "actor")} if actor else {}
    return asyncio.run(datasette.client.get(path, cookies=cookies))


def test_a_replicated_database_is_healthy(datasette_of, closed_db, tmp_path):
    """JSON has the figures, the page shows them and is in the menu; neither has an address."""
    (tmp_path / "secret").mkdir()
    config = SqliteReplicatorConfig(db_path=closed_db, url=f"file://{tmp_path}/secret")
    with SqliteReplicator(config) as replicator:
        position = replicator.flush(60)
        datasette = datasette_of(closed_db)
        document = get(datasette, "/-/replication.json").json()["databases"]["app"]
        page = get(datasette, "/-/replication")
    assert (document["healthy"], document["durable_txid"]) == (True, position.txid)
    assert page.status_code == 200
    assert f"{position.txid} of {position.txid}" in page.text
    assert 'href="/-/replication"' in page.text
    assert "secret" not in page.text
    assert "secret" not in str(document)


def test_a_database_without_a_sidecar_is_not_healthy(datasette_of, closed_db):
    """It is listed, as unknown."""
    datasette = datasette_of(closed_db)
    document = get(datasette, "/-/replication.json").json()
    assert document["databases"]["app"]["state"] == "unknown"
    assert "unknown, not healthy" in get(datasette, "/-/replication").text


def test_a_visitor_sees_the_databases_that_he_may_see(datasette_of, closed_db):
    """The permissions of Datasette decide, for the instance and for each database."""
    datasette = datasette_of(closed_db, metadata={"databases": {"app": {"allow": {"id": "ada"}}}})
    assert get(datasette, "/-/replication.json").json() == {"databases": {}}
    known = get(datasette, "/-/replication.json", actor={"id": "ada"}).json()
    assert list(known["databases"]) == ["app"]
    closed = datasette_of(closed_db, metadata={"allow": {"id": "ada"}})
    assert get(closed, "/-/replication.json").status_code == 403


def test_the_cache_directory_is_a_setting(datasette_of, closed_db, tmp_path):
    """A sidecar with another cache is found by the configuration of the database."""
    (tmp_path / "bucket").mkdir()
    config = SqliteReplicatorConfig(
        db_path=closed_db, url=f"file://{tmp_path}/bucket", cache_dir=tmp_path / "cache"
    )
    plugins = {"plugins": {"replicator": {"cache_dir": str(tmp_path / "cache")}}}
    with SqliteReplicator(config) as replicator:
        replicator.flush(60)
        datasette = datasette_of(closed_db, metadata={"databases": {"app": plugins}})
        document = get(datasette, "/-/replication.json").json()
    assert document["databases"]["app"]["healthy"]
