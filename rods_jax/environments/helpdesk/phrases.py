"""What both sides say: few words, so that a small policy learns them."""

import random
import re
from collections.abc import Mapping

ASKS: Mapping[str, str] = {  # a tool of the user -> how the agent asks for it
    "check_router": "What does the router show?",
    "check_laptop": "What does the laptop show?",
    "run_test": "Please test the internet.",
    "read_bill": "What does the bill say?",
    "turn_router_on": "Please turn the router on.",
    "turn_router_off": "Please turn the router off.",
    "plug_cable": "Please plug the cable in.",
    "pull_cable": "Please pull the cable out.",
    "restart_router": "Please restart the router.",
    "turn_wifi_on": "Please turn the wifi on.",
    "change_channel": "Please change the channel.",
    "turn_airplane_off": "Please turn airplane mode off.",
    "turn_airplane_on": "Please turn airplane mode on.",
    "join_wifi": "Please join the home wifi.",
    "stop_vpn": "Please stop the vpn.",
    "reset_dns": "Please reset the dns.",
    "stop_downloads": "Please stop the downloads.",
    "pay_bill": "Please pay the bill.",
}
ASK_ACCOUNT = "What is your account?"
TECHNICIAN = "A technician will call you."

_HEARD: Mapping[str, re.Pattern[str]] = {  # how a user understands an agent; the first that fits
    tool: re.compile(pattern, re.IGNORECASE)
    for tool, pattern in (
        ("TECHNICIAN", r"technician"),
        ("ACCOUNT", r"(what|which|tell).*\b(account|number)"),
        ("check_router", r"(what|look|check|tell|show).*\brouter"),
        ("check_laptop", r"(what|look|check|tell|show).*\blaptop"),
        ("read_bill", r"(what|look|check|tell|show|read).*\bbill"),
        ("run_test", r"\btest|\btry|does (it|the internet) work"),
        ("restart_router", r"(restart|reboot).*\brouter"),
        ("turn_router_on", r"router (back )?on\b|turn on the router"),
        ("turn_router_off", r"router off\b|turn off the router"),
        ("plug_cable", r"plug.*\bcable|cable (back )?in\b"),
        ("pull_cable", r"(pull|take).*\bcable"),
        ("turn_airplane_off", r"airplane( mode)? off|turn off airplane"),
        ("turn_airplane_on", r"airplane( mode)? on\b|turn on airplane"),
        ("join_wifi", r"join.*\bwifi"),
        ("turn_wifi_on", r"wifi (back )?on\b|turn on.*\bwifi"),
        ("change_channel", r"chang.*\bchannel"),
        ("stop_vpn", r"(stop|end|turn off).*\bvpn|vpn off"),
        ("reset_dns", r"reset.*\bdns"),
        ("stop_downloads", r"(stop|end).*\bdownloads?"),
        ("pay_bill", r"pay.*\bbill"),
    )
}
_COMPLAINTS = {
    "no_internet": ("My internet is down.", "I have no internet.", "Nothing loads here."),
    "slow": ("My internet is slow.", "Everything loads slowly.", "The internet crawls."),
    "no_wifi": ("My laptop has no wifi.", "The wifi does not work.", "My laptop is offline."),
}


def understood(text: str) -> str:
    """What an agent asks for: a tool of the user, TECHNICIAN, ACCOUNT, or nothing."""
    return next((tool for tool, pattern in _HEARD.items() if pattern.search(text)), "")


def complaint(family: str, account: int, rng: random.Random) -> str:
    """A user's first words."""
    return f"{rng.choice(_COMPLAINTS[family])} My account is {account}."


def claims(text: str) -> dict[str, str]:
    """The readings in a tool's result or in a user's report of one, by field: "power on, cable in"."""
    return dict(re.findall(r"\b([a-z]+) (\w+)(?=[,.]|$)", text))
