"""Addresses for ``include("replicator.contrib.django.urls")``."""

from django.urls import path

from replicator.contrib.django.views import health

app_name = "replicator"
urlpatterns = [path("health", health, name="health")]
