"""Orders: placed from stock, then paid, then shipped, and only then returned."""

from collections.abc import Sequence

from rods_jax.environments.workplace.vocabulary import Record, Result, find, history


class PlacedOrder(Result):
    order_id: int
    amount: int


class OrderStatus(Result):
    status: str


class Refund(Result):
    amount: int


class Item(Result):
    item: str


class Stock(Result):
    stock: int


class Orders:
    """Orders for office supplies, and the stock that they are taken from."""

    def __init__(
        self,
        stock: Sequence[Record] = (),
        orders: Sequence[Record] = (),
        next_order_id: int = 1,
        long_context: bool = False,
    ):
        self.stock = list(stock)  # {"item": str, "price": int, "stock": int}
        # {"order_id": int, "item": str, "quantity": int, "amount": int, "status": str}
        self.orders = list(orders)
        self.next_order_id = next_order_id
        self._history = history("ordered", long_context)

    def place_order(self, item: str, quantity: int) -> PlacedOrder:
        """Orders an item that is in stock.

        Args:
            item: What to order.
            quantity: How many pieces.
        """
        shelf = find(self.stock, "item", item)
        if quantity < 1:
            raise ValueError("quantity must be positive")
        if shelf["stock"] < quantity:
            raise ValueError(f"stock of {item} is {shelf['stock']}")
        shelf["stock"] -= quantity
        order_id = self.next_order_id
        self.next_order_id += 1
        amount = quantity * shelf["price"]
        self.orders.append(
            {"order_id": order_id, "item": item, "quantity": quantity, "amount": amount, "status": "placed"}
        )
        return {"order_id": order_id, "amount": amount, **self._history}

    def pay_order(self, order_id: int) -> OrderStatus:
        """Pays a placed order.

        Args:
            order_id: The order.
        """
        return self._advance(order_id, "placed", "paid")

    def ship_order(self, order_id: int) -> OrderStatus:
        """Ships a paid order.

        Args:
            order_id: The order.
        """
        return self._advance(order_id, "paid", "shipped")

    def cancel_order(self, order_id: int) -> OrderStatus:
        """Cancels a placed order, and puts its pieces back in stock.

        Args:
            order_id: The order.
        """
        result = self._advance(order_id, "placed", "canceled")
        self._put_back(order_id)
        return result

    def return_order(self, order_id: int) -> Refund:
        """Takes a shipped order back, and tells the amount to refund.

        Args:
            order_id: The order.
        """
        self._advance(order_id, "shipped", "returned")
        self._put_back(order_id)
        return {"amount": find(self.orders, "order_id", order_id)["amount"], **self._history}

    def track_order(self, order_id: int) -> OrderStatus:
        """Tells the status of an order.

        Args:
            order_id: The order.
        """
        return {"status": find(self.orders, "order_id", order_id)["status"], **self._history}

    def cheapest_item(self) -> Item:
        """Tells the cheapest item in stock."""
        shelves = [shelf for shelf in self.stock if shelf["stock"] > 0]
        if not shelves:
            raise ValueError("stock is empty")
        return {"item": min(shelves, key=lambda shelf: shelf["price"])["item"], **self._history}

    def restock_item(self, item: str, quantity: int) -> Stock:
        """Adds pieces of an item to the stock.

        Args:
            item: What to add.
            quantity: How many pieces.
        """
        shelf = find(self.stock, "item", item)
        if quantity < 1:
            raise ValueError("quantity must be positive")
        shelf["stock"] += quantity
        return {"stock": shelf["stock"], **self._history}

    def _advance(self, order_id: int, before: str, after: str) -> OrderStatus:
        order = find(self.orders, "order_id", order_id)
        if order["status"] != before:
            raise ValueError(f"order {order_id} is {order['status']}")
        order["status"] = after
        return {"status": after, **self._history}

    def _put_back(self, order_id: int) -> None:
        order = find(self.orders, "order_id", order_id)
        find(self.stock, "item", order["item"])["stock"] += order["quantity"]
