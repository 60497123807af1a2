"""A Django project: a shop that takes orders."""
