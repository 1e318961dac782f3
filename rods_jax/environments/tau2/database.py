"""Databases of episodes: one base that nobody changes, and the records that an episode wrote.

    base = Base("OfficeDB", shape, {"users": {"u1": Record(...)}, "device": Record(...), "lines": [Record(...)]})
    db = Database(base)
    db.read("users", "u1")["name"]             # shared: never change it
    db.write("users", "u1")["name"] = "Ada"    # a private copy, made once
    db.write("device")["battery"] = 79         # a table that is one record has no key
    db.put("users", "u2", Record(...)); db.append("lines", Record(...))

A table is a mapping, a list (its keys are places) or one record (its key is None).
Who keeps a record from `write` beyond one call must not change it later: texts are kept until the next `write`.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from rods_jax.environments.tau2.shapes import Shape
from rods_jax.environments.tau2.values import copied
from rods_jax.types import Json

Key = str | int | None
_ENCODE = json.JSONEncoder(sort_keys=True).encode


def canonical(value: Json) -> str:
    """The text that is hashed: keys sorted, ", " and ": " between, ASCII."""
    return _ENCODE(value)


class Base:
    """A database as its file has it, with the text of every record that was asked for."""

    def __init__(self, name: str, shape: Shape, content: Json):
        self.name = name  # of the official class: the text of an error has it
        self.shape = shape
        self.tables: dict[str, Json] = shape(content)  # ShapeError: not of its shape
        self._texts: dict[tuple[str, Key], str] = {}

    def text(self, table: str, key: Key) -> str:
        place = table, key
        if place not in self._texts:
            self._texts[place] = canonical(self.tables[table] if key is None else self.tables[table][key])
        return self._texts[place]

    def table(self, name: str) -> Json:
        """AttributeError, in the words of the official class: there is none."""
        if name not in self.tables:
            raise AttributeError(f"{self.name!r} object has no attribute {name!r}")
        return self.tables[name]

    def keys(self, table: str) -> tuple[Key, ...]:
        held = self.table(table)
        if isinstance(held, list):
            return tuple(range(len(held)))
        return (None,) if is_record(held) else tuple(held)

    def __deepcopy__(self, memo: Any) -> "Base":
        return self


def is_record(table: Json) -> bool:
    """Whether a table is one record."""
    return type(table) is not dict and not isinstance(table, list)


class Database:
    """What one episode reads and writes.  Making one costs nothing; a write copies one record."""

    def __init__(self, base: Base):
        self.base = base
        self._own: dict[str, dict[Key, Json]] = {}  # table -> key -> record; new keys in the order of their arrival
        self._texts: dict[tuple[str, Key], str] = {}  # of own records that no call asked to change since

    # ------------------------------------------------------------------------------------ records
    def read(self, table: str, key: Key = None) -> Json:
        """The record, not to be changed. KeyError: there is none."""
        own = self._own.get(table)
        if own is not None and key in own:
            return own[key]
        held = self.base.table(table)
        if is_record(held) is not (key is None) or (isinstance(key, int) and not 0 <= key < len(held)):
            raise KeyError(key)
        return held if key is None else held[key]

    def find(self, table: str, key: Key, kind: str) -> Json:
        """`read`, in a tool's words. ValueError: there is none."""
        if not self.has(table, key):
            raise ValueError(f"{kind} {key} not found")
        return self.read(table, key)

    def write(self, table: str, key: Key = None) -> Json:
        """The record, to be changed at once. KeyError: there is none."""
        own = self._own.setdefault(table, {})
        if key not in own:
            own[key] = copied(self.read(table, key))
        self._texts.pop((table, key), None)
        return own[key]

    def put(self, table: str, key: Key, record: Json) -> None:
        """A new record, or another in its place."""
        self.base.table(table)
        self._own.setdefault(table, {})[key] = record
        self._texts.pop((table, key), None)

    def append(self, table: str, record: Json) -> int:
        """A new record at the end of a list; its place."""
        place = self.count(table)
        self.put(table, place, record)
        return place

    def keys(self, table: str) -> Iterator[Key]:
        """In the order of the file; then new ones as they came."""
        held = self.base.keys(table)
        yield from held
        own = self._own.get(table)
        if own:
            known = self.base.tables[table]
            yield from (k for k in own if (k >= len(held) if isinstance(k, int) else k is not None and k not in known))

    def records(self, table: str) -> Iterator[tuple[Key, Json]]:
        """Keys and records, not to be changed."""
        return ((key, self.read(table, key)) for key in self.keys(table))

    def count(self, table: str) -> int:
        return sum(1 for _ in self.keys(table)) if self._own.get(table) else len(self.base.keys(table))

    def has(self, table: str, key: Key) -> bool:
        try:
            self.read(table, key)
        except (KeyError, TypeError):  # a key that cannot be one
            return False
        return True

    # ---------------------------------------------------------------------------- the whole of it
    def changes(self) -> dict[tuple[str, Key], str]:
        """Place -> text of each record that differs from the base: two databases of a base are equal iff these are.

        After one write this costs the text of one record.
        """
        changed = {}
        for table, own in self._own.items():
            for key, record in own.items():
                place = table, key
                text = self._texts.get(place)
                if text is None:
                    text = self._texts[place] = canonical(record)
                if not self._is_of_base(place) or text != self.base.text(table, key):
                    changed[place] = text
        return changed

    def _is_of_base(self, place: tuple[str, Key]) -> bool:
        table, key = place
        held = self.base.tables[table]
        return key is None or (key < len(held) if isinstance(key, int) else key in held)

    def dump(self) -> dict[str, Json]:
        """All of it as JSON, not to be changed."""
        whole: dict[str, Json] = {}
        for table, held in self.base.tables.items():
            if isinstance(held, list):
                whole[table] = [record for _, record in self.records(table)]
            else:
                whole[table] = self.read(table) if is_record(held) else dict(self.records(table))
        return whole

    def text(self) -> str:
        """The canonical text of all of it."""
        changed = self.changes()
        parts = []
        for table, held in sorted(self.base.tables.items()):
            keys = list(self.keys(table))
            texts = [changed.get((table, key)) or self.base.text(table, key) for key in keys]
            if isinstance(held, list):
                body = f"[{', '.join(texts)}]"
            elif is_record(held):
                body = texts[0]
            else:
                pairs = sorted(zip(keys, texts))
                body = f"{{{', '.join(f'{json.dumps(key)}: {text}' for key, text in pairs)}}}"
            parts.append(f"{json.dumps(table)}: {body}")
        return f"{{{', '.join(parts)}}}"

    def official_hash(self) -> str:
        """SHA-256 of the text, in hex: the figure that tau2-bench compares."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def same(self, other: "Database") -> bool:
        """Whether the official hashes are equal, without computing them where both have one base."""
        return self.changes() == other.changes() if self.base is other.base else self.text() == other.text()

    def patched(self, patch: Json) -> "Database":
        """Another database: objects of the patch are merged into this one's, all else replaces. ShapeError: no fit."""
        return Database(Base(self.base.name, self.base.shape, _merged(self.dump(), patch)))

    def fork(self) -> "Database":
        """An independent copy."""
        other = Database(self.base)
        other._own = {table: {key: copied(record) for key, record in own.items()} for table, own in self._own.items()}
        other._texts = dict(self._texts)
        return other

    def __deepcopy__(self, memo: Any) -> "Database":
        return memo.setdefault(id(self), self.fork())


def _merged(value: Json, patch: Json) -> Json:
    if not (isinstance(value, dict) and isinstance(patch, dict)):
        return patch
    return {**value, **{key: _merged(value.get(key), inner) for key, inner in patch.items()}}
