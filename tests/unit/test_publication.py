"""From what the publications hold to what they should hold: the statements in between."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from catalog_tables import table_of

from cdc.contracts import Step
from cdc.schema import RowIdentity, TableId
from connectors.postgres.publication import Publication, PublicationNames, steps

NAMES = PublicationNames("cdc_shop", "cdc_shop_inserts")
ORDERS, ITEMS, LOGS = (TableId("public", name) for name in ("orders", "items", "logs"))
KEYED, WHOLE, APPENDED = table_of(ORDERS), table_of(ITEMS, RowIdentity.FULL_ROW), table_of(LOGS, RowIdentity.APPEND)


def publications(
    changes: Iterable[TableId] | None, inserts: Iterable[TableId] | None
) -> tuple[Publication, Publication]:
    """Return both publications with these members; None for one that doesn't exist."""

    def one(name: str, members: Iterable[TableId] | None) -> Publication:
        return Publication(name, members is not None, {table: n for n, table in enumerate(members or (), 1)})

    return one(NAMES.changes, changes), one(NAMES.inserts, inserts)


def created(name: str, events: str) -> str:
    return f"CREATE PUBLICATION {name} WITH (publish = '{events}', publish_via_partition_root = true)"


def sql_of(plan: list[Step]) -> list[str]:
    assert {step.where for step in plan} <= {"source"}
    assert all(step.summary for step in plan)
    return [step.sql for step in plan]


def test_at_first_both_are_created_and_filled() -> None:
    plan = steps(NAMES, publications(None, None), [KEYED, WHOLE, APPENDED], 170000)
    assert sql_of(plan) == [
        created('"cdc_shop"', "insert, update, delete, truncate"),
        created('"cdc_shop_inserts"', "insert, truncate"),
        'ALTER PUBLICATION "cdc_shop" ADD TABLE "public"."items", "public"."orders"',
        'ALTER PUBLICATION "cdc_shop_inserts" ADD TABLE "public"."logs"',
    ]


def test_both_are_created_even_if_one_stays_empty() -> None:
    plan = steps(NAMES, publications(None, None), [KEYED], 170000)
    assert [sql.split(" WITH ")[0] for sql in sql_of(plan)] == [
        'CREATE PUBLICATION "cdc_shop"',
        'CREATE PUBLICATION "cdc_shop_inserts"',
        'ALTER PUBLICATION "cdc_shop" ADD TABLE "public"."orders"',
    ]


@pytest.mark.parametrize(("version", "sent"), [(130000, False), (179999, False), (180000, True), (190000, True)])
def test_stored_generated_columns_are_published_where_the_server_can(version: int, sent: bool) -> None:
    created = [sql for sql in sql_of(steps(NAMES, publications(None, None), [KEYED], version)) if "CREATE" in sql]
    assert len(created) == 2
    assert all(("publish_generated_columns = stored" in sql) == sent for sql in created)


def test_nothing_is_done_where_nothing_is_to_do() -> None:
    assert steps(NAMES, publications([ORDERS, ITEMS], [LOGS]), [KEYED, WHOLE, APPENDED], 180000) == []
    assert steps(NAMES, publications([], []), [], 180000) == []


def test_only_what_is_missing_is_added_and_only_what_is_too_much_taken_out() -> None:
    plan = steps(NAMES, publications([ORDERS, TableId("old", "gone")], []), [KEYED, WHOLE], 180000)
    assert sql_of(plan) == [
        'ALTER PUBLICATION "cdc_shop" DROP TABLE "old"."gone"',
        'ALTER PUBLICATION "cdc_shop" ADD TABLE "public"."items"',
    ]
    assert [step.summary for step in plan] == [
        "publication cdc_shop: take out 1 table: old.gone",
        "publication cdc_shop: add 1 table: public.items",
    ]


def test_a_table_that_lost_its_key_leaves_one_publication_before_it_enters_the_other() -> None:
    plan = steps(NAMES, publications([ORDERS], []), [table_of(ORDERS, RowIdentity.APPEND)], 180000)
    assert sql_of(plan) == [
        'ALTER PUBLICATION "cdc_shop" DROP TABLE "public"."orders"',
        'ALTER PUBLICATION "cdc_shop_inserts" ADD TABLE "public"."orders"',
    ]


def test_a_table_that_got_a_key_moves_the_other_way_and_is_never_in_both() -> None:
    plan = steps(NAMES, publications([], [ORDERS]), [KEYED], 180000)
    assert sql_of(plan) == [
        'ALTER PUBLICATION "cdc_shop_inserts" DROP TABLE "public"."orders"',
        'ALTER PUBLICATION "cdc_shop" ADD TABLE "public"."orders"',
    ]


def test_doing_what_is_planned_leaves_nothing_to_plan() -> None:
    """The steps, applied to a model of the publications."""
    current = publications([ORDERS, TableId("old", "gone")], [ITEMS])
    members = {publication.name: set(publication.members) for publication in current}
    by_text = {f'"{table.schema}"."{table.name}"': table for table in (ORDERS, ITEMS, LOGS, TableId("old", "gone"))}
    for step in steps(NAMES, current, [KEYED, WHOLE, APPENDED], 180000):
        _, _, name, verb, _, listed = step.sql.split(" ", 5)
        tables = {by_text[text] for text in listed.split(", ")}
        at = members[name.strip('"')]
        assert (at.isdisjoint(tables)) if verb == "ADD" else (tables <= at)
        at ^= tables
    after = publications(members[NAMES.changes], members[NAMES.inserts])
    assert steps(NAMES, after, [KEYED, WHOLE, APPENDED], 180000) == []


def test_odd_names_are_quoted() -> None:
    names = PublicationNames('my "pub', "b'; DROP TABLE x; --")
    odd = table_of(TableId("a.b", 'c"d e'))
    current = (Publication(names.changes, True, {}), Publication(names.inserts, False, {}))
    assert sql_of(steps(names, current, [odd], 170000)) == [
        created('"b\'; DROP TABLE x; --"', "insert, truncate"),
        'ALTER PUBLICATION "my ""pub" ADD TABLE "a.b"."c""d e"',
    ]
