"""The simulated phone of telecom as plain records: what it connects to, how fast it is, what its status bar shows.

A phone is two records: `device`, which its owner can change, and `around`, what the network and the line allow.
Source: tau2-bench 1.0.1, domain telecom.
"""

from collections.abc import Mapping
from typing import Any

from rods_jax.environments.tau2.phone_records import NO_SERVICE, REQUEST, VPN, APNNames
from rods_jax.environments.tau2.values import Record
from rods_jax.types import Json

_SYMBOLS = {
    "none": "📵 No Signal",
    "poor": "📶¹ Poor",
    "fair": "📶² Fair",
    "good": "📶³ Good",
    "excellent": "📶⁴ Excellent",
}
_TECHNOLOGY = {"4g_5g_preferred": "5G", "4g_only": "4G", "3g_only": "3G", "2g_only": "2G"}
_MBPS = {"2G": (0.1, 0.4), "3G": (1, 5), "4G": (10, 100), "5G": (50, 500)}  # slowest, fastest
_SIGNAL_FACTOR = {"poor": 0.2, "fair": 0.5, "good": 0.8, "excellent": 1.0}
_SLOW_VPN_FACTOR, _SAVER_FACTOR = 0.1, 0.2
_WORDS = ((1, "Very Poor"), (5, "Poor"), (25, "Fair"), (100, "Good"), (float("inf"), "Excellent"))  # below Mbit/s
NO_CONNECTION = "No Connection"

Reading = Mapping[str, Json]


def payment_request(bill_id: str, amount_due: float) -> Record:
    """What the owner of the phone is asked to pay, in USD."""
    return REQUEST({"bill_id": bill_id, "amount_due": amount_due})


def new_vpn() -> Record:
    """The connection that a phone makes when it is asked for one."""
    return VPN({"server_address": "192.168.1.1", "protocol": "OpenVPN", "server_performance": "excellent"})


# ----------------------------------------------------------------------------------------- network
def apn(device: Reading, field: str) -> Any:
    """A field of the access point. AttributeError, as the official model's: a call stored something else there."""
    settings = device["active_apn_settings"]
    if not isinstance(settings, Record):
        raise AttributeError(f"{type(settings).__name__!r} object has no attribute {field!r}")
    return settings.get(field)


def set_apn(device: Record, field: str, value: Json) -> None:
    """AttributeError, as above."""
    apn(device, field)
    device["active_apn_settings"][field] = value


def search_network(device: Record, around: Reading) -> None:
    """Connects the device to what it prefers of what is there, or to nothing."""
    has_sim = device["sim_card_status"] == "active" and not device["sim_card_missing"]
    if has_sim and not device["airplane_mode"]:
        _connect(device, around["signal_strength"])
    else:
        _disconnect(device)
    if apn(device, "apn_name") == APNNames.BROKEN or not around["line_active"]:
        _disconnect(device)


def _connect(device: Record, signals: Reading) -> None:
    preference = device["network_mode_preference"]
    technology = _TECHNOLOGY.get(preference, "4G") if isinstance(preference, str) else "4G"
    if technology == "5G" and signals.get("5G", "none") == "none":
        technology = "4G"
    device["network_connection_status"] = "connected"
    device["network_technology_connected"] = technology
    device["network_signal_strength"] = signals.get(technology, "none")


def _disconnect(device: Record) -> None:
    device["network_connection_status"] = NO_SERVICE
    device["network_technology_connected"] = "none"
    device["network_signal_strength"] = "none"


def drop_wifi(device: Record) -> None:
    device.update(wifi_connected=False, wifi_ssid=None, wifi_signal_strength="none")


def drop_vpn(device: Record) -> None:
    device.update(vpn_connected=False, vpn_details=None)


# -------------------------------------------------------------------------------------- what works
def data_works(device: Reading, around: Reading) -> bool:
    """Whether mobile data flows."""
    reachable = device["network_signal_strength"] != "none" and device["network_connection_status"] != NO_SERVICE
    roams = not around["is_abroad"] or (device["roaming_enabled"] and around["roaming_allowed"])
    allowed = device["data_enabled"] and not around["mobile_data_usage_exceeded"]
    return bool(not device["airplane_mode"] and reachable and roams and allowed)


def speed(device: Reading, around: Reading) -> tuple[float | None, str]:
    """Download speed in Mbit/s and its word; None where nothing flows.

    The mean of the technology's range, times a factor for the signal, a slow VPN and the data saver.
    """
    technology = device["network_technology_connected"]
    if not data_works(device, around) or technology not in _MBPS:
        return None, NO_CONNECTION
    mbps = sum(_MBPS[technology]) / 2 * _SIGNAL_FACTOR[device["network_signal_strength"]]
    vpn = device["vpn_details"]
    if device["vpn_connected"] and vpn and vpn["server_performance"] == "poor":
        mbps *= _SLOW_VPN_FACTOR
    if device["data_saver_mode"]:
        mbps *= _SAVER_FACTOR
    mbps = round(mbps, 2)
    return mbps, next(word for below, word in _WORDS if mbps < below)


def mms_works(device: Reading, around: Reading) -> bool:
    """Whether the messaging app can send pictures."""
    if not data_works(device, around) or device["network_technology_connected"] == "2G":
        return False
    if device["wifi_calling_enabled"] and device["wifi_calling_mms_over_wifi"]:
        return False
    app = device["app_statuses"].get("messaging")
    return (
        apn(device, "mmsc_url") is not None
        and app is not None
        and all(app["permissions"][name] for name in ("storage", "sms"))
    )


# ---------------------------------------------------------------------------------- what one sees
def status_bar(device: Reading) -> str:
    """The line of symbols on top of the screen."""
    shown = ["✈️ Airplane Mode"] if device["airplane_mode"] else _mobile_symbols(device)
    if device["wifi_connected"]:
        shown.append(f"📡 Connected to {device['wifi_ssid']}" if device["wifi_ssid"] else "📡 Enabled")
    if device["vpn_connected"]:
        shown.append("🔒 VPN Connected")
    shown.append(f"🔋 {device['battery_level']}%")
    return f"Status Bar: {' | '.join(shown)}"


def _mobile_symbols(device: Reading) -> list[str]:
    technology = device["network_technology_connected"]
    shown = [_SYMBOLS[device["network_signal_strength"]]]
    if technology != "none":
        shown.append(technology)
    if not device["data_enabled"] or technology == "none":
        return [*shown, "📵 Data Disabled"]
    return [*shown, "📱 Data Enabled", *(["🔽 Data Saver"] if device["data_saver_mode"] else [])]
