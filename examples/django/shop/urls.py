"""Addresses: orders, the admin with the restore points, and the health of the replication."""

from django.contrib import admin
from django.urls import include, path
from orders import views

urlpatterns = [
    path("orders", views.orders),
    path("admin/", admin.site.urls),
    path("replicator/", include("replicator.contrib.django.urls")),
]
