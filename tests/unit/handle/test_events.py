"""The stream of events across the end of a sidecar."""

from replicator.errors import NotRunning
from replicator.handle.events import EventStream, follow

EVENT = {"number": 4, "at_ms": 1, "name": "generation", "detail": "", "code": "", "txid": 2}


class Sidecar:
    """Gives its answers one after another; None: it does not run."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, request):
        self.asked.append((request["log"], request["after"]))
        answer = self.answers.pop(0)
        if answer is None:
            raise NotRunning("no sidecar")
        return answer


def test_a_stream_continues_with_the_next_sidecar():
    """From now on; the end is one event; then everything of the other log."""
    sidecar = Sidecar(
        {"log": "a", "after": 3, "events": []},
        {"log": "a", "after": 4, "events": [EVENT]},
        None,
        None,
        {"log": "b", "after": 1, "events": [EVENT | {"number": 1}]},
    )
    stream = EventStream(sidecar.ask, pause=0.0)
    found = follow(stream, lambda: bool(sidecar.answers))
    assert [each.name for each in found] == ["generation", "sidecar_ended", "generation"]
    assert sidecar.asked == [("", None), ("a", 3), ("a", 4), ("a", 4), ("a", 4)]


def test_the_past_is_asked_for():
    """From the oldest event that the sidecar remembers."""
    sidecar = Sidecar({"log": "a", "after": 4, "events": [EVENT]})
    assert [each.number for each in EventStream(sidecar.ask, past=True).next()] == [4]
    assert sidecar.asked == [("", 0)]
