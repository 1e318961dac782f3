"""What BFCL's tools do not say of their failures, in our words: for `hints.explained`.

A row is a failure of bfcl-eval 2026.3.23: a pattern of its text, what a caller should know, and the tools that it
names.  The methods are those that EnvTuning explains (files, travel, vehicle), and the classes that it leaves as
they are: trading, posts, tickets, messages.  Source: Environment Tuning, arXiv 2510.10197.

No hint holds a value that would solve a task.
"""

from collections.abc import Mapping, Sequence

from rods_jax.environments.hints import Told

_BARE = "takes the bare name of something in the current directory; change to its directory with cd first"
_CHARACTERS = "a name must not hold any of these characters: | / \\ ? % * : \" > < '"


def _file(tool: str, *names: str) -> tuple[Told, ...]:
    """A method that looks up names in the current directory."""
    shown = " and ".join(f"{{{name}}}" for name in names)
    return (Told(r"No such file|Not a file|Not a directory", f"{tool} {_BARE}. It looked for {shown}.", ("cd",)),)


TOLD: Mapping[str, Sequence[Told]] = {
    "cd": (
        Told("Unsupported path", "cd goes down one directory at a time: call it once for each part of {folder}."),
        Told("No such", "{folder} is no directory of the current one; ls shows what is there.", ("ls",)),
    ),
    "mkdir": (
        Told("Invalid character", f"mkdir takes a bare name: {_CHARACTERS}."),
        Told("File exists", "{dir_name} is there already; nothing needs to be made."),
    ),
    "touch": (
        Told("Invalid character", f"touch takes a bare name: {_CHARACTERS}."),
        Told("File exists", "{file_name} is there already; echo writes into it.", ("echo",)),
    ),
    "echo": (
        Told("Invalid character", f"echo takes a bare file name: {_CHARACTERS}."),
        Told(
            "No such file",
            "{file_name} is a directory, or lies elsewhere; echo writes to files of this directory.",
        ),
    ),
    "cat": (
        Told("Invalid character", f"cat takes a bare file name: {_CHARACTERS}."),
        Told("Is a directory", "{file_name} is a directory and cannot be shown; ls lists it.", ("ls",)),
        *_file("cat", "file_name"),
    ),
    "find": (Told("No such", "find searches below a directory of the current one; {path} is none.", ()),),
    "wc": (
        Told("invalid mode", "wc counts lines, words or characters: mode is l, w or c."),
        *_file("wc", "file_name"),
    ),
    "sort": _file("sort", "file_name"),
    "grep": _file("grep", "file_name"),
    "tail": _file("tail", "file_name"),
    "rm": _file("rm", "file_name"),
    "diff": (
        Told("No such file", f"diff {_BARE}. One of {{file_name1}} and {{file_name2}} is no file here.", ("cd",)),
    ),
    "mv": (
        Told(
            "path not allowed",
            "mv renames, or moves into a directory of the current one: destination is a bare name.",
        ),
        Told("File exists", "{destination} holds a {source} already."),
        *_file("mv", "source"),
    ),
    "cp": (
        Told(
            "path not allowed",
            "cp copies to a name, or into a directory, of the current one: destination is a bare name.",
        ),
        Told("File exists", "{destination} holds a {source} already."),
        *_file("cp", "source"),
    ),
    "rmdir": (
        Told("not empty", "rmdir removes empty directories alone; rm removes {dir_name} with all it holds.", ("rm",)),
        *_file("rmdir", "dir_name"),
    ),
    "get_flight_cost": (
        Told(
            "No available route",
            "There is no flight from {travel_from} to {travel_to}. Both must be airport codes of three letters: "
            "list_all_airports lists them, get_nearest_airport_by_city finds a city's. If both are, no spelling helps.",
            ("list_all_airports", "get_nearest_airport_by_city"),
        ),
        Told(
            "No available route",
            "There is no flight from {travel_from} to {travel_to}; both must be airport codes.",
        ),
        Told("travel class", "travel_class is economy, business or first."),
    ),
    "compute_exchange_rate": (
        Told(
            "No available exchange rate",
            "There is no rate from {base_currency} to {target_currency}: one of the two must be USD. Currencies are "
            "USD, RMB, EUR, JPY, GBP, CAD, AUD, INR, RUB, BRL and MXN.",
        ),
    ),
    "book_flight": (
        Told(
            "Card not registered",
            "A card is registered before it pays: register_credit_card.",
            ("register_credit_card",),
        ),
        Told(
            "departure airport|destination airport",
            "Airports are codes: list_all_airports.",
            ("list_all_airports",),
        ),
        Told("date format", "travel_date is written year-month-day, as in 2024-11-15."),
        Told("Insufficient funds|budget", "The flight costs more than the card's balance or the budget limit."),
    ),
    "get_outside_temperature_from_weather_com": (
        Told(
            "404",
            "This source is out of service for good; get_outside_temperature_from_google answers.",
            ("get_outside_temperature_from_google",),
        ),
    ),
    "estimate_distance": (
        Told(
            "distance not found",
            "No distance is known between {cityA} and {cityB}. Both must be zip codes: get_zipcode_based_on_city.",
            ("get_zipcode_based_on_city",),
        ),
    ),
    "startEngine": (
        Told("doors must be locked", "lockDoors locks the doors that are open.", ("lockDoors",)),
        Told("[Bb]rake", "pressBrakePedal presses the brake fully: position 1.", ("pressBrakePedal",)),
        Told("Fuel tank is empty", "fillFuelTank comes first.", ("fillFuelTank",)),
        Told("ignition mode", "ignitionMode is START or STOP."),
    ),
    "setCruiseControl": (
        Told("Start the engine", "startEngine comes first.", ("startEngine",)),
        Told("Invalid speed", "speed is a multiple of 5 from 0 to 120."),
    ),
    "fillFuelTank": (Told("above the tank capacity", "The tank holds 50 gallons, what is in it counted."),),
    "get_stock_info": (
        Told(
            "not found",
            "{symbol} is no symbol; get_symbol_by_name finds a company's.",
            ("get_symbol_by_name",),
        ),
    ),
    "place_order": (
        Told(
            "Invalid stock symbol",
            "{symbol} is no symbol; get_symbol_by_name finds a company's.",
            ("get_symbol_by_name",),
        ),
        Told("[Ii]nsufficient", "The order costs more than the balance; fund_account adds to it.", ("fund_account",)),
    ),
    "cancel_order": (
        Told(
            "already completed",
            "A completed order cannot be cancelled; get_order_details shows it.",
            ("get_order_details",),
        ),
        Told("not found", "get_order_history lists the orders' numbers.", ("get_order_history",)),
    ),
    "create_ticket": (Told("Invalid priority", "priority is a whole number from 1 to 5."),),
    "edit_ticket": (Told("Invalid fields", "updates may hold title, description, status and priority."),),
    "close_ticket": (Told("already closed", "The ticket is closed; nothing is left to do."),),
    "resolve_ticket": (Told("already resolved", "The ticket is resolved; nothing is left to do."),),
    "send_message": (
        Told(
            "Receiver ID",
            "{receiver_id} is no user id; get_user_id finds the id of a name.",
            ("get_user_id",),
        ),
    ),
}
