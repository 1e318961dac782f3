"""Calendar: a room holds one event a day."""

from collections.abc import Sequence

from rods_jax.environments.workplace.vocabulary import DAYS, Day, Record, Result, Room, find, history


class EventId(Result):
    event_id: int


class EventIds(Result):
    event_ids: list[int]


class OnDay(Result):
    day: Day


class InRoom(Result):
    room: Room


class Guests(Result):
    guests: int


class EventCount(Result):
    events: int


class Calendar:
    """Events of one week in four rooms."""

    def __init__(self, events: Sequence[Record] = (), next_event_id: int = 1, long_context: bool = False):
        # {"event_id": int, "title": str, "day": Day, "room": Room | "", "guests": [str]}
        self.events = list(events)
        self.next_event_id = next_event_id
        self._history = history("attended", long_context)

    def create_event(self, title: str, day: Day) -> EventId:
        """Creates an event without a room.

        Args:
            title: What the event is about.
            day: The day on which it takes place.
        """
        event_id = self.next_event_id
        self.next_event_id += 1
        self.events.append({"event_id": event_id, "title": title, "day": day, "room": "", "guests": []})
        return {"event_id": event_id, **self._history}

    def find_event(self, title: str) -> EventId:
        """Finds the newest event with a title.

        Args:
            title: What the event is about.
        """
        return {"event_id": find(self.events, "title", title)["event_id"], **self._history}

    def find_day(self, room: Room) -> OnDay:
        """Finds the first day on which a room is free.

        Args:
            room: The room.
        """
        for day in DAYS:
            if not self._taken(room, day):
                return {"day": day, **self._history}
        raise ValueError(f"room {room} is never free")

    def move_event(self, event_id: int, day: Day) -> OnDay:
        """Moves an event to another day, on which its room must be free.

        Args:
            event_id: The event.
            day: Its new day.
        """
        event = find(self.events, "event_id", event_id)
        if event["day"] == day:
            raise ValueError(f"event {event_id} is on {day}")
        self._require_free(event["room"], day)
        event["day"] = day
        return {"day": day, **self._history}

    def book_room(self, event_id: int, room: Room) -> InRoom:
        """Books a room for an event, on the day of the event.

        Args:
            event_id: The event.
            room: The room.
        """
        event = find(self.events, "event_id", event_id)
        self._require_free(room, event["day"])
        event["room"] = room
        return {"room": room, **self._history}

    def invite_guest(self, event_id: int, person: str) -> Guests:
        """Invites a person to an event.

        Args:
            event_id: The event.
            person: Who is invited.
        """
        guests = find(self.events, "event_id", event_id)["guests"]
        if person in guests:
            raise ValueError(f"{person} is invited")
        guests.append(person)
        return {"guests": len(guests), **self._history}

    def cancel_event(self, event_id: int) -> EventCount:
        """Cancels an event.

        Args:
            event_id: The event.
        """
        self.events.remove(find(self.events, "event_id", event_id))
        return {"events": len(self.events), **self._history}

    def list_events(self, day: Day) -> EventIds:
        """Lists the events of a day.

        Args:
            day: The day.
        """
        ids = [event["event_id"] for event in self.events if event["day"] == day]
        return {"event_ids": ids, **self._history}

    def _taken(self, room: str, day: str) -> bool:
        return any(event["room"] == room and event["day"] == day for event in self.events)

    def _require_free(self, room: str, day: str) -> None:
        if room and self._taken(room, day):
            raise ValueError(f"room {room} is taken on {day}")
