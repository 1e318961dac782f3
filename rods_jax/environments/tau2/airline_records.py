"""What the records of the domain `airline` look like."""

from rods_jax.environments.tau2.shapes import (
    Shape,
    choice,
    integer,
    items,
    maybe,
    number,
    record,
    table,
    tagged,
    text,
)

CABIN = choice("business", "economy", "basic_economy")
_BY_CABIN = table(integer, key=CABIN)


def _day(*times: str) -> Shape:
    """A day on which a flight cannot be sold."""
    return record("Day", dict.fromkeys(("status", *times), text))


_DAYS = {
    "available": record("Available", {"status": text, "available_seats": _BY_CABIN, "prices": _BY_CABIN}),
    "cancelled": record("Cancelled", {"status": text}),
    "landed": _day("actual_departure_time_est", "actual_arrival_time_est"),
    "flying": _day("actual_departure_time_est", "estimated_arrival_time_est"),
    "delayed": _day("estimated_departure_time_est", "estimated_arrival_time_est"),
    "on time": _day("estimated_departure_time_est", "estimated_arrival_time_est"),
}
FLIGHT = record(
    "Flight",
    {
        "flight_number": text,
        "origin": text,
        "destination": text,
        "scheduled_departure_time_est": text,
        "scheduled_arrival_time_est": text,
        "dates": table(tagged("status", _DAYS)),
    },
)
PASSENGER = record("Passenger", {"first_name": text, "last_name": text, "dob": text})
PAYMENT = record("Payment", {"payment_id": text, "amount": integer})
FLIGHT_INFO = record("FlightInfo", {"flight_number": text, "date": text})
CERTIFICATE = record("Certificate", {"source": text, "id": text, "amount": number})
METHOD = tagged(
    "source",
    {
        "credit_card": record("CreditCard", {"source": text, "id": text, "brand": text, "last_four": text}),
        "gift_card": record("GiftCard", {"source": text, "id": text, "amount": number}),
        "certificate": CERTIFICATE,
    },
)
ADDRESS = record(
    "Address",
    {"address1": text, "address2": (maybe(text), None), "city": text, "country": text, "state": text, "zip": text},
)
USER = record(
    "User",
    {
        "user_id": text,
        "name": record("Name", {"first_name": text, "last_name": text}),
        "address": ADDRESS,
        "email": text,
        "dob": text,
        "payment_methods": table(METHOD),
        "saved_passengers": items(PASSENGER),
        "membership": choice("gold", "silver", "regular"),
        "reservations": items(text),
    },
)
LEG = {"flight_number": text, "origin": text, "destination": text, "date": text, "price": integer}
RESERVATION = record(
    "Reservation",
    {
        "reservation_id": text,
        "user_id": text,
        "origin": text,
        "destination": text,
        "flight_type": choice("round_trip", "one_way"),
        "cabin": CABIN,
        "flights": items(record("ReservationFlight", LEG)),
        "passengers": items(PASSENGER),
        "payment_history": items(PAYMENT),
        "created_at": text,
        "total_baggages": integer,
        "nonfree_baggages": integer,
        "insurance": choice("yes", "no"),
        "status": (maybe(choice("cancelled")), None),
    },
)
DB = record(
    "FlightDB", {"flights": table(FLIGHT), "users": table(USER), "reservations": table(RESERVATION)}, closed=True
)
