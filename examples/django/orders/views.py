"""Takes an order and confirms it once it is in the bucket: the machine may be lost after that."""

import json
import os

from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from orders.models import Order

from replicator import ReplicatorError
from replicator.contrib.django import transaction


@csrf_exempt
def orders(request):
    """POST takes one order, GET returns all of them."""
    if request.method == "GET":
        return JsonResponse(dict(Order.objects.values_list("key", "body")))
    order = json.loads(request.body)
    try:
        with transaction.durable_atomic():
            Order.objects.create(key=order["key"], body=order["body"])
    except ReplicatorError as error:  # it is in the database, and will be sent later
        return HttpResponse(f"not confirmed yet: {error}\n", status=503)
    return JsonResponse({"worker": os.getpid()})
