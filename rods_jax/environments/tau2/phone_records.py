"""What the records of telecom's phone look like: the device, and what surrounds it."""

from enum import StrEnum

from rods_jax.environments.tau2 import shapes

SIGNALS = ("none", "poor", "fair", "good", "excellent")
TECHNOLOGIES = ("2G", "3G", "4G", "5G")
NO_SERVICE = "no_service"
SERVICES = ("connected", "searching", NO_SERVICE, "emergency_only")


class NetworkModePreference(StrEnum):
    """What the phone connects to."""

    BEST = "4g_5g_preferred"
    ONLY_4G = "4g_only"
    ONLY_3G = "3g_only"
    ONLY_2G = "2g_only"


class APNNames(StrEnum):
    """Access points."""

    INTERNET = "internet"
    BROKEN = "broken"


class APNSettings:
    """An access point, as the tool that sets it shows its fields."""

    apn_name: APNNames = APNNames.INTERNET
    reset_at_reboot: bool = False
    mms_apn: str | None = "mms"
    mmsc_url: str | None = "http://mms.carrier.com/mms/wapenc"
    mms_proxy: str | None = None
    mms_port: int | None = None


MODES = tuple(map(str, NetworkModePreference))

APN_SETTINGS = shapes.record(
    "APNSettings",
    {
        "apn_name": (shapes.choice(*map(str, APNNames)), str(APNSettings.apn_name)),
        "reset_at_reboot": (shapes.boolean, APNSettings.reset_at_reboot),
        "mms_apn": (shapes.maybe(shapes.text), APNSettings.mms_apn),
        "mmsc_url": (shapes.maybe(shapes.text), APNSettings.mmsc_url),
        "mms_proxy": (shapes.maybe(shapes.text), APNSettings.mms_proxy),
        "mms_port": (shapes.maybe(shapes.integer), APNSettings.mms_port),
    },
    closed=True,
)
_PERMISSIONS = shapes.record(
    "AppPermissions",
    dict.fromkeys(("sms", "storage", "phone", "network"), (shapes.boolean, False)),
    closed=True,
)
_APP = shapes.record(
    "AppStatus",
    {"app_name": shapes.text, "permissions": (_PERMISSIONS, lambda: _PERMISSIONS({}))},
    closed=True,
)
_LEVEL = shapes.choice(*SIGNALS)
_TECHNOLOGY = shapes.choice("none", *TECHNOLOGIES)
VPN = shapes.record(
    "VpnDetails",
    {
        "server_address": (shapes.maybe(shapes.text), None),
        "protocol": (shapes.maybe(shapes.text), None),
        "server_performance": (shapes.choice("unknown", *SIGNALS[1:]), "unknown"),
    },
    closed=True,
)
REQUEST = shapes.record(
    "PaymentRequest",
    {"bill_id": shapes.text, "amount_due": shapes.number, "paid": (shapes.boolean, False)},
    closed=True,
)
DEVICE = shapes.record(
    "MockPhoneAttributes",
    {
        "sim_card_status": (shapes.choice("active", "missing", "locked_pin", "locked_puk"), "active"),
        "sim_card_missing": (shapes.boolean, False),
        "airplane_mode": (shapes.boolean, False),
        "network_signal_strength": (_LEVEL, "good"),
        "network_technology_connected": (_TECHNOLOGY, "5G"),
        "network_connection_status": (shapes.choice(*SERVICES), "connected"),
        "battery_level": (shapes.integer, 80),
        "data_enabled": (shapes.boolean, True),
        "roaming_enabled": (shapes.boolean, False),
        "network_mode_preference": (shapes.choice(*MODES), MODES[0]),
        "active_apn_settings": (APN_SETTINGS, lambda: APN_SETTINGS({})),
        "wifi_enabled": (shapes.boolean, False),
        "wifi_connected": (shapes.boolean, False),
        "wifi_ssid": (shapes.maybe(shapes.text), None),
        "wifi_signal_strength": (_LEVEL, "none"),
        "wifi_calling_enabled": (shapes.boolean, False),
        "wifi_calling_mms_over_wifi": (shapes.boolean, False),
        "data_saver_mode": (shapes.boolean, False),
        "vpn_enabled_setting": (shapes.boolean, False),
        "vpn_connected": (shapes.boolean, False),
        "vpn_details": (shapes.maybe(VPN), None),
        "app_statuses": (shapes.table(_APP), dict),
    },
    closed=True,
)
SURROUNDINGS = shapes.record(
    "UserSurroundings",
    {
        "name": (shapes.maybe(shapes.text), None),
        "phone_number": (shapes.maybe(shapes.text), None),
        "is_abroad": (shapes.boolean, False),
        "roaming_allowed": (shapes.boolean, False),
        "signal_strength": (
            shapes.table(_LEVEL, key=_TECHNOLOGY),
            lambda: {"2G": "poor", "3G": "fair", "4G": "good", "5G": "excellent"},
        ),
        "mobile_data_usage_exceeded": (shapes.boolean, False),
        "line_active": (shapes.boolean, True),
        "payment_request": (shapes.maybe(REQUEST), None),
    },
    closed=True,
)
PHONE = shapes.record("TelecomUserDB", {"device": DEVICE, "surroundings": SURROUNDINGS}, closed=True)
