"""The models of the shop."""

from auditlog.registry import auditlog
from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=40)
    price = models.IntegerField()


auditlog.register(Product)
