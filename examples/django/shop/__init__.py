"""A Django project whose orders are in a bucket before it confirms them."""
