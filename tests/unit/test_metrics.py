"""metrics.py: every figure has a meaning, and a typo is an error."""

import re
import threading

import pytest

from replicator.metrics import FIGURES, Figure, Metrics


def test_all_figures_start_at_zero_and_have_a_meaning():
    """A figure without an explanation is of no use."""
    assert set(Metrics().snapshot().values()) == {0}
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    assert all(figure.doc for figure in FIGURES)
    assert all(re.fullmatch(r"[a-z][a-z_]*[a-z]", figure.name) for figure in FIGURES)


def test_figures_move():
    """Counters add up, gauges are set, a maximum only rises."""
    metrics = Metrics()
    metrics.add("segments")
    metrics.add("segments", 4)
    metrics.set("lag_seconds", 2.5)
    metrics.set("lag_seconds", 1.5)
    for value in (3, 9, 5):
        metrics.observe_max("longest_write_lock_ms", value)
    assert metrics.get("segments") == 5
    assert metrics.get("lag_seconds") == 1.5
    assert metrics.snapshot()["longest_write_lock_ms"] == 9


@pytest.mark.parametrize("use", [
    lambda m: m.add("segmens"), lambda m: m.set("segmens", 1),
    lambda m: m.observe_max("segmens", 1), lambda m: m.get("segmens"),
])  # fmt: skip
def test_an_unknown_name_is_an_error(use):
    """It would otherwise be a figure without a reader."""
    with pytest.raises(KeyError, match="segmens"):
        use(Metrics())


def test_a_snapshot_does_not_move():
    """It is a copy of one instant."""
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.add("segments")
    assert before["segments"] == 0


def test_a_snapshot_is_of_this_moment():
    """Gauges that change with time are set before each snapshot, and before each text form."""
    collected = []

    def collect():
        collected.append(None)
        metrics.set("lag_seconds", len(collected))

    metrics = Metrics(collect=collect)
    assert metrics.values()["lag_seconds"] == 0
    assert metrics.snapshot()["lag_seconds"] == 1
    assert "replicator_lag_seconds 2\n" in metrics.render()


def test_text_form():
    """Prometheus' text format: help, type, one sample; labels escaped; large numbers exact."""
    metrics = Metrics((Figure("sent", "counter", "bytes sent"), Figure("lag", "gauge", "age")))
    metrics.add("sent", 12345678901234)
    metrics.set("lag", 0.25)
    assert metrics.render() == (
        "# HELP replicator_sent_total bytes sent\n"
        "# TYPE replicator_sent_total counter\n"
        "replicator_sent_total 12345678901234\n"
        "# HELP replicator_lag age\n"
        "# TYPE replicator_lag gauge\n"
        "replicator_lag 0.25\n"
    )
    labelled = metrics.render({"database": 'a"b\\c\nd', "host": "x"})
    assert 'replicator_lag{database="a\\"b\\\\c\\nd",host="x"} 0.25\n' in labelled


def test_threads_share_the_figures():
    """No addition is lost."""
    metrics = Metrics()

    def count():
        for _ in range(2000):
            metrics.add("segments")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.get("segments") == 8000
