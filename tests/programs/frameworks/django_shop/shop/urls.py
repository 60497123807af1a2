"""Addresses: take an order, list the orders."""

from django.urls import path
from orders import views

urlpatterns = [path("orders", views.orders)]
