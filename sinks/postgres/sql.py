"""Quoting, and the statements of the hot path. Pure: names in, SQL text out.

Values never become part of a statement: they are parameters or COPY data. Statements are text whose every name went
through ``identifier``; ``%`` is doubled where parameters are bound, as psycopg demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from cdc.schema import TableId

OLD_PREFIX = "cdc:old:"
"""Begins the names of stage columns with old values; no source has columns with such names."""

LIFTED = "pg_temp.cdc_lifted"
"""Rows whose new keys are other rows' old ones wait here, all their columns, until those are out of the way."""

_EQUALS = "OPERATOR(pg_catalog.=)"
_IMAGE, _NTH = '"cdc:image"', '"cdc:nth"'
_PAIRS = f"s JOIN held ON held.{_IMAGE} = s.{_IMAGE} AND held.{_NTH} = s.{_NTH}"


def identifier(name: str) -> str:
    """Return the name quoted."""
    return sql.Identifier(name).as_string(None)


def literal(text: str) -> str:
    """Return the text as a string constant, whatever ``standard_conforming_strings`` is."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def table_name(table: TableId) -> str:
    """Return the qualified name quoted."""
    return sql.Identifier(table.schema, table.name).as_string(None)


def listed(names: Iterable[str], prefix: str = "") -> str:
    """Return the names quoted, with commas, each after ``prefix``."""
    return ", ".join(prefix + identifier(name) for name in names)


def old_name(index: int) -> str:
    """Return the stage column of the ``index``-th column's old value."""
    return f"{OLD_PREFIX}{index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSql:
    """Statements for one lake table.

    Attributes:
        columns: the source's columns, in the source's order.
        key: those that make up the key; empty without one.
        stage: quoted name of the session's stage table.
        equals: by key column, its type's ``=`` where that isn't a built-in type's: the search path is pinned.
    """

    target: TableId
    columns: Sequence[str]
    key: Sequence[str]
    stage: str
    equals: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """The quoted lake table."""
        return table_name(self.target)

    @property
    def matched(self) -> Sequence[str]:
        """The columns whose old values find a row: the key, or without one all."""
        return self.key or self.columns

    def create_stage(self) -> str:
        """Create the stage: the source's columns and old values of ``matched``, typed as in the lake.

        ON COMMIT DELETE ROWS empties it without a trace in the catalog.
        """
        old = ", ".join(f"{identifier(name)} AS {identifier(old_name(i))}" for i, name in enumerate(self.matched))
        return (
            f"CREATE TEMPORARY TABLE {self.stage} ON COMMIT DELETE ROWS AS"
            f" SELECT {listed(self.columns)}, {old} FROM {self.table} WITH NO DATA"
        )

    def copy_csv(self, names: Sequence[str], *, staged: bool) -> str:
        """Copy these columns as CSV into the stage or the table."""
        return f"COPY {self.stage if staged else self.table} ({listed(names)}) FROM STDIN (FORMAT csv)"

    def upsert(self, names: Sequence[str]) -> str:
        """Insert the stage's rows, or set these columns where the key exists."""
        return (
            f"INSERT INTO {self.table} ({listed(names)}) SELECT {listed(names)} FROM {self.stage}"
            f" ON CONFLICT ({listed(self.key)}) {self._on_conflict(names)}"
        )

    def upsert_different(self, names: Sequence[str]) -> str:
        """Upsert the stage's rows, leaving alone those that are the same; compared as text, which every type has."""
        changed = [name for name in names if name not in self.key]
        if not changed:
            return self.upsert(names)
        had, has = (", ".join(f"{side}.{identifier(name)}::text" for name in names) for side in ("t", "EXCLUDED"))
        return (
            f"INSERT INTO {self.table} AS t ({listed(names)}) SELECT {listed(names)} FROM {self.stage}"
            f" ON CONFLICT ({listed(self.key)}) {self._on_conflict(names)} WHERE ROW({had}) IS DISTINCT FROM ROW({has})"
        )

    def insert(self, names: Sequence[str]) -> str:
        """Insert the stage's rows."""
        return f"INSERT INTO {self.table} ({listed(names)}) SELECT {listed(names)} FROM {self.stage}"

    def insert_missing(self, names: Sequence[str]) -> str:
        """Insert those of the stage's rows whose key the table lacks."""
        return f"{self.insert(names)} ON CONFLICT ({listed(self.key)}) DO NOTHING"

    def delete(self) -> str:
        """Delete the rows whose keys are in the stage."""
        return f"DELETE FROM {self.table} AS t USING {self.stage} AS s WHERE {self._same_key(self.key)}"

    def delete_others(self) -> str:
        """Delete the rows whose keys aren't in the stage."""
        return (
            f"DELETE FROM {self.table} AS t WHERE NOT EXISTS"
            f" (SELECT FROM {self.stage} AS s WHERE {self._same_key(self.key)})"
        )

    def delete_all(self) -> str:
        """Delete every row."""
        return f"DELETE FROM {self.table}"

    def patch(self, names: Sequence[str]) -> str:
        """Set these columns in the rows whose keys are in the stage."""
        return (
            f"UPDATE {self.table} AS t SET {self._assignments(names)} FROM {self.stage} AS s"
            f" WHERE {self._same_key(self.key)}"
        )

    def move(self, names: Sequence[str]) -> str:
        """Set these columns, the key's among them, in the rows whose keys are the stage's old ones."""
        return (
            f"UPDATE {self.table} AS t SET {self._assignments(names)} FROM {self.stage} AS s"
            f" WHERE {self._same_key(self._old_key())}"
        )

    def create_lifted(self, columns: Sequence[str]) -> str:
        """Create the place for rows on their way; ``columns``: all of the table's that can be written."""
        create = f"CREATE TEMPORARY TABLE {LIFTED} ON COMMIT DROP"
        return f"{create} AS SELECT {listed(columns)} FROM {self.table} WITH NO DATA"

    def lift(self, names: Sequence[str], columns: Sequence[str]) -> str:
        """Take the rows whose keys are the stage's old ones out of the table, with these columns set anew."""
        values = ", ".join(f"{'s' if name in names else 't'}.{identifier(name)}" for name in columns)
        return (
            f"WITH lifted AS (DELETE FROM {self.table} AS t USING {self.stage} AS s"
            f" WHERE {self._same_key(self._old_key())} RETURNING {values})"
            f" INSERT INTO {LIFTED} ({listed(columns)}) SELECT * FROM lifted"
        )

    def lift_missing(self, names: Sequence[str]) -> str:
        """Add the stage's rows that the table lacked."""
        return (
            f"INSERT INTO {LIFTED} ({listed(names)}) SELECT {listed(names)} FROM {self.stage} AS s"
            f" WHERE NOT EXISTS (SELECT FROM {LIFTED} AS t WHERE {self._same_key(self.key)})"
        )

    def put_back(self, columns: Sequence[str]) -> str:
        """Put the rows into the table again."""
        return (
            f"INSERT INTO {self.table} ({listed(columns)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {listed(columns)} FROM {LIFTED}"
        )

    def lock(self) -> str:
        """Keep other writers off until the transaction ends; readers go on."""
        return f"LOCK TABLE {self.table} IN SHARE ROW EXCLUSIVE MODE"

    def delete_equal(self) -> str:
        """Delete for each of the stage's old rows one that equals it."""
        return f"{self._equal_rows()} DELETE FROM {self.table} AS t USING {_PAIRS} WHERE t.ctid = held.place"

    def update_equal(self, names: Sequence[str]) -> str:
        """Set for each of the stage's old rows these columns in one row that equals it."""
        return (
            f"{self._equal_rows()} UPDATE {self.table} AS t SET {self._assignments(names)}"
            f" FROM {_PAIRS} WHERE t.ctid = held.place"
        )

    def _equal_rows(self) -> str:
        """Pair the stage's old rows with the table's equal ones, the nth of each kind with the nth.

        Rows are equal if their source columns' text is: exact, and defined for types that have no ``=``.
        """
        old = ", ".join(f"s.{identifier(old_name(i))}::text" for i in range(len(self.matched)))
        held = ", ".join(f"t.{identifier(name)}::text" for name in self.matched)
        nth = f"row_number() OVER (PARTITION BY {_IMAGE}) AS {_NTH}"
        return (
            f"WITH s AS (SELECT *, {nth} FROM (SELECT s.*, ROW({old})::text AS {_IMAGE} FROM {self.stage} AS s) AS s),"
            f" held AS (SELECT place, {_IMAGE}, {nth} FROM (SELECT t.ctid AS place, ROW({held})::text AS {_IMAGE}"
            f" FROM {self.table} AS t) AS t WHERE {_IMAGE} IN (SELECT {_IMAGE} FROM s))"
        )

    def one_upsert(self, names: Sequence[str]) -> str:
        """Upsert one row; parameters: the columns' values."""
        return _bound(
            f"INSERT INTO {self.table} ({listed(names)})",
            f"VALUES ({', '.join(['%s'] * len(names))})",
            f"ON CONFLICT ({listed(self.key)}) {self._on_conflict(names)}",
        )

    def one_insert(self, names: Sequence[str]) -> str:
        """Insert one row; parameters: the columns' values."""
        return _bound(f"INSERT INTO {self.table} ({listed(names)})", f"VALUES ({', '.join(['%s'] * len(names))})")

    def one_delete(self) -> str:
        """Delete one row; parameters: the key."""
        return _bound(f"DELETE FROM {self.table} AS t WHERE", *self._key_parameters())

    def one_update(self, names: Sequence[str]) -> str:
        """Update one row that must exist: dividing by its count fails otherwise. Parameters: values, then the key."""
        parts = [f"WITH updated AS (UPDATE {self.table} AS t SET"]
        for i, name in enumerate(names):
            parts += [f"{', ' if i else ''}{identifier(name)} =", "%s"]
        return _bound(
            *parts, "WHERE", *self._key_parameters(), "RETURNING 1)", "SELECT 1 / pg_catalog.count(*) FROM updated"
        )

    def _old_key(self) -> list[str]:
        return [old_name(i) for i in range(len(self.key))]

    def _key_parameters(self) -> list[str]:
        parts: list[str] = []
        for i, name in enumerate(self.key):
            parts += [f"{'AND ' if i else ''}t.{identifier(name)} {self.equals.get(name, _EQUALS)}", "%s"]
        return parts

    def _same_key(self, stage_names: Sequence[str]) -> str:
        return " AND ".join(
            f"t.{identifier(name)} {self.equals.get(name, _EQUALS)} s.{identifier(staged)}"
            for name, staged in zip(self.key, stage_names, strict=True)
        )

    def _assignments(self, names: Sequence[str]) -> str:
        return ", ".join(f"{identifier(name)} = s.{identifier(name)}" for name in names)

    def _on_conflict(self, names: Sequence[str]) -> str:
        changed = [name for name in names if name not in self.key]
        if not changed:
            return "DO NOTHING"
        return "DO UPDATE SET " + ", ".join(f"{identifier(name)} = EXCLUDED.{identifier(name)}" for name in changed)


def _bound(*parts: str) -> str:
    """Join parts of a statement with parameters: ``%`` is doubled in all but the placeholders."""
    return " ".join(part.replace("%", "%%") if not _is_placeholders(part) else part for part in parts)


def _is_placeholders(part: str) -> bool:
    return part == "%s" or part.startswith("VALUES (")
