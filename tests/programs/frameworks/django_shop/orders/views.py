"""Takes an order and answers once it is committed."""

import json
import os

from django.db import transaction
from django.http import JsonResponse

from orders.models import Order


def orders(request):
    """POST takes one order, GET returns all of them."""
    if request.method == "GET":
        return JsonResponse(dict(Order.objects.values_list("key", "body")))
    order = json.loads(request.body)
    with transaction.atomic():
        Order.objects.create(key=order["key"], body=order["body"])
    return JsonResponse({"worker": os.getpid()})
