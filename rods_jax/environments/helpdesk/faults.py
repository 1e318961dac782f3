"""The fault algebra: what can be wrong, what mends it, and which faults go together.

    family       choice sets; a composition picks one fault or none of each
    gold         agent's and user's mending calls in the order of the table, then one restart where a fault needs one;
                 where a fault cannot be mended: the look that shows it, and a hand-over with its reason
    a task       a composition, a customer and a home, broken by the patches of its faults
"""

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.conversation import AGENT, USER
from rods_jax.types import Call, Json

Act = tuple[str, Call]  # who calls, and what


class Fault(NamedTuple):
    """One thing that is wrong."""

    account: Mapping[str, Json]  # fields of the customer's record that it changes
    home: Mapping[str, Json]  # of the home
    mends: tuple[tuple[str, str], ...]  # (who, tool)
    shown_by: str  # the tool that shows it
    restart: bool = False  # and the router must load what was mended
    reason: str = ""  # why it must be handed over: nobody here can mend it


def _desk(tool: str, shown_by: str, restart: bool = False, **account: Json) -> Fault:
    return Fault(account, {}, ((AGENT, tool),), shown_by, restart)


def _home(tool: str, shown_by: str, **home: Json) -> Fault:
    return Fault({}, home, ((USER, tool),), shown_by)


FAULTS: Mapping[str, Fault] = {
    "suspended": Fault(
        {"status": "suspended", "owes": 30},
        {},
        ((AGENT, "send_bill"), (USER, "pay_bill"), (AGENT, "lift_suspension")),
        "get_account",
        restart=True,
    ),
    "ended": Fault({"status": "ended"}, {}, (), "get_account", reason="contract"),
    "outage": Fault({"area": "outage"}, {}, (), "get_account", reason="outage"),
    "unknown_router": _desk("add_router", "get_account", restart=True, router="unknown"),
    "old_firmware": _desk("push_firmware", "get_account", restart=True, firmware="old"),
    "locked_port": _desk("reset_port", "test_line", port="locked"),
    "broken_port": Fault({"port": "broken"}, {}, (), "test_line", reason="line"),
    "low_speed": _desk("set_speed", "test_line", speed="low"),
    "capped": _desk("lift_cap", "test_line", cap="on"),
    "lost_password": Fault(
        {"password": "lost"}, {"network": "none"}, ((AGENT, "reset_password"), (USER, "join_wifi")), "test_line"
    ),
    "power_off": _home("turn_router_on", "check_router", power="off"),
    "cable_out": _home("plug_cable", "check_router", cable="out"),
    "wifi_off": _home("turn_wifi_on", "check_router", wifi="off"),
    "hangs": Fault({}, {"light": "blinking"}, (), "check_router", restart=True),
    "broken_router": Fault({}, {"light": "red"}, (), "check_router", reason="router"),
    "busy_channel": _home("change_channel", "check_router", channel="busy"),
    "airplane": _home("turn_airplane_off", "check_laptop", airplane="on"),
    "guest": _home("join_wifi", "check_laptop", network="guest"),
    "vpn": _home("stop_vpn", "check_laptop", vpn="on"),
    "dns": _home("reset_dns", "check_laptop", dns="wrong"),
    "downloads": _home("stop_downloads", "check_laptop", downloads="on"),
}

FAMILIES: Mapping[str, Sequence[Sequence[str]]] = {
    "no_internet": (
        ("suspended", "ended", "outage"),
        ("unknown_router",),
        ("locked_port", "broken_port"),
        ("power_off", "hangs", "broken_router"),
        ("cable_out",),
        ("wifi_off",),
        ("airplane",),
        ("dns",),
    ),
    "slow": (
        ("old_firmware",),
        ("low_speed",),
        ("capped",),
        ("busy_channel",),
        ("vpn",),
        ("downloads",),
        ("suspended", "ended"),
    ),
    "no_wifi": (
        ("wifi_off",),
        ("airplane",),
        ("guest", "lost_password"),
        ("power_off", "broken_router"),
        ("unknown_router",),
    ),
}
LOOKS = ("get_account", "test_line", "check_router", "check_laptop")  # the tools that show faults, the agent's first


class Composition(NamedTuple):
    """The faults of a task."""

    family: str
    faults: tuple[str, ...]  # in the order of FAULTS

    @property
    def name(self) -> str:
        return f"{self.family}[{'|'.join(self.faults)}]"

    @property
    def refusal(self) -> str:
        """Why it must be handed over; empty: it can be mended."""
        return next((FAULTS[name].reason for name in self.faults if FAULTS[name].reason), "")


@functools.cache
def compositions(max_faults: int = 8) -> tuple[Composition, ...]:
    """All of them, fewer faults first; at most one fault of each cannot be mended, since a hand-over has one reason."""
    order = {name: place for place, name in enumerate(FAULTS)}
    found = [
        Composition(family, tuple(sorted(filter(None, picked), key=order.__getitem__)))
        for family, sets in FAMILIES.items()
        for picked in itertools.product(*((*one, "") for one in sets))
    ]
    fitting = [
        one
        for one in found
        if 0 < len(one.faults) <= max_faults and sum(bool(FAULTS[name].reason) for name in one.faults) <= 1
    ]
    return tuple(sorted(fitting, key=lambda one: len(one.faults)))


def is_held_out(composition: Composition) -> bool:
    """A fifth of the compositions, by their names: no task that is trained on, authored ones included, has one of them."""
    return int(hashlib.sha256(composition.name.encode()).hexdigest(), 16) % 5 == 0


def shape(composition: Composition) -> tuple[Json, ...]:
    """What variants of a composition share with it: the family, and who has to do how much."""
    own = [FAULTS[name] for name in composition.faults]
    who = sorted("".join(side[0] for side, _ in fault.mends) + "r" * fault.restart + "x" * bool(fault.reason) for fault in own)
    return (composition.family, *who)


def gold(composition: Composition, account: int) -> tuple[Act, ...]:
    """Both sides' calls that solve it."""
    faults = [FAULTS[name] for name in composition.faults]
    for fault in faults:
        if fault.reason:
            return (_look(fault.shown_by, account), (AGENT, Call("hand_over", {"account": account, "reason": fault.reason})))
    acts = [
        (who, Call(tool, arguments_of(tool, account) if who == AGENT else {})) for fault in faults for who, tool in fault.mends
    ]
    restart = [(USER, Call("restart_router"))] if any(fault.restart for fault in faults) else []
    return (*acts, *restart)


def arguments_of(tool: str, account: int) -> dict[str, Json]:
    """Those of a mending call of the agent."""
    return {"account": account} | ({"speed": "full"} if tool == "set_speed" else {})


def _look(tool: str, account: int) -> Act:
    return (AGENT, Call(tool, {"account": account})) if tool in LOOKS[:2] else (USER, Call(tool))
