"""The domain `retail`: orders, products with variants, and payments."""

import json
from collections import Counter
from collections.abc import Sequence

from rods_jax.environments.tau2.calculator import calculate
from rods_jax.environments.tau2.shapes import (
    boolean,
    choice,
    items,
    maybe,
    number,
    record,
    table,
    tagged,
    text,
)
from rods_jax.environments.tau2.toolkit import GENERIC, READ, WRITE, Toolkit, tool
from rods_jax.environments.tau2.values import Record, copied

# --------------------------------------------------------------------------------------- the records
ADDRESS = record("UserAddress", dict.fromkeys(("address1", "address2", "city", "country", "state", "zip"), text))
OPTIONS = table(text)
VARIANT = record("Variant", {"item_id": text, "options": OPTIONS, "available": boolean, "price": number})
PRODUCT = record("Product", {"name": text, "product_id": text, "variants": table(VARIANT)})
METHOD = tagged(
    "source",
    {
        "credit_card": record("CreditCard", {"source": text, "id": text, "brand": text, "last_four": text}),
        "gift_card": record("GiftCard", {"source": text, "id": text, "balance": number}),
        "paypal": record("Paypal", {"source": text, "id": text}),
    },
)
USER = record(
    "User",
    {
        "user_id": text,
        "name": record("UserName", {"first_name": text, "last_name": text}),
        "address": ADDRESS,
        "email": text,
        "payment_methods": table(METHOD),
        "orders": items(text),
    },
)
PAYMENT = record(
    "OrderPayment",
    {"transaction_type": choice("payment", "refund"), "amount": number, "payment_method_id": text},
)
REASONS = "no longer needed", "ordered by mistake"
ORDER = record(
    "Order",
    {
        "order_id": text,
        "user_id": text,
        "address": ADDRESS,
        "items": items(
            record(
                "OrderItem", {"name": text, "product_id": text, "item_id": text, "price": number, "options": OPTIONS}
            )
        ),
        "status": choice(
            "processed",
            "pending",
            "pending (item modified)",
            "delivered",
            "cancelled",
            "exchange requested",
            "return requested",
        ),
        "fulfillments": items(record("OrderFullfilment", {"tracking_id": items(text), "item_ids": items(text)})),
        "payment_history": items(PAYMENT),
        "cancel_reason": (maybe(choice(*REASONS)), None),
        "exchange_items": (maybe(items(text)), None),
        "exchange_new_items": (maybe(items(text)), None),
        "exchange_payment_method_id": (maybe(text), None),
        "exchange_price_difference": (maybe(number), None),
        "return_items": (maybe(items(text)), None),
        "return_payment_method_id": (maybe(text), None),
    },
)
DB = record("RetailDB", {"products": table(PRODUCT), "users": table(USER), "orders": table(ORDER)}, closed=True)


# ----------------------------------------------------------------------------------------- the tools
class RetailTools(Toolkit):
    @tool(GENERIC)
    def calculate(self, expression: str) -> str:
        """The value of an arithmetic expression."""
        return calculate(expression)

    @tool(WRITE)
    def cancel_pending_order(self, order_id: str, reason: str) -> Record:
        """Cancels an order that is pending, and pays it back."""
        if self._order(order_id)["status"] != "pending":
            raise ValueError("Non-pending order cannot be cancelled")
        if reason not in REASONS:
            raise ValueError("Invalid reason")
        order = self.db.write("orders", order_id)
        history = order["payment_history"]
        refunds = [_payment("refund", entry["amount"], entry["payment_method_id"]) for entry in history]
        for refund in refunds:
            self._move(order["user_id"], refund["payment_method_id"], refund["amount"])
        history += refunds
        order["status"] = "cancelled"
        order["cancel_reason"] = reason
        return order

    @tool(WRITE)
    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Asks to exchange items of a delivered order for others of the same products."""
        held = self._order(order_id)
        if held["status"] != "delivered":
            raise ValueError("Non-delivered order cannot be exchanged")
        _require(held, item_ids, "Number of {} not found.")
        if len(item_ids) != len(new_item_ids):
            raise ValueError("The number of items to be exchanged should match.")
        difference: float = 0  # an integer where nothing is exchanged
        for old, new in zip(item_ids, new_item_ids):
            item = _item(held, old)
            difference += self._available(item["product_id"], new)["price"] - item["price"]
        difference = round(difference, 2)
        method = self._method(held["user_id"], payment_method_id)
        if method["source"] == "gift_card" and method["balance"] < difference:
            raise ValueError("Insufficient gift card balance to pay for the price difference")
        order = self.db.write("orders", order_id)
        order["status"] = "exchange requested"
        order["exchange_items"] = sorted(item_ids)
        order["exchange_new_items"] = sorted(new_item_ids)
        order["exchange_payment_method_id"] = payment_method_id
        order["exchange_price_difference"] = difference
        return order

    @tool(READ)
    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """The id of the user with this name at this zip code."""
        for user_id, user in self.db.records("users"):
            name = user["name"]
            if (
                name["first_name"].lower() == first_name.lower()
                and name["last_name"].lower() == last_name.lower()
                and user["address"]["zip"] == zip
            ):
                return str(user_id)
        raise ValueError("User not found")

    @tool(READ)
    def find_user_id_by_email(self, email: str) -> str:
        """The id of the user with this address."""
        for user_id, user in self.db.records("users"):
            if user["email"].lower() == email.lower():
                return str(user_id)
        raise ValueError("User not found")

    @tool(READ)
    def get_order_details(self, order_id: str) -> Record:
        """An order."""
        return self._order(order_id)

    @tool(READ)
    def get_product_details(self, product_id: str) -> Record:
        """A product and its variants."""
        return self._product(product_id)

    @tool(READ)
    def get_item_details(self, item_id: str) -> Record:
        """What there is of one item: options, price, whether it is in stock."""
        for _, product in self.db.records("products"):
            if item_id in product["variants"]:
                return product["variants"][item_id]
        raise ValueError("Item not found")

    @tool(READ)
    def get_user_details(self, user_id: str) -> Record:
        """A user, with the ids of the orders."""
        return self._user(user_id)

    @tool(READ)
    def list_all_product_types(self) -> str:
        """All kinds of products and their ids."""
        return json.dumps({product["name"]: key for key, product in self.db.records("products")}, sort_keys=True)

    @tool(WRITE)
    def modify_pending_order_address(
        self, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Record:
        """Changes where a pending order goes."""
        self._pending(order_id)
        order = self.db.write("orders", order_id)
        order["address"] = _address(address1, address2, city, state, country, zip)
        return order

    @tool(WRITE)
    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Changes items of a pending order to others of the same products, once.

        Officially every changed item gets the price and the options of the last new one; mended, each gets its own.
        """
        held = self._order(order_id)
        if held["status"] != "pending":
            raise ValueError("Non-pending order cannot be modified")
        _require(held, item_ids, "{} not found")
        if len(item_ids) != len(new_item_ids):
            raise ValueError("The number of items to be exchanged should match")
        difference = 0.0
        variants = []
        for old, new in zip(item_ids, new_item_ids):
            if old == new:
                raise ValueError("The new item id should be different from the old item id")
            item = _item(held, old)
            variants.append(self._available(item["product_id"], new))
            difference += variants[-1]["price"] - item["price"]
        method = self._method(held["user_id"], payment_method_id)
        if method["source"] == "gift_card" and method["balance"] < difference:
            raise ValueError("Insufficient gift card balance to pay for the new item")
        order = self.db.write("orders", order_id)
        order["payment_history"].append(
            _payment("payment" if difference > 0 else "refund", abs(difference), payment_method_id)
        )
        self._move(order["user_id"], payment_method_id, -difference)
        for old, new, own in zip(item_ids, new_item_ids, variants):
            variant = own if self.mended else variants[-1]
            _item(order, old).update(item_id=new, price=variant["price"], options=copied(variant["options"]))
        order["status"] = "pending (item modified)"
        return order

    @tool(WRITE)
    def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Record:
        """Changes how a pending order is paid."""
        held = self._pending(order_id)
        method = self._method(held["user_id"], payment_method_id)
        history = held["payment_history"]
        if len(history) != 1 or history[0]["transaction_type"] != "payment":
            raise ValueError("There should be exactly one payment for a pending order")
        amount, former = history[0]["amount"], history[0]["payment_method_id"]
        if former == payment_method_id:
            raise ValueError("The new payment method should be different from the current one")
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise ValueError("Insufficient gift card balance to pay for the order")
        order = self.db.write("orders", order_id)
        order["payment_history"] += [_payment("payment", amount, payment_method_id), _payment("refund", amount, former)]
        self._move(order["user_id"], payment_method_id, -amount)
        self._move(order["user_id"], former, amount)
        return order

    @tool(WRITE)
    def modify_user_address(
        self, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Record:
        """Changes a user's own address."""
        self._user(user_id)
        user = self.db.write("users", user_id)
        user["address"] = _address(address1, address2, city, state, country, zip)
        return user

    @tool(WRITE)
    def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Record:
        """Asks to return items of a delivered order."""
        held = self._order(order_id)
        if held["status"] != "delivered":
            raise ValueError("Non-delivered order cannot be returned")
        method = self._method(held["user_id"], payment_method_id)
        if method["source"] != "gift_card" and payment_method_id != held["payment_history"][0]["payment_method_id"]:
            raise ValueError("Payment method should be the original payment method")
        _require(held, item_ids, "Some item not found")
        order = self.db.write("orders", order_id)
        order["status"] = "return requested"
        order["return_items"] = sorted(item_ids)
        order["return_payment_method_id"] = payment_method_id
        return order

    @tool(GENERIC)
    def transfer_to_human_agents(self, summary: str) -> str:
        """Hands the user over to a person."""
        return "Transfer successful"

    # ------------------------------------------------------------------------------------- look-ups
    def _order(self, order_id: str) -> Record:
        if not self.db.has("orders", order_id):
            raise ValueError("Order not found")
        return self.db.read("orders", order_id)

    def _pending(self, order_id: str) -> Record:
        order = self._order(order_id)
        if "pending" not in order["status"]:
            raise ValueError("Non-pending order cannot be modified")
        return order

    def _user(self, user_id: str) -> Record:
        if not self.db.has("users", user_id):
            raise ValueError("User not found")
        return self.db.read("users", user_id)

    def _product(self, product_id: str) -> Record:
        if not self.db.has("products", product_id):
            raise ValueError("Product not found")
        return self.db.read("products", product_id)

    def _available(self, product_id: str, item_id: str) -> Record:
        variants = self._product(product_id)["variants"]
        if item_id not in variants:
            raise ValueError("Variant not found")
        if not variants[item_id]["available"]:
            raise ValueError(f"New item {item_id} not found or available")
        return variants[item_id]

    def _method(self, user_id: str, payment_method_id: str) -> Record:
        methods = self._user(user_id)["payment_methods"]
        if payment_method_id not in methods:
            raise ValueError("Payment method not found")
        return methods[payment_method_id]

    def _move(self, user_id: str, payment_method_id: str, amount: float) -> None:
        """Adds to a gift card; other methods hold no money here."""
        if self._method(user_id, payment_method_id)["source"] == "gift_card":
            card = self.db.write("users", user_id)["payment_methods"][payment_method_id]
            card["balance"] = round(card["balance"] + amount, 2)


def _require(order: Record, item_ids: Sequence[str], complaint: str) -> None:
    """ValueError: an item is asked for more often than the order has it."""
    held = Counter(item["item_id"] for item in order["items"])
    for item_id in item_ids:
        if item_ids.count(item_id) > held[item_id]:
            raise ValueError(complaint.format(item_id))


def _item(order: Record, item_id: str) -> Record:
    return next(item for item in order["items"] if item["item_id"] == item_id)


def _payment(kind: str, amount: float, payment_method_id: str) -> Record:
    return PAYMENT({"transaction_type": kind, "amount": amount, "payment_method_id": payment_method_id})


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Record:
    address = {"address1": address1, "address2": address2, "city": city, "country": country, "state": state, "zip": zip}
    return ADDRESS(address)
