"""Random programs of changes that a source could really send, and the naive model of what they come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st
from sink_batches import UNCHANGED, Change, delete, insert, schema_of, update

from cdc.schema import Int, RowIdentity, Text

KEYED = schema_of(
    "public.items",
    (("a", "integer", Int(32)), ("note", "text", Text()), ("b", "text", Text()), ("large", "text", Text())),
    key=("a", "b"),
)
BAG = schema_of(
    "public.lines",
    (("note", "text", Text()), ("large", "text", Text())),
    key=(),
    identity=RowIdentity.FULL_ROW,
)

Row = dict[str, Any]
Key = tuple[str, str]


class Intent(NamedTuple):
    """What a source would like to do; what it can't do as things stand, it leaves."""

    kind: str
    pick: int
    key: Key
    note: str | None
    keeps_large: bool


keys = st.tuples(st.sampled_from("123"), st.sampled_from(["x", "", "y'\"\\,\n"]))
notes = st.sampled_from([None, "", "n", "\\N", '"', "ä\t\r\n"])
kinds = st.sampled_from(["insert", "insert", "update", "update", "move", "move", "delete"])
intents = st.builds(Intent, kinds, st.integers(0, 5), keys, notes, st.booleans())
programs = st.lists(intents, max_size=14)


@dataclass
class Thing:
    """One object at the source, with what a lake user has written beside its copy."""

    row: Row
    mine: str | None = None


@dataclass
class KeyedSource:
    """A table with a key.

    Args:
        deferred: its key is checked at the end of a batch only, and it sends whole old rows.
    """

    deferred: bool = False
    things: list[Thing] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    _count: int = 0

    def run(self, program: list[Intent]) -> list[Change]:
        """Return the program's changes, as one batch."""
        changes = [change for intent in program if (change := self._step(intent))]
        while doubled := [t for i, t in enumerate(self.things) if _key(t.row) in map(_of_thing, self.things[:i])]:
            self.things.remove(doubled[0])
            self._count_as("delete of a doubled key")
            changes.append(delete(dict(doubled[0].row), whole=True))
        return changes

    def expected(self) -> dict[Key, tuple[Row, str | None]]:
        return {_key(thing.row): (thing.row, thing.mine) for thing in self.things}

    def _step(self, intent: Intent) -> Change | None:
        is_free = self.deferred or intent.key not in map(_of_thing, self.things)
        if intent.kind == "insert" and is_free:
            row = {"a": intent.key[0], "b": intent.key[1], "note": self._note(intent), "large": f"large {self._next()}"}
            self.things.append(Thing(row))
            self._count_as("insert")
            return insert(**row)
        if intent.kind == "insert" or not self.things:
            return None
        thing = self.things[intent.pick % len(self.things)]
        if intent.kind == "delete":
            self.things = [other for other in self.things if other is not thing]
            self._count_as("delete")
            return delete(dict(thing.row) if self.deferred else _key_of(thing.row), whole=self.deferred)
        if intent.kind == "move" and not is_free:
            return None
        return self._update(thing, intent)

    def _update(self, thing: Thing, intent: Intent) -> Change:
        before = thing.row
        key = intent.key if intent.kind == "move" else _key(before)
        after = {"a": key[0], "b": key[1], "note": self._note(intent), "large": before["large"]}
        if not intent.keeps_large:
            after["large"] = f"large {self._next()}"
        thing.row = after
        moved = key != _key(before)
        self._count_as("move" if moved else "update", *(["unchanged"] if intent.keeps_large else []))
        sent = {**after, "large": UNCHANGED} if intent.keeps_large else dict(after)
        if self.deferred:
            return update(sent, dict(before), whole=True)
        return update(sent, _key_of(before) if moved else None)

    def _note(self, intent: Intent) -> str | None:
        # Rows that are equal in every column can't be told apart under a deferrable key, nor need they be.
        return f"note {self._next()}" if self.deferred else intent.note

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _count_as(self, *kinds: str) -> None:
        self.seen.update(kinds)


@dataclass
class BagSource:
    """A table without a key, whose source sends whole old rows."""

    rows: list[Row] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def run(self, program: list[Intent]) -> list[Change]:
        return [change for intent in program if (change := self._step(intent))]

    def _step(self, intent: Intent) -> Change | None:
        after = {"note": intent.note, "large": intent.key[0]}
        if intent.kind in ("insert", "move"):
            self.rows.append(after)
            self.seen["insert"] += 1
            return insert(**after)
        if not self.rows:
            return None
        before = self.rows.pop(intent.pick % len(self.rows))
        if intent.kind == "delete":
            self.seen["delete"] += 1
            return delete(before, whole=True)
        if intent.keeps_large:
            after["large"] = before["large"]
        self.rows.append(after)
        self.seen["update"] += 1
        return update({**after, "large": UNCHANGED} if intent.keeps_large else after, before, whole=True)


def _key(row: Row) -> Key:
    return row["a"], row["b"]


def _key_of(row: Row) -> Row:
    return {"a": row["a"], "b": row["b"]}


def _of_thing(thing: Thing) -> Key:
    return _key(thing.row)
