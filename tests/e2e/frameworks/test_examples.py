"""The examples on a real S3 server: a 200 means that the order survives the loss of the machine."""

import http.client
import json
import signal

import pytest

from tests.helpers.framework_sites import DURABLE, ORDERS


def health_of(machine):
    """(status, document) of the health check of a running site."""
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=60)
    connection.request("GET", "/health/replication")
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DURABLE)
def test_an_acknowledged_order_survives_the_loss_of_the_machine(
    machine_with, scoreboard, real_bucket, name
):
    """SIGKILL of every worker and of the sidecar under load, then the disk is lost: the bucket
    alone has every acknowledged order, and so has the application on a new machine."""
    machine = machine_with(DURABLE[name], "inside", real_bucket)
    machine.start()
    machine.load(ORDERS)
    assert health_of(machine)[0] == 200
    machine.kill_all()
    machine.ended()
    machine.check_bucket()
    machine.lose()
    machine.start()
    machine.check_site()
    machine.load(ORDERS)
    machine.send(signal.SIGTERM)
    machine.ended()
    machine.check_bucket()
    figure = f"{len(machine.acknowledged):,} acknowledged, 0 lost"
    scoreboard(f"example {name}: everything killed, the disk lost", figure)
