"""The user's side: a router and a laptop, whose state the agent cannot see."""

from typing import Any

from rods_jax.environments.helpdesk.desk import described

FEED = {"line": True, "fast": True, "settings": 0, "password": "set", "bill": 0, "paid": False}


class Home:
    """A router and a laptop."""

    def __init__(
        self,
        power: str = "on",
        cable: str = "in",
        wifi: str = "on",
        light: str = "green",  # or blinking: it hangs; or red: it is broken
        channel: str = "free",  # or busy, which is slow
        airplane: str = "off",
        network: str = "home",  # or guest, none
        vpn: str = "off",
        dns: str = "auto",  # or wrong
        downloads: str = "off",
        loaded: int = 0,  # the settings that the router has
        feed: dict[str, Any] | None = None,  # what the provider sends, and the bill; the world keeps it up to date
    ):
        self.power, self.cable, self.wifi, self.light, self.channel = power, cable, wifi, light, channel
        self.airplane, self.network, self.vpn, self.dns, self.downloads = airplane, network, vpn, dns, downloads
        self.loaded, self.feed = loaded, feed or dict(FEED)

    # ------------------------------------------------------------------------------- what to look at
    def check_router(self) -> str:
        """Looks at the router."""
        return described(vars(self), "power", "cable", "wifi", "light", "channel")

    def check_laptop(self) -> str:
        """Looks at the laptop."""
        return described(vars(self), "airplane", "network", "vpn", "dns", "downloads")

    def run_test(self) -> str:
        """Tests the internet."""
        up, fast = works(vars(self))
        return f"internet {'up' if up else 'down'}, speed {'fast' if fast else 'slow'}"

    def read_bill(self) -> str:
        """Reads the bill that the provider has sent."""
        return f"owes {self.feed['bill']}"

    # -------------------------------------------------------------------------------- what to do
    def turn_router_on(self) -> str:
        """Turns the router on."""
        return self._set("power", "on")

    def turn_router_off(self) -> str:
        """Turns the router off."""
        return self._set("power", "off")

    def plug_cable(self) -> str:
        """Plugs the router's cable in."""
        return self._set("cable", "in")

    def pull_cable(self) -> str:
        """Pulls the router's cable out."""
        return self._set("cable", "out")

    def restart_router(self) -> str:
        """Restarts the router, which then loads the provider's settings."""
        if self.power != "on":
            raise ValueError("power off")
        self.loaded = self.feed["settings"]
        return self._set("light", "green" if self.light != "red" else "red")

    def turn_wifi_on(self) -> str:
        """Turns the router's wifi on."""
        return self._set("wifi", "on")

    def change_channel(self) -> str:
        """Moves the wifi to a free channel."""
        return self._set("channel", "free")

    def turn_airplane_off(self) -> str:
        """Turns the laptop's airplane mode off."""
        return self._set("airplane", "off")

    def turn_airplane_on(self) -> str:
        """Turns the laptop's airplane mode on."""
        return self._set("airplane", "on")

    def join_wifi(self) -> str:
        """Joins the home wifi with the provider's password."""
        if self.feed["password"] != "set":
            raise ValueError("password refused")
        return self._set("network", "home")

    def stop_vpn(self) -> str:
        """Stops the laptop's vpn."""
        return self._set("vpn", "off")

    def reset_dns(self) -> str:
        """Resets the laptop's dns."""
        return self._set("dns", "auto")

    def stop_downloads(self) -> str:
        """Stops the laptop's downloads."""
        return self._set("downloads", "off")

    def pay_bill(self) -> str:
        """Pays the bill that the provider has sent."""
        if not self.feed["bill"]:
            raise ValueError("no bill")
        self.feed["paid"], self.feed["bill"] = True, 0
        return "paid"

    def _set(self, field: str, value: str) -> str:
        setattr(self, field, value)
        return f"{field} {value}"


def works(home: dict[str, Any]) -> tuple[bool, bool]:
    """(the internet is up, and it is fast), of a home's attributes."""
    feed = home["feed"]
    router = home["power"] == "on" and home["cable"] == "in" and home["wifi"] == "on" and home["light"] == "green"
    laptop = home["airplane"] == "off" and home["network"] == "home" and home["dns"] == "auto"
    up = feed["line"] and home["loaded"] == feed["settings"] and router and laptop
    fast = feed["fast"] and home["vpn"] == "off" and home["downloads"] == "off" and home["channel"] == "free"
    return up, up and fast
