"""The page of restore points: for the staff, read-only, and every text of the bucket escaped."""

import pytest
from django.contrib import admin
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.urls import NoReverseMatch, reverse

from replicator.contrib.django import timeline
from replicator.contrib.django.replicated import replicated
from tests.helpers.django_project import person

HOSTILE = "<script>alert('x')</script>"
HISTORY = {
    "url": f"s3://backups/{HOSTILE}",
    "restorable": [[1, 4], [7, 9]],
    "last_commit_ms": 1_700_000_000_000,
    "snapshots": [{"txid": 1, "stored_ms": 50}, {"txid": 7, "stored_ms": 100}],
    "snapshot_bytes": 10,
    "segments": 3,
    "segment_bytes": 30,
    "activity": {"since_ms": 50, "until_ms": 100, "bytes": [0, 5, 100]},
    "pins": [{"name": HOSTILE, "txid": 4, "note": HOSTILE}],
    "events": [],
}
COMMITS = [{"txid": 9, "committed_ms": 10**18, "bytes": HOSTILE}, {"txid": 8, "bytes": 1}]


@pytest.fixture
def page(project):
    """The page of the admin, as a function of the user."""
    from replicator.contrib.django.models import RestorableDatabase

    found = admin.site.get_model_admin(RestorableDatabase)

    def get(user, method="get"):
        request = getattr(RequestFactory(), method)("/admin/")
        request.user = user
        return found.admin_site.admin_view(found.changelist_view)(request)

    return get


def test_the_page_is_for_the_staff(page, project):
    """Others are sent to the login. A bucket that does not answer is an error on the page, and no
    failure of the site."""
    with project.away():
        response = page(person()).render()
    assert b"errornote" in response.content
    assert response.status_code == 200
    for other in (person(staff=False), person(active=False)):
        assert page(other).status_code == 302


def test_nothing_can_be_changed(page):
    """No permission but to look; rows have no pages."""
    from replicator.contrib.django.models import RestorableDatabase

    found = admin.site.get_model_admin(RestorableDatabase)
    request = RequestFactory().get("/")
    request.user = person()
    assert found.get_model_perms(request) == {
        "add": False,
        "change": False,
        "delete": False,
        "view": True,
    }
    assert reverse("admin:replicator_django_restorabledatabase_changelist")
    for name in ("add", "change", "delete", "history"):
        with pytest.raises(NoReverseMatch):
            reverse(f"admin:replicator_django_restorabledatabase_{name}", args=[1])


def test_every_text_of_the_bucket_is_escaped(django_process):
    """Names, notes, addresses and figures may be anything that another program stored."""
    found = timeline.read(HOSTILE, HISTORY, COMMITS)
    failed = timeline.Timeline(HOSTILE, error=HOSTILE, hint=HOSTILE)
    text = render_to_string(
        "admin/replicator_django/timeline.html", {"timelines": [found, failed], "height": 60}
    )
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;") == 9
    assert "1 to 4, 7 to 9" in text
    assert "2023-11-14 22:13:20" in text


def test_the_drawing_is_made_of_bounded_numbers():
    """A bar for each slice with bytes, as high as its share; snapshots inside the drawing."""
    found = timeline.read("x", HISTORY, COMMITS)
    assert found.bars == [
        {"x": 200, "y": 57, "width": 199, "height": 3},
        {"x": 400, "y": 0, "width": 199, "height": 60},
    ]
    assert found.snapshots == [0, 600]
    assert [each["at"] for each in found.commits] == [None, None]


def test_the_timeline_of_a_project_without_a_backup_names_the_reason(project):
    """The error of the command line, with its hint."""
    found = timeline.timeline_of(replicated()["default"])
    assert found.error
    assert found.hint
