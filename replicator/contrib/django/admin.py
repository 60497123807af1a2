"""A page of the admin: what can be restored, for the staff. It changes nothing.

Owns: who may see it. Refuses: every action; a restore is a decision for the command line.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from replicator.contrib.django.models import RestorableDatabase
from replicator.contrib.django.replicated import replicated
from replicator.contrib.django.timeline import HEIGHT, WIDTH, timeline_of


@admin.register(RestorableDatabase)
class RestorableDatabaseAdmin(admin.ModelAdmin):
    """The timelines, where other models have a list of rows."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Every active member of the staff: the page shows no data of the database."""
        return bool(request.user.is_active and request.user.is_staff)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_urls(self) -> list[Any]:
        """The page alone: rows do not exist, so they have no pages."""
        pages: list[Any] = super().get_urls()
        return pages[:1]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        """Asks the bucket of each database; the page has the error of one that does not answer."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Restore points",
            "opts": self.opts,
            "timelines": [timeline_of(each) for each in replicated().values()],
            "width": WIDTH,
            "height": HEIGHT,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/replicator_django/timeline.html", context)
