"""The example of the guide to Django: confirmed orders survive the loss of the machine."""

import contextlib
import http.client
import json
import os
import signal
import subprocess

import pytest

from replicator.testing import SeaweedServer
from tests.helpers import docs
from tests.helpers.framework_sites import DJANGO_EXAMPLES, DJANGO_RUNSERVER, ORDERS
from tests.helpers.frameworks import BIN, free_port
from tests.helpers.replication import LONG, wait_for


def health(machine):
    """(status, document) of the health view."""
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=LONG)
    with contextlib.closing(connection):
        connection.request("GET", "/replicator/health")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DJANGO_EXAMPLES)
def test_a_confirmed_order_survives_the_loss_of_the_machine(
    machine_with, scoreboard, real_bucket, name
):
    """SIGKILL of all three workers and of the sidecar under load, then the disk is lost: every
    order that was answered with 200 is in the bucket, and on the next machine."""
    machine = machine_with(DJANGO_EXAMPLES[name], "inside", real_bucket)
    machine.start()
    machine.load(ORDERS)
    assert len(machine.workers()) == 3
    machine.kill_all()
    machine.ended()
    machine.check_bucket()  # not after another start: from the bucket alone
    machine.lose()
    machine.start()
    machine.check_site()
    machine.load(ORDERS)
    wait_for(lambda: health(machine)[0] == http.client.OK)
    assert "healthy" in machine.call("python manage.py replicator status")
    machine.call("python manage.py replicator mark before-import")
    machine.call("python manage.py replicator drill --at before-import")
    machine.send(signal.SIGTERM)
    assert machine.ended() == 0, machine.log
    machine.check_bucket()
    scoreboard(
        f"Django example, {name}: all killed, machine lost",
        f"{len(machine.acknowledged):,} confirmed, 0 lost",
    )


# --------------------------------------------------------------- the page, as it is written


def lived(page):
    """(the commands, the settings) of the first part of the page, without installation and the
    server of the bucket."""
    part = page.read_text().split("\n## ")[1]
    (settings,) = (body for _, language, body in docs.FENCE.findall(part) if language == "python")
    lines = []
    for _, language, body in docs.FENCE.findall(part):
        if language == "sh" and not {"weed", "pip"} & set(body.split()):
            lines += docs.typed(docs.Block(language, body))
        if language == "python":
            lines.append("cat settings.txt >> shop/settings.py")
    return lines, settings


@pytest.mark.frameworks
@pytest.mark.timeout(300)
def test_the_page_leads_to_a_restored_copy(tmp_path):
    """Every command of the first part, in order, with the port of the test and a bucket of its
    own."""
    lines, settings = lived(docs.TOP / "docs/guide/django.md")
    (tmp_path / "settings.txt").write_text(settings)
    with SeaweedServer(bucket="backups") as server:
        script = "\n".join(lines)
        for written, here in (
            ("/tmp/shop", str(tmp_path)),
            ("http://127.0.0.1:8333", server.endpoint_url),
            ("-w 3 &", f"-w 3 -b 127.0.0.1:{free_port()} &"),
            ("export AWS_ACCESS_KEY_ID=quick AWS_SECRET_ACCESS_KEY=start", ":"),
        ):
            assert written in script
            script = script.replace(written, here)
        done = subprocess.run(
            ["bash", "-emuc", script],
            cwd=tmp_path,
            env=os.environ
            | server.environment()
            | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("\nada\n")


# ------------------------------------------------------------------------- other processes

TESTS = """
from django.test import TestCase, TransactionTestCase
from orders.models import Order

ORDER = '{"key": "k", "body": "b"}'


class Orders(TestCase):
    def test_confirmed(self):
        answer = self.client.post("/orders", ORDER, content_type="application/json")
        assert answer.status_code == 200


class Mirrors(TransactionTestCase):
    databases = {"default", "earlier"}

    def test_mirrored(self):
        Order.objects.create(key="m", body="b")
        assert Order.objects.using("earlier").count() == 1
"""


def test_a_test_run_of_the_example_touches_no_bucket(machine_with):
    """Durable orders and a restore point work in tests; nothing is started, restored or sent."""
    machine = machine_with(DJANGO_EXAMPLES["gunicorn"], "inside")
    (machine.home / "orders/tests.py").write_text(TESTS)
    machine.call("python manage.py test")
    assert list((machine.outside / "store").iterdir()) == []
    assert not machine.database.exists()
    assert list(machine.home.glob(".shop.db*")) == []


@pytest.mark.frameworks
@pytest.mark.timeout(600)
def test_a_reload_of_the_example_loses_nothing(machine_with, real_bucket):
    """`runserver` replaces its process under load, and then everything is killed: each confirmed
    order is in the bucket."""
    machine = machine_with(DJANGO_RUNSERVER, "inside", real_bucket)
    machine.start()
    machine.load(20)
    with (machine.home / "orders/views.py").open("a") as file:
        file.write("# changed\n")
    machine.until_new_worker()
    machine.load(20)
    machine.kill_all()
    machine.ended()
    machine.check_bucket()
