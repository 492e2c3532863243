"""Set the price of a product, as a user."""

from auditlog.context import set_actor
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from shop.models import Product


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("user")
        parser.add_argument("product")
        parser.add_argument("price", type=int)

    def handle(self, *, user, product, price, **options):
        actor, _ = User.objects.get_or_create(username=user)
        with set_actor(actor):
            Product.objects.update_or_create(name=product, defaults={"price": price})
