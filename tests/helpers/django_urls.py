"""Addresses of the Django project of the tests."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("replicator/", include("replicator.contrib.django.urls")),
]
