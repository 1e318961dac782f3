"""The thirty tools that the owner of the phone has in telecom.

The class and its parameters are named as the official ones, which errors quote.
"""

from rods_jax.environments.tau2 import phone
from rods_jax.environments.tau2.phone_checks import PhoneChecks
from rods_jax.environments.tau2.phone_records import APN_SETTINGS, MODES, APNSettings, NetworkModePreference
from rods_jax.environments.tau2.toolkit import READ, WRITE, tool
from rods_jax.environments.tau2.values import Record

_SPEED_MEANS = {
    "Very Poor": "Connection is very slow. Basic web browsing might be difficult.",
    "Poor": "Connection is slow. Web browsing may be sluggish, streaming difficult.",
    "Fair": "Connection is okay for web browsing and some standard definition streaming.",
    "Good": "Connection is good for most activities, including HD streaming.",
    "Excellent": "Connection is very fast.",
}
_SIM = {
    "active": "Your SIM card is active and working.",
    "locked_pin": "The SIM card is locked with a PIN code.",
    "locked_puk": "The SIM card is locked with a PUK code.",
}
_NO_SIM = "No SIM card detected in the phone."


def _on(state: bool) -> str:
    return "ON" if state else "OFF"


def _yes(state: bool) -> str:
    return "Yes" if state else "No"


def _mode(preference: str) -> str:
    """AttributeError, as the official enumeration's: a call stored something else there."""
    if not isinstance(preference, str):
        raise AttributeError(f"{type(preference).__name__!r} object has no attribute 'value'")
    return preference


class TelecomUserTools(PhoneChecks):
    """The phone in its owner's hand."""

    def _then(self, text: str) -> str:
        """What changed, and the status bar after it."""
        return f"{text}\n{phone.status_bar(self.device)}"

    # ------------------------------------------------------------------------------------ network
    @tool(READ)
    def check_status_bar(self) -> str:
        """The symbols on top of the screen."""
        return phone.status_bar(self.device)

    @tool(READ)
    def check_network_status(self) -> str:
        """Networks, signal, mobile data and Wi-Fi at a glance."""
        device = self.device
        lines = [
            f"Airplane Mode: {_on(device['airplane_mode'])}",
            f"SIM Card Status: {'missing' if device['sim_card_missing'] else device['sim_card_status']}",
            f"Cellular Connection: {device['network_connection_status']}",
            f"Cellular Signal: {device['network_signal_strength']}",
            f"Cellular Network Type: {device['network_technology_connected']}",
            f"Mobile Data Enabled: {_yes(device['data_enabled'])}",
            f"Data Roaming Enabled: {_yes(device['roaming_enabled'])}",
            f"Wi-Fi Radio: {_on(device['wifi_enabled'])}",
            f"Wi-Fi Connected: {_yes(device['wifi_connected'])}",
        ]
        return "\n".join(lines + [f"Connected Wi-Fi Network: {device['wifi_ssid']}"] * device["wifi_connected"])

    @tool(READ)
    def check_network_mode_preference(self) -> str:
        """Which kind of network the phone prefers."""
        return f"Network Mode Preference: {_mode(self.device['network_mode_preference'])}"

    @tool(WRITE)
    def set_network_mode_preference(self, mode: NetworkModePreference | str) -> str:
        """Chooses which kind of network the phone prefers."""
        refused = isinstance(mode, str) and mode not in MODES
        if not refused:  # what is no text is stored too, and 4G is what the phone takes from it
            self._set(search=True, network_mode_preference=mode)
        if refused or mode is None:
            options = ", ".join(MODES)
            return self._then(
                f"Failed to set network mode: '{mode}' is not a valid option. Please use one of: {options}"
            )
        return self._then(f"Preferred Network Mode set to: {_mode(mode)}")

    @tool(READ)
    def run_speed_test(self) -> str:
        """Measures the download speed."""
        mbps, word = phone.speed(self.device, self.around)
        if mbps is None:
            return f"Speed test failed: {word}."
        return f"Speed Test Result: {mbps:.2f} Mbps ({word}). {_SPEED_MEANS[word]}"

    @tool(WRITE)
    def toggle_airplane_mode(self) -> str:
        """Turns airplane mode on or off."""
        on = not self.device["airplane_mode"]
        self._set_airplane_mode(on)
        return self._then(f"Airplane Mode is now {_on(on)}.")

    # ----------------------------------------------------------------------------------- SIM card
    @tool(READ)
    def check_sim_status(self) -> str:
        """Whether the SIM card works."""
        return _NO_SIM if self.device["sim_card_missing"] else _SIM.get(self.device["sim_card_status"], _NO_SIM)

    @tool(WRITE)
    def reseat_sim_card(self) -> str:
        """Takes the SIM card out and puts it back."""
        self._set(search=True, sim_card_missing=False)
        return self._then("SIM card re-seated successfully.")

    # -------------------------------------------------------------------------------- mobile data
    @tool(WRITE)
    def toggle_data(self) -> str:
        """Turns mobile data on or off."""
        return self._then(f"Mobile Data is now {_on(self._flip('data_enabled', search=True))}.")

    @tool(WRITE)
    def toggle_roaming(self) -> str:
        """Turns data roaming on or off."""
        return self._then(f"Data Roaming is now {_on(self._flip('roaming_enabled', search=True))}.")

    @tool(READ)
    def check_data_restriction_status(self) -> str:
        """Whether the data saver is on."""
        return f"Data Saver mode is {'ON (limits data usage)' if self.device['data_saver_mode'] else 'OFF'}."

    @tool(WRITE)
    def toggle_data_saver_mode(self) -> str:
        """Turns the data saver on or off."""
        return self._then(f"Data Saver Mode is now {_on(self._flip('data_saver_mode'))}.")

    # ------------------------------------------------------------------------------- access point
    @tool(READ)
    def check_apn_settings(self) -> str:
        """The access point that the phone uses."""
        phone.apn(self.device, "model_copy")  # the word of the official error
        return (
            f"Current APN Name: {phone.apn(self.device, 'apn_name')}\n"
            f"MMSC URL (for picture messages): {phone.apn(self.device, 'mmsc_url') or 'Not Set'}\n"
            "(These are technical settings, usually best left unchanged.)"
        )

    @tool(WRITE)
    def set_apn_settings(self, apn_settings: APNSettings | dict) -> str:
        """Sets the access point."""
        # What is no object is stored too; it has no name, so that nothing is searched, and every later search fails.
        settings = APN_SETTINGS(apn_settings) if isinstance(apn_settings, dict) else apn_settings
        self._set(active_apn_settings=settings)
        name = phone.apn(self.device, "apn_name")
        self.simulate_network_search()
        return self._then(f"APN settings set to: {name}")

    @tool(WRITE)
    def reset_apn_settings(self) -> str:
        """Has the access point set to its defaults at the next restart."""
        phone.set_apn(self.db.write("device"), "reset_at_reboot", True)
        self.simulate_network_search()
        return self._then("APN settings will reset at reboot.")

    # -------------------------------------------------------------------------------------- Wi-Fi
    @tool(READ)
    def check_wifi_status(self) -> str:
        """Whether the phone is on Wi-Fi."""
        device = self.device
        if not device["wifi_enabled"]:
            return "Wi-Fi is turned OFF."
        if not device["wifi_connected"]:
            return "Wi-Fi is ON but not connected to any network."
        return (
            f"Wi-Fi is ON and connected to '{device['wifi_ssid']}'. Signal strength: {device['wifi_signal_strength']}."
        )

    @tool(WRITE)
    def toggle_wifi(self) -> str:
        """Turns Wi-Fi on or off."""
        if self.device["airplane_mode"]:
            return self._then("Cannot change Wi-Fi settings while Airplane Mode is ON.")
        on = self._flip("wifi_enabled")
        if not on:
            phone.drop_wifi(self.db.write("device"))
        return self._then(f"Wi-Fi is now {_on(on)}.")

    @tool(READ)
    def check_wifi_calling_status(self) -> str:
        """Whether calls may go over Wi-Fi."""
        return f"Wi-Fi Calling is currently turned {_on(self.device['wifi_calling_enabled'])}."

    @tool(WRITE)
    def toggle_wifi_calling(self) -> str:
        """Turns calls over Wi-Fi on or off."""
        return self._then(f"Wi-Fi Calling is now {_on(self._flip('wifi_calling_enabled'))}.")

    # ---------------------------------------------------------------------------------------- VPN
    @tool(READ)
    def check_vpn_status(self) -> str:
        """Whether a VPN is connected, and how well it performs."""
        device, vpn = self.device, self.device["vpn_details"]
        if not device["vpn_connected"]:
            off = not device["vpn_enabled_setting"]
            return "VPN is turned OFF." if off else "VPN is turned ON in settings, but currently not connected."
        if vpn is None:
            return "VPN is ON and connected (no specific details available)."
        level = vpn["server_performance"]
        return (  # as Python shows the official record
            f"VPN is ON and connected. Details: {{'server_address': {vpn['server_address']!r}, "
            f"'protocol': {vpn['protocol']!r}, 'server_performance': <PerformanceLevel.{level.upper()}: {level!r}>}}"
        )

    @tool(WRITE)
    def connect_vpn(self) -> str:
        """Connects to the VPN."""
        if self.device["vpn_connected"]:
            return "VPN already connected."
        self._set(vpn_connected=True, vpn_details=Record(self.vpn))
        return self._then("VPN connected successfully.")

    @tool(WRITE)
    def disconnect_vpn(self) -> str:
        """Disconnects from the VPN."""
        if not self.device["vpn_connected"]:
            return self._then("No active VPN connection to disconnect.")
        phone.drop_vpn(self.db.write("device"))
        return self._then("VPN disconnected successfully.")

    # --------------------------------------------------------------------------------------- apps
    @tool(READ)
    def check_installed_apps(self) -> str:
        """Names of the apps on the phone."""
        return f"The following apps are installed on the phone: {', '.join(self.device['app_statuses'])}"

    def _granted(self, app_name: str) -> list[str] | None:
        app = self.device["app_statuses"].get(app_name)
        return None if app is None else [name for name, granted in app["permissions"].items() if granted]

    @tool(READ)
    def check_app_status(self, app_name: str) -> str:
        """What an app is permitted, one a line."""
        granted = self._granted(app_name)
        if granted is None:
            return f"App '{app_name}' not found on this phone."
        shown = [" - Permissions Granted:", *(f"   - {name}" for name in granted)]
        return "\n".join([f"Status for App: {app_name}", *(shown if granted else [" - Permissions: None granted."])])

    @tool(READ)
    def check_app_permissions(self, app_name: str) -> str:
        """What an app is permitted."""
        granted = self._granted(app_name)
        if granted is None:
            return f"App '{app_name}' not found on this phone."
        if not granted:
            return f"App '{app_name}' currently has no permissions granted."
        return f"App '{app_name}' has permission for: {', '.join(granted)}."

    @tool(WRITE)
    def grant_app_permission(self, app_name: str, permission: str) -> str:
        """Permits an app something."""
        app, name = self.device["app_statuses"].get(app_name), permission.lower()
        if app is None:
            return self._then(f"Error. App '{app_name}' not found. Cannot grant permission.")
        if name not in app["permissions"]:
            known = list(app["permissions"])
            return self._then(
                f"Error. Permission '{name}' not tracked for app '{app_name}', available permissions: {known}"
            )
        self.db.write("device")["app_statuses"][app_name]["permissions"][name] = True
        return self._then(f"Success. Permission '{name}' granted to app '{app_name}'.")

    @tool(READ)
    def can_send_mms(self) -> str:
        """Whether the messaging app can send pictures."""
        can = "can" if phone.mms_works(self.device, self.around) else "cannot"
        return f"Your messaging app {can} send MMS messages."

    # ------------------------------------------------------------------------ restart and payments
    @tool(WRITE)
    def reboot_device(self) -> str:
        """Restarts the phone."""
        resets = phone.apn(self.device, "reset_at_reboot")
        if resets:
            self._set(active_apn_settings=APN_SETTINGS({}))
        self.simulate_network_search()
        return self._then("Resetting APN settings...\n" * resets + "Restarting network services...")

    @tool(READ)
    def check_payment_request(self) -> str:
        """The bill that the customer is asked to pay."""
        request = self.around["payment_request"]
        if request is None:
            return "No payment request has been made."
        return f"You have a payment request for bill {request['bill_id']} of {request['amount_due']} USD."

    @tool(WRITE)
    def make_payment(self) -> str:
        """Pays the bill that the customer is asked to pay."""
        request = self.around["payment_request"]
        if request is None:
            return "You do not have a payment request."
        self.db.write("surroundings")["payment_request"]["paid"] = True
        return f"Payment of {request['amount_due']} USD has been made for bill {request['bill_id']}."
