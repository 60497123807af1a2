"""What the benchmarks say of figures that are made up here: medians, aims, curves, the report."""

import sys
import types
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))  # the benchmarks are no installed package

from benchmarks import aims, growth, report
from benchmarks.measure import Failed
from benchmarks.outcome import Outcome
from benchmarks.place import Request
from benchmarks.scenarios import lone


def outcome(name, **trials):
    return Outcome(name, "what it does", {"commit": "abc"}, trials)


def outcomes(*found):
    return {one.name: one for one in found}


def row(what, *found):
    """The line of the aim that begins so."""
    [aim] = [aim for aim in aims.AIMS if aim.what.startswith(what)]
    return aim.row(outcomes(*found))


def test_medians_count_requests_that_were_never_made_as_none():
    """A kind that one run made and another did not counts 0 there; other figures do not."""
    found = outcome(
        "oltp",
        replicator=[
            {"requests": 3.0, "requests POST": 2.0, "wall s": 1.0},
            {"requests": 1.0},
            {"requests": 1.0},
        ],
    )
    assert found.median("replicator", "requests POST") == 0
    assert found.median("replicator", "wall s") == 1
    assert found.median("litestream", "wall s") is None
    assert found.ratio("wall s") is None


def test_an_aim_is_met_or_missed_by_the_medians():
    """The worse of three runs does not count, nor does the better."""
    litestream = [{"bytes up": 100.0}] * 3
    good = outcome(
        "oltp", replicator=[{"bytes up": n} for n in (39.0, 40.0, 99.0)], litestream=litestream
    )
    bad = outcome(
        "oltp", replicator=[{"bytes up": n} for n in (1.0, 41.0, 42.0)], litestream=litestream
    )
    assert row("OLTP: bytes", good).endswith("| ≤ 0.4× Litestream | 0.4× Litestream | met |")
    assert row("OLTP: bytes", bad).endswith("| 0.41× Litestream | **missed** |")


def test_an_aim_without_figures_says_so():
    """A scenario that was not run or failed is never taken for met."""
    failed = Outcome("oltp", "what it does", failures=["litestream: stuck"])
    for aim in aims.AIMS:
        assert aim.row({}).endswith("| | not measured |")
        assert aim.row(outcomes(failed)).endswith("| | not measured |")
    assert len(aims.table({})) == len(aims.AIMS) + 7


def test_speed_is_aimed_at_from_below():
    """Four times as fast means a quarter of the seconds."""
    found = outcome("restore-600", replicator=[{"wall s": 2.0}], litestream=[{"wall s": 9.0}])
    assert row("restore of 600 MB: speed", found).endswith("| 4.5× Litestream | met |")


def test_writes_are_those_of_both_kinds():
    """PUT and POST together, where one of the systems never made the one or the other."""
    found = outcome(
        "oltp",
        replicator=[{"requests": 30.0, "requests PUT": 30.0}],
        litestream=[{"requests": 50.0, "requests PUT": 48.0, "requests POST": 2.0}],
    )
    assert row("OLTP: PUT and POST", found).endswith("| 0.6× Litestream | met |")


def test_seconds_for_each_hundred_objects():
    """Between the fewest and the most, if that is far enough."""
    few = outcome("restore-1-segments", replicator=[{"stored objects": 10.0, "wall s": 1.0}])
    some = outcome("restore-100-segments", replicator=[{"stored objects": 110.0, "wall s": 9.0}])
    many = outcome("restore-3000-segments", replicator=[{"stored objects": 1010.0, "wall s": 3.0}])
    assert aims.per_hundred(outcomes(few, some, many)) == pytest.approx(0.2)
    assert aims.per_hundred(outcomes(few, some)) is None


def test_what_the_application_feels_is_compared_with_its_own_spread():
    """Up to the slowest of its runs alone nothing can be told."""
    found = outcome(
        "oltp",
        replicator=[{"latency p99 ms": 3.0}],
        alone=[{"latency p99 ms": n} for n in (1.0, 2.0, 3.0)],
    )
    assert row("application at 200 transactions/s: p99,", found).endswith("| 1× | met |")


def test_a_curve_lies_over_the_numbers_in_the_names():
    """Sorted; what was saturated lies at the rate it came to; a single point is no curve."""
    found = [
        outcome(f"rate-{name}", replicator=[{"cpu %": cpu, "transactions/s": rate}])
        for name, rate, cpu in (("saturated", 5000.0, 60.0), ("10", 10.0, 1.0))
    ]
    [curve] = [curve for curve in growth.CURVES if curve.file == "rate-cpu"]
    assert growth.points(found, curve) == {"replicator": [(10.0, 1.0), (5000.0, 60.0)]}
    assert growth.points(found[:1], curve) == {}
    assert growth.points([outcome("rate-of-change", replicator=[{"cpu %": 1.0}])], curve) == {}
    assert growth.plots(found)["rate-cpu.svg"].startswith("<svg")


def test_a_report_is_read_again(tmp_path):
    """So that a run of some scenarios replaces their results alone."""
    found = outcome("restore-600", replicator=[{"wall s": 2.0}], litestream=[{"wall s": 9.0}])
    found.failures.append("litestream: it ended with 1")
    report.write(tmp_path, {"cores": "2"}, [found])
    assert report.read(tmp_path) == {"restore-600": found}
    assert report.read(tmp_path / "nothing") == {}
    text = (tmp_path / "results.md").read_text()
    assert "**failed:** litestream: it ended with 1" in text
    assert "commit abc" in text


def test_the_lag_of_a_commit():
    """Until the first object sent after it, or just before it, is acknowledged."""
    sent = [
        Request(begun, answered, answered, 1, 0, kind, "/wal/1", 200)
        for begun, answered, kind in (
            (1.0, 1.5, "PUT"),
            (2.0, 4.0, "PUT"),
            (3.0, 3.5, "PUT"),
            (3.1, 3.2, "GET"),
        )
    ]
    trial = types.SimpleNamespace(
        requests=lambda _: sent,
        system=types.SimpleNamespace(is_commit_object=lambda target: target == "/wal/1"),
    )
    assert lone.lags_of([1.04, 1.1, 2.5], trial, 0, 0.05) == pytest.approx([0.46, 2.4, 1.0])
    with pytest.raises(Failed, match="never arrived"):
        lone.lags_of([3.2], trial, 0, 0.05)
