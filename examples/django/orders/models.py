"""The table of orders."""

from django.db import models


class Order(models.Model):
    """One order."""

    key = models.CharField(max_length=64, unique=True)
    body = models.TextField()

    def __str__(self):
        return self.key
