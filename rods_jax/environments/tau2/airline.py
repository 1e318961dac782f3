"""The domain `airline`: reservations, flights and payments, on 15 May 2024."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from rods_jax.environments.tau2.airline_records import CERTIFICATE, FLIGHT_INFO, PASSENGER, PAYMENT, RESERVATION
from rods_jax.environments.tau2.calculator import calculate
from rods_jax.environments.tau2.shapes import Shape
from rods_jax.environments.tau2.toolkit import GENERIC, READ, WRITE, Toolkit, tool
from rods_jax.environments.tau2.values import Record, copied

NOW = "2024-05-15T15:00:00"
BAG_FEE, INSURANCE_FEE = 50, 30
RESERVATION_IDS = "HATHAT", "HATHAU", "HATHAV"  # of new ones
CERTIFICATE_IDS = "certificate_3221322", "certificate_3221323", "certificate_3221324"
AIRPORTS = {
    "SFO": "San Francisco",
    "JFK": "New York",
    "LAX": "Los Angeles",
    "ORD": "Chicago",
    "DFW": "Dallas",
    "DEN": "Denver",
    "SEA": "Seattle",
    "ATL": "Atlanta",
    "MIA": "Miami",
    "BOS": "Boston",
    "PHX": "Phoenix",
    "IAH": "Houston",
    "LAS": "Las Vegas",
    "MCO": "Orlando",
    "EWR": "Newark",
    "CLT": "Charlotte",
    "MSP": "Minneapolis",
    "DTW": "Detroit",
    "PHL": "Philadelphia",
    "LGA": "LaGuardia",
}


class FlightInfo:
    flight_number: str
    date: str


class Passenger:
    first_name: str
    last_name: str
    dob: str


class Payment:
    payment_id: str
    amount: int


Cabin = Literal["business", "economy", "basic_economy"]


# ----------------------------------------------------------------------------------------- the tools
class AirlineTools(Toolkit):
    @tool(WRITE)
    def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: Literal["round_trip", "one_way"],
        cabin: Cabin,
        flights: list[FlightInfo | dict],
        passengers: list[Passenger | dict],
        payment_methods: list[Payment | dict],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: Literal["yes", "no"],
    ) -> Record:
        """Books flights for passengers and pays for them."""
        wanted, people, payments = (
            _objects(flights, FLIGHT_INFO),
            _objects(passengers, PASSENGER),
            _objects(payment_methods, PAYMENT),
        )
        user = self._user(user_id)
        reservation_id = _first_free("reservations", RESERVATION_IDS, lambda name: self.db.has("reservations", name))
        reservation = RESERVATION(
            {
                "reservation_id": reservation_id,
                "user_id": user_id,
                "origin": origin,
                "destination": destination,
                "flight_type": flight_type,
                "cabin": cabin,
                "flights": [],
                "passengers": people,
                "payment_history": payments,
                "created_at": NOW,
                "total_baggages": total_baggages,
                "nonfree_baggages": nonfree_baggages,
                "insurance": insurance,
            }
        )
        # What it costs.
        legs = [self._leg(flight, cabin, len(people)) for flight in wanted]
        total = sum(leg["price"] for leg in legs) * len(people)
        total += INSURANCE_FEE * len(people) if insurance == "yes" else 0
        total += BAG_FEE * nonfree_baggages
        # Whether it is paid.
        for payment in payments:
            name, amount = payment["payment_id"], payment["amount"]
            if name not in user["payment_methods"]:
                raise ValueError(f"Payment method {name} not found")
            method = user["payment_methods"][name]
            if method["source"] != "credit_card" and method["amount"] < amount:
                raise ValueError(f"Not enough balance in payment method {name}")
        paid = sum(payment["amount"] for payment in payments)
        if paid != total:
            raise ValueError(f"Payment amount does not add up, total price is {total}, but paid {paid}")
        # It is: money, seats, reservation.
        user = self.db.write("users", user_id)
        for payment in payments:
            method = user["payment_methods"][payment["payment_id"]]
            if method["source"] == "gift_card":
                method["amount"] -= payment["amount"]
            elif method["source"] == "certificate":
                del user["payment_methods"][payment["payment_id"]]
        for leg in legs:
            flight = self.db.write("flights", leg["flight_number"])
            flight["dates"][leg["date"]]["available_seats"][cabin] -= len(people)
        reservation["flights"] = legs
        self.db.put("reservations", reservation_id, reservation)
        user["reservations"].append(reservation_id)
        return reservation

    @tool(GENERIC)
    def calculate(self, expression: str) -> str:
        """The value of an arithmetic expression."""
        return calculate(expression)

    @tool(WRITE)
    def cancel_reservation(self, reservation_id: str) -> Record:
        """Cancels a whole reservation and records what is paid back."""
        self._reservation(reservation_id)
        reservation = self.db.write("reservations", reservation_id)
        history = reservation["payment_history"]
        history += [Record(payment, amount=-payment["amount"]) for payment in history]
        reservation["status"] = "cancelled"
        return reservation

    @tool(READ)
    def get_reservation_details(self, reservation_id: str) -> Record:
        """A reservation."""
        return self._reservation(reservation_id)

    @tool(READ)
    def get_user_details(self, user_id: str) -> Record:
        """A user, with the ids of the reservations."""
        return self._user(user_id)

    @tool(READ)
    def list_all_airports(self) -> list[Record]:
        """All airports and their cities."""
        return [Record(iata=iata, city=city) for iata, city in AIRPORTS.items()]

    @tool(READ)
    def search_direct_flight(self, origin: str, destination: str, date: str) -> list[Record]:
        """Flights from one airport to another on a day."""
        return [_offer(flight, date, None) for flight in self._flights(origin, destination, date)]

    @tool(READ)
    def search_onestop_flight(self, origin: str, destination: str, date: str) -> list[list[Record]]:
        """Pairs of flights with one stop between two airports on a day."""
        found = []
        for first in self._flights(origin, None, date):
            arrival = first["scheduled_arrival_time_est"]
            day = f"2024-05-{int(date[-2:]) + 1}" if "+1" in arrival else date
            for second in self._flights(first["destination"], destination, day):
                if second["scheduled_departure_time_est"] >= arrival:
                    found.append([_offer(first, date, date), _offer(second, day, day)])
        return found

    @tool(WRITE)
    def send_certificate(self, user_id: str, amount: int) -> str:
        """Gives a user a certificate. Be careful!"""
        user = self._user(user_id)
        name = _first_free("certificates", CERTIFICATE_IDS, user["payment_methods"].__contains__)
        certificate = CERTIFICATE({"source": "certificate", "id": name, "amount": amount})
        self.db.write("users", user_id)["payment_methods"][name] = certificate
        return f"Certificate {name} added to user {user_id} with amount {amount}."

    @tool(GENERIC)
    def transfer_to_human_agents(self, summary: str) -> str:
        """Hands the user over to a person."""
        return "Transfer successful"

    @tool(WRITE)
    def update_reservation_baggages(
        self, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
    ) -> Record:
        """Changes how many bags a reservation has."""
        held = self._reservation(reservation_id)
        difference = BAG_FEE * max(0, nonfree_baggages - held["nonfree_baggages"])
        payment = self._pay(held["user_id"], payment_id, difference)
        reservation = self.db.write("reservations", reservation_id)
        reservation["payment_history"] += payment
        reservation["total_baggages"] = total_baggages
        reservation["nonfree_baggages"] = nonfree_baggages
        return reservation

    @tool(WRITE)
    def update_reservation_flights(
        self, reservation_id: str, cabin: Cabin, flights: list[FlightInfo | dict], payment_id: str
    ) -> Record:
        """Replaces the flights or the cabin of a reservation."""
        wanted = _objects(flights, FLIGHT_INFO)
        held = self._reservation(reservation_id)
        kept = {(leg["flight_number"], leg["date"]): leg for leg in reversed(held["flights"]) if cabin == held["cabin"]}
        people = len(held["passengers"])
        legs = []
        for flight in wanted:
            place = _field(flight, "flight_number"), flight["date"]
            legs.append(copied(kept[place]) if place in kept else self._leg(flight, cabin, people))
        difference = (sum(leg["price"] for leg in legs) - sum(leg["price"] for leg in held["flights"])) * people
        payment = self._pay(held["user_id"], payment_id, difference)
        reservation = self.db.write("reservations", reservation_id)
        reservation["payment_history"] += payment
        reservation["flights"] = legs
        reservation["cabin"] = cabin
        return reservation

    @tool(WRITE)
    def update_reservation_passengers(self, reservation_id: str, passengers: list[Passenger | dict]) -> Record:
        """Replaces the passengers of a reservation by as many others."""
        people = _objects(passengers, PASSENGER)
        if len(people) != len(self._reservation(reservation_id)["passengers"]):
            raise ValueError("Number of passengers does not match")
        reservation = self.db.write("reservations", reservation_id)
        reservation["passengers"] = people
        return reservation

    @tool(READ)
    def get_flight_status(self, flight_number: str, date: str) -> str:
        """How a flight stands on a day."""
        return self._on(flight_number, date)["status"]

    # ------------------------------------------------------------------------------------- look-ups
    def _user(self, user_id: str) -> Record:
        return self.db.find("users", user_id, "User")

    def _reservation(self, reservation_id: str) -> Record:
        return self.db.find("reservations", reservation_id, "Reservation")

    def _flight(self, flight_number: str) -> Record:
        return self.db.find("flights", flight_number, "Flight")

    def _on(self, flight_number: str, date: str) -> Record:
        """A flight's record of a day."""
        dates = self._flight(flight_number)["dates"]
        if date not in dates:
            raise ValueError(f"Flight {flight_number} not found on date {date}")
        return dates[date]

    def _flights(self, origin: str | None, destination: str | None, date: str) -> Iterator[Record]:
        """Flights between two airports on a day that have seats to sell; None: any airport."""
        for _, flight in self.db.records("flights"):
            if (
                origin in (None, flight["origin"])
                and destination in (None, flight["destination"])
                and date in flight["dates"]
                and flight["dates"][date]["status"] == "available"
            ):
                yield flight

    def _leg(self, wanted: Any, cabin: str, people: int) -> Record:
        """A leg at today's price. ValueError: the flight cannot be sold."""
        name = _field(wanted, "flight_number")
        flight, day = self._flight(name), self._on(name, wanted["date"])
        if day["status"] != "available":
            raise ValueError(f"Flight {name} not available on date {wanted['date']}")
        if day["available_seats"][cabin] < people:
            raise ValueError(f"Not enough seats on flight {name}")
        return Record(
            flight_number=name,
            origin=flight["origin"],
            destination=flight["destination"],
            date=wanted["date"],
            price=day["prices"][cabin],
        )

    def _pay(self, user_id: str, payment_id: str, difference: int) -> list[Record]:
        """Takes the difference, or pays it back; the entries for the history."""
        methods = self._user(user_id)["payment_methods"]
        if payment_id not in methods:
            raise ValueError("Payment method not found")
        if methods[payment_id]["source"] == "certificate":
            raise ValueError("Certificate cannot be used to update reservation")
        if methods[payment_id]["source"] == "gift_card":
            if methods[payment_id]["amount"] < difference:
                raise ValueError("Gift card balance is not enough")
            self.db.write("users", user_id)["payment_methods"][payment_id]["amount"] -= difference
        return [Record(payment_id=payment_id, amount=difference)] if difference else []


def _first_free(what: str, names: Sequence[str], taken: Callable[[str], bool]) -> str:
    for name in names:
        if not taken(name):
            return name
    raise ValueError(f"Too many {what}")


def _objects(values: Any, shape: Shape) -> Any:
    """Records of a list, if all of it are objects; else as it was given, and the first look into one fails."""
    return [shape(value) for value in values] if all(isinstance(value, dict) for value in values) else values


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, Record):
        raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")
    return value[name]


def _offer(flight: Record, day: str, date: str | None) -> Record:
    """A flight with seats to sell, as a search shows it."""
    held = flight["dates"][day]
    return Record(
        flight_number=flight["flight_number"],
        origin=flight["origin"],
        destination=flight["destination"],
        status="available",
        scheduled_departure_time_est=flight["scheduled_departure_time_est"],
        scheduled_arrival_time_est=flight["scheduled_arrival_time_est"],
        date=date,
        available_seats=held["available_seats"],
        prices=held["prices"],
    )
