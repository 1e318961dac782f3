"""Airline and retail in worlds of our own, every amount computed by hand."""

import json

import pytest

from rods_jax.environments.tau2 import airline_records, retail
from rods_jax.environments.tau2.airline import AirlineTools
from rods_jax.environments.tau2.database import Base, Database
from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.messages import AGENT
from rods_jax.environments.tau2.retail import RetailTools

PERSON = {"first_name": "Ada", "last_name": "Bell", "dob": "1990-01-01"}
PLACE = {"address1": "1 Elm", "address2": "", "city": "Bonn", "country": "DE", "state": "NW", "zip": "53111"}
SEATS = {"business": 1, "economy": 3, "basic_economy": 0}
PRICES = {"business": 500, "economy": 100, "basic_economy": 40}


def flight(number, origin, destination, leaves, lands):
    free = {"status": "available", "available_seats": SEATS, "prices": PRICES}
    dates = {"2024-05-20": free, "2024-05-21": free, "2024-05-22": {"status": "cancelled"}}
    return {
        "flight_number": number,
        "origin": origin,
        "destination": destination,
        "scheduled_departure_time_est": leaves,
        "scheduled_arrival_time_est": lands,
        "dates": dates,
    }


AIRLINE = {
    "flights": {
        "F1": flight("F1", "SFO", "DEN", "08:00:00", "10:00:00"),
        "F2": flight("F2", "DEN", "JFK", "11:00:00", "15:00:00"),
        "F3": flight("F3", "SFO", "DEN", "23:00:00", "01:00:00+1"),
        "F4": flight("F4", "DEN", "JFK", "09:00:00", "13:00:00"),
    },
    "users": {
        "ada": {
            "user_id": "ada",
            "name": {"first_name": "Ada", "last_name": "Bell"},
            "address": PLACE,
            "email": "a@b.c",
            "dob": "1990-01-01",
            "payment_methods": {
                "gift": {"source": "gift_card", "id": "gift", "amount": 300},
                "cert": {"source": "certificate", "id": "cert", "amount": 50},
                "card": {"source": "credit_card", "id": "card", "brand": "visa", "last_four": "1234"},
            },
            "saved_passengers": [],
            "membership": "gold",
            "reservations": [],
        }
    },
    "reservations": {},
}
BOOKING = {
    "user_id": "ada",
    "origin": "SFO",
    "destination": "JFK",
    "flight_type": "one_way",
    "cabin": "economy",
    "flights": [{"flight_number": "F1", "date": "2024-05-20"}, {"flight_number": "F2", "date": "2024-05-20"}],
    "passengers": [PERSON, PERSON],
    "payment_methods": [
        {"payment_id": "gift", "amount": 200},
        {"payment_id": "cert", "amount": 50},
        {"payment_id": "card", "amount": 260},
    ],  # 2 x (100 + 100) for seats, 2 x 30 for insurance, 50 for a bag: 510
    "total_baggages": 2,
    "nonfree_baggages": 1,
    "insurance": "yes",
}


@pytest.fixture
def air():
    return Environment(AirlineTools(Database(Base("FlightDB", airline_records.DB, AIRLINE))))


def told(environment, name, **arguments):
    return environment.call(AGENT, name, arguments).text


def made(environment, name, **arguments):
    seen = environment.call(AGENT, name, arguments)
    assert seen.ok, seen.text
    return json.loads(seen.text)


def user(environment, who="ada"):
    return environment.agent.db.read("users", who)


# ----------------------------------------------------------------------------------------- airline
def test_a_booking_takes_money_and_seats(air):
    booked = made(air, "book_reservation", **BOOKING)
    assert (booked["reservation_id"], booked["created_at"], booked["status"]) == ("HATHAT", "2024-05-15T15:00:00", None)
    assert [leg["price"] for leg in booked["flights"]] == [100, 100]
    methods = user(air)["payment_methods"]
    assert methods["gift"]["amount"] == 100.0 and set(methods) == {"gift", "card"}
    assert air.agent.db.read("flights", "F2")["dates"]["2024-05-20"]["available_seats"]["economy"] == 1
    assert air.agent.db.read("flights", "F2")["dates"]["2024-05-21"]["available_seats"]["economy"] == 3
    assert user(air)["reservations"] == ["HATHAT"]
    assert told(air, "book_reservation", **BOOKING) == "Error: Not enough seats on flight F1"


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"user_id": "bob"}, "User bob not found"),
        ({"flights": [{"flight_number": "F9", "date": "2024-05-20"}]}, "Flight F9 not found"),
        ({"flights": [{"flight_number": "F1", "date": "2024-06-20"}]}, "Flight F1 not found on date 2024-06-20"),
        ({"flights": [{"flight_number": "F1", "date": "2024-05-22"}]}, "Flight F1 not available on date 2024-05-22"),
        ({"cabin": "business"}, "Not enough seats on flight F1"),
        ({"insurance": "no"}, "Payment amount does not add up, total price is 450, but paid 510"),
        ({"payment_methods": [{"payment_id": "x", "amount": 510}]}, "Payment method x not found"),
        ({"payment_methods": [{"payment_id": "gift", "amount": 510}]}, "Not enough balance in payment method gift"),
        ({"flights": [3]}, "'int' object has no attribute 'flight_number'"),
    ],
)
def test_a_booking_that_cannot_be_made_changes_nothing(air, change, complaint):
    assert told(air, "book_reservation", **{**BOOKING, **change}) == f"Error: {complaint}"
    assert not air.agent.db.changes()


def test_changes_of_a_reservation_are_paid_or_paid_back(air):
    made(air, "book_reservation", **BOOKING)
    bags = {"total_baggages": 4, "nonfree_baggages": 3, "payment_id": "gift"}
    changed = made(air, "update_reservation_baggages", reservation_id="HATHAT", **bags)
    assert (
        changed["payment_history"][-1] == {"payment_id": "gift", "amount": 100}
        and user(air)["payment_methods"]["gift"]["amount"] == 0.0
    )
    bags["nonfree_baggages"] = 4
    assert (
        told(air, "update_reservation_baggages", reservation_id="HATHAT", **bags)
        == "Error: Gift card balance is not enough"
    )
    # One leg less for two people: 200 back. The leg that stays keeps its price and needs no seat.
    flights = {"cabin": "economy", "flights": BOOKING["flights"][:1], "payment_id": "gift"}
    changed = made(air, "update_reservation_flights", reservation_id="HATHAT", **flights)
    assert changed["payment_history"][-1] == {"payment_id": "gift", "amount": -200} and len(changed["flights"]) == 1
    assert user(air)["payment_methods"]["gift"]["amount"] == 200.0
    flights["payment_id"] = "cert"
    assert (
        told(air, "update_reservation_flights", reservation_id="HATHAT", **flights) == "Error: Payment method not found"
    )
    one = {"reservation_id": "HATHAT", "passengers": [PERSON]}
    assert told(air, "update_reservation_passengers", **one) == "Error: Number of passengers does not match"


def test_cancelling_twice_negates_all_entries_twice(air):
    made(air, "book_reservation", **BOOKING)
    for length in (6, 12):
        cancelled = made(air, "cancel_reservation", reservation_id="HATHAT")
        assert cancelled["status"] == "cancelled" and len(cancelled["payment_history"]) == length
        assert sum(entry["amount"] for entry in cancelled["payment_history"]) == 0


def test_searches(air):
    days = {"date": "2024-05-20"}
    found = made(air, "search_direct_flight", origin="SFO", destination="DEN", **days)
    assert [(one["flight_number"], one["date"]) for one in found] == [("F1", None), ("F3", None)]
    pairs = made(air, "search_onestop_flight", origin="SFO", destination="JFK", **days)
    legs = [[(leg["flight_number"], leg["date"]) for leg in pair] for pair in pairs]
    # F4 leaves before F1 lands. F3 lands a day later, at "01:00:00+1": texts are compared, and both F2 and F4 are later.
    assert legs == [
        [("F1", "2024-05-20"), ("F2", "2024-05-20")],
        [("F3", "2024-05-20"), ("F2", "2024-05-21")],
        [("F3", "2024-05-20"), ("F4", "2024-05-21")],
    ]
    anywhere = made(air, "search_direct_flight", origin=None, destination="DEN", **days)
    assert [one["flight_number"] for one in anywhere][:2] == ["F1", "F3"]
    assert len(made(air, "search_onestop_flight", origin="SFO", destination=None, **days)) >= len(legs)
    assert told(air, "get_flight_status", flight_number="F1", date="2024-05-22") == "cancelled"
    assert len(made(air, "list_all_airports")) == 20


def test_certificates_run_out(air):
    for last in (2, 3, 4):
        text = told(air, "send_certificate", user_id="ada", amount=100)
        assert text == f"Certificate certificate_322132{last} added to user ada with amount 100."
    assert user(air)["payment_methods"]["certificate_3221322"]["amount"] == 100.0
    assert told(air, "send_certificate", user_id="ada", amount=100) == "Error: Too many certificates"


# ------------------------------------------------------------------------------------------ retail
def order(number, status, *items, method="gift"):
    lines = [
        {"name": "Lamp", "product_id": "p", "item_id": one, "price": 20.0, "options": {"colour": one}} for one in items
    ]
    history = [{"transaction_type": "payment", "amount": 20.1 * len(items), "payment_method_id": method}]
    made = {"order_id": number, "user_id": "ada", "address": PLACE, "items": lines, "status": status}
    return made | {"fulfillments": [], "payment_history": history}


def variant(name, price, available=True):
    return {"item_id": name, "options": {"colour": name}, "available": available, "price": price}


RETAIL = {
    "products": {
        "p": {"name": "Lamp", "product_id": "p", "variants": {"red": variant("red", 20), "blue": variant("blue", 25.5), "old": variant("old", 1, False), "green": variant("green", 18)}},
        "q": {"name": "Bulb", "product_id": "q", "variants": {}},
    },
    "users": {
        "ada": {
            "user_id": "ada",
            "name": {"first_name": "Ada", "last_name": "Bell"},
            "address": PLACE,
            "email": "Ada@b.c",
            "payment_methods": {"gift": {"source": "gift_card", "id": "gift", "balance": 6}, "pal": {"source": "paypal", "id": "pal"}},
            "orders": ["#1", "#2"],
        }
    },
    "orders": {"#1": order("#1", "pending", "red", "red"), "#2": order("#2", "delivered", "red", "blue", method="pal")},
}  # fmt: skip


@pytest.fixture
def shop():
    return Environment(RetailTools(Database(Base("RetailDB", retail.DB, RETAIL))))


def balance(shop):
    return user(shop)["payment_methods"]["gift"]["balance"]


def test_looking_up(shop):
    assert told(shop, "find_user_id_by_email", email="ADA@B.C") == told(
        shop, "find_user_id_by_name_zip", first_name="ada", last_name="BELL", zip="53111"
    )
    assert told(shop, "list_all_product_types") == '{"Bulb": "q", "Lamp": "p"}'
    assert made(shop, "get_item_details", item_id="old")["available"] is False
    for name, argument, what in (
        ("get_order_details", "order_id", "Order"),
        ("get_user_details", "user_id", "User"),
        ("get_product_details", "product_id", "Product"),
        ("get_item_details", "item_id", "Item"),
    ):
        assert told(shop, name, **{argument: "zz"}) == f"Error: {what} not found"


def test_a_cancelled_order_is_paid_back_at_once(shop):
    cancelled = made(shop, "cancel_pending_order", order_id="#1", reason="no longer needed")
    assert cancelled["payment_history"][1] == {
        "transaction_type": "refund",
        "amount": 40.2,
        "payment_method_id": "gift",
    }
    assert balance(shop) == 46.2
    again = told(shop, "cancel_pending_order", order_id="#1", reason="no longer needed")
    assert again == "Error: Non-pending order cannot be cancelled"


def test_changed_items_all_get_the_last_variant(shop):
    """As officially: green is cheaper by 2, blue dearer by 5.5, and both lines end as blue at 25.5."""
    changed = made(
        shop, "modify_pending_order_items", order_id="#1", item_ids=["red", "red"], new_item_ids=["green", "blue"], payment_method_id="gift"
    )  # fmt: skip
    assert [(one["item_id"], one["price"], one["options"]) for one in changed["items"]] == [
        ("green", 25.5, {"colour": "blue"}),
        ("blue", 25.5, {"colour": "blue"}),
    ]
    assert changed["payment_history"][1] == {"transaction_type": "payment", "amount": 3.5, "payment_method_id": "gift"}
    assert balance(shop) == 2.5 and changed["status"] == "pending (item modified)"
    assert shop.agent.db.read("products", "p")["variants"]["blue"]["options"] == {"colour": "blue"}


def test_changed_items_get_their_own_variant_where_tools_are_mended(shop):
    shop.agent.mended = True
    changed = made(
        shop, "modify_pending_order_items", order_id="#1", item_ids=["red", "red"], new_item_ids=["green", "blue"], payment_method_id="gift"
    )  # fmt: skip
    assert [(one["item_id"], one["price"], one["options"]["colour"]) for one in changed["items"]] == [
        ("green", 18.0, "green"),
        ("blue", 25.5, "blue"),
    ]
    assert balance(shop) == 2.5  # 20 + 20 became 18 + 25.5, as before


@pytest.mark.parametrize(
    "items, new, method, complaint",
    [
        (["red"] * 3, ["blue"] * 3, "pal", "red not found"),
        (["red"], ["blue", "blue"], "pal", "The number of items to be exchanged should match"),
        (["red"], ["red"], "pal", "The new item id should be different from the old item id"),
        (["red"], ["old"], "pal", "New item old not found or available"),
        (["red"], ["zz"], "pal", "Variant not found"),
        (["red"], ["blue"], "zz", "Payment method not found"),
        (["red"] * 2, ["blue"] * 2, "gift", "Insufficient gift card balance to pay for the new item"),
    ],
)
def test_items_that_cannot_be_changed(shop, items, new, method, complaint):
    arguments = {"order_id": "#1", "item_ids": items, "new_item_ids": new, "payment_method_id": method}
    assert told(shop, "modify_pending_order_items", **arguments) == f"Error: {complaint}"
    assert not shop.agent.db.changes()


def test_exchanges_and_returns_move_no_money(shop):
    arguments = {"item_ids": ["red", "blue"], "new_item_ids": ["green", "red"], "payment_method_id": "pal"}
    asked = made(shop.fork(), "exchange_delivered_order_items", order_id="#2", **arguments)
    assert (asked["exchange_items"], asked["exchange_new_items"]) == (["blue", "red"], ["green", "red"])
    assert asked["exchange_price_difference"] == -2.0 and asked["status"] == "exchange requested"
    nothing = arguments | {"item_ids": [], "new_item_ids": []}
    none = told(shop.fork(), "exchange_delivered_order_items", order_id="#2", **nothing)
    assert '"exchange_price_difference": 0,' in none or '"exchange_price_difference": 0}' in none
    back = {"order_id": "#2", "item_ids": ["red", "blue"]}
    assert made(shop.fork(), "return_delivered_order_items", **back, payment_method_id="gift")["return_items"] == [
        "blue",
        "red",
    ]
    assert (
        told(shop, "return_delivered_order_items", order_id="#2", item_ids=["zz"], payment_method_id="pal")
        == "Error: Some item not found"
    )
    assert not shop.agent.db.changes()


def test_another_payment_and_another_address(shop):
    changed = made(shop, "modify_pending_order_payment", order_id="#1", payment_method_id="pal")
    assert [entry["transaction_type"] for entry in changed["payment_history"]] == ["payment", "payment", "refund"]
    assert balance(shop) == 46.2
    again = told(shop, "modify_pending_order_payment", order_id="#1", payment_method_id="gift")
    assert again == "Error: There should be exactly one payment for a pending order"
    place = {**PLACE, "city": "Ulm"}
    assert made(shop, "modify_pending_order_address", order_id="#1", **place)["address"] == place
    assert made(shop, "modify_user_address", user_id="ada", **place)["address"]["city"] == "Ulm"
    assert user(shop)["name"] == {"first_name": "Ada", "last_name": "Bell"}
