"""What set-up and checks call on the phone of telecom: switches without a text, things that break, assertions.

No one may call these in a dialogue; the tools that its owner has are in phone_tools.py.
"""

from rods_jax.environments.tau2 import phone
from rods_jax.environments.tau2.database import Database
from rods_jax.environments.tau2.phone_records import SERVICES, APNNames
from rods_jax.environments.tau2.toolkit import Toolkit
from rods_jax.environments.tau2.values import Record
from rods_jax.types import Json


class PhoneChecks(Toolkit):
    """The phone, seen from outside."""

    def __init__(self, db: Database):
        super().__init__(db)
        self.vpn = phone.new_vpn()  # what a new connection is made of; once broken, later connections are slow too

    # ------------------------------------------------------------------------------ the two records
    @property
    def device(self) -> Record:
        """Not to be changed."""
        return self.db.read("device")

    @property
    def around(self) -> Record:
        """Not to be changed."""
        return self.db.read("surroundings")

    def simulate_network_search(self) -> None:
        phone.search_network(self.db.write("device"), self.around)

    def _set(self, search: bool = False, **fields: Json) -> None:
        """Changes the device, and lets it search for a network where that follows."""
        self.db.write("device").update(fields)
        if search:
            self.simulate_network_search()

    def _flip(self, field: str, search: bool = False) -> bool:
        state = not self.device[field]
        self._set(search, **{field: state})
        return state

    def _set_airplane_mode(self, on: bool) -> None:
        """Drops Wi-Fi, and a VPN unless the mode ends."""
        ends = self.device["airplane_mode"] and not on
        self._set(airplane_mode=on)
        phone.drop_wifi(self.db.write("device"))
        if not ends:
            phone.drop_vpn(self.db.write("device"))
        self.simulate_network_search()

    # -------------------------------------------------------------------------- who and where
    def set_user_info(self, name: str, phone_number: str) -> None:
        self.db.write("surroundings").update(name=name, phone_number=phone_number)

    def set_user_location(self, abroad: bool) -> None:
        self.db.write("surroundings").update(is_abroad=abroad)

    # ------------------------------------------------------------------------------- switches
    def turn_airplane_mode_on(self) -> None:
        self._set_airplane_mode(True)

    def turn_airplane_mode_off(self) -> None:
        self._set_airplane_mode(False)

    def turn_data_on(self) -> None:
        """Without a search, unlike all others."""
        self._set(data_enabled=True)

    def turn_data_off(self) -> None:
        self._set(search=True, data_enabled=False)

    def turn_roaming_on(self) -> None:
        self._set(search=True, roaming_enabled=True)

    def turn_roaming_off(self) -> None:
        self._set(search=True, roaming_enabled=False)

    def turn_data_saver_mode_on(self) -> None:
        self._set(data_saver_mode=True)

    def turn_data_saver_mode_off(self) -> None:
        self._set(data_saver_mode=False)

    def set_wifi_calling(self, enabled: bool, mms_over_wifi: bool | None = None) -> None:
        self._set(wifi_calling_enabled=enabled)
        if mms_over_wifi is not None:
            self._set(wifi_calling_mms_over_wifi=mms_over_wifi)

    # ---------------------------------------------------------------------------- things that break
    def unseat_sim_card(self) -> None:
        self._set(search=True, sim_card_missing=True)

    def lock_sim_card(self, mode: str) -> None:
        """mode: pin or puk; another locks nothing."""
        if mode in ("pin", "puk"):
            self._set(sim_card_status=f"locked_{mode}")
        self.simulate_network_search()

    def break_apn_settings(self) -> None:
        phone.set_apn(self.db.write("device"), "apn_name", str(APNNames.BROKEN))
        self.simulate_network_search()

    def break_apn_mms_setting(self) -> None:
        phone.set_apn(self.db.write("device"), "mmsc_url", None)

    def break_vpn(self) -> None:
        """A slow connection, and slow ones from then on."""
        self.vpn["server_performance"] = "poor"
        self._set(vpn_connected=True, vpn_details=Record(self.vpn))

    def remove_app_permission(self, app_name: str, permission: str) -> bool:
        """Whether the app had such a permission to lose."""
        app = self.device["app_statuses"].get(app_name)
        if app is None or permission.lower() not in app["permissions"]:
            return False
        self.db.write("device")["app_statuses"][app_name]["permissions"][permission.lower()] = False
        return True

    # --------------------------------------------------------------------------------- assertions
    def assert_airplane_mode_status(self, expected_status: bool) -> bool:
        return self.device["airplane_mode"] == expected_status

    def assert_service_status(self, expected_status: str) -> bool:
        if expected_status not in SERVICES:
            raise ValueError(f"{expected_status!r} is not a valid NetworkStatus")
        return self.device["network_connection_status"] == expected_status

    def assert_mobile_data_status(self, expected_status: bool) -> bool:
        return phone.data_works(self.device, self.around) == expected_status

    def assert_mobile_roaming_status(self, expected_status: bool) -> bool:
        return self.device["roaming_enabled"] == expected_status

    def assert_mobile_data_saver_mode_status(self, expected_status: bool) -> bool:
        return self.device["data_saver_mode"] == expected_status

    def assert_internet_speed(self, expected_speed: float, expected_desc: str | None = None) -> bool:
        """Whether downloads reach a speed in Mbit/s and, where one is given, are of that word; no connection is 0."""
        mbps, word = phone.speed(self.device, self.around)
        named = expected_desc is None or word.lower() == expected_desc.lower()
        return named and (mbps or 0) >= expected_speed

    def assert_internet_not_excellent(self) -> bool:
        return phone.speed(self.device, self.around)[1] != "Excellent"

    def assert_can_send_mms(self, expected_status: bool) -> bool:
        return phone.mms_works(self.device, self.around) == expected_status

    def assert_mobile_data_usage_exceeded(self, expected_status: bool) -> bool:
        return self.around["mobile_data_usage_exceeded"] == expected_status
