"""The engine's own tables: installed idempotently, and the audit trail only ever grows."""

from __future__ import annotations

import threading

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from cdc.state import StateStore


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def engine(request, tmp_path):
    if request.param == "sqlite":
        made = create_engine(f"sqlite:///{tmp_path}/state.db", poolclass=NullPool)
    else:
        dsn = request.getfixturevalue("lake_dsn")
        made = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    yield made
    made.dispose()


def test_what_was_recorded_is_read_back_in_order(engine):
    store = StateStore(engine, actor="ann")
    store.install()
    store.install()
    store.record("resync", "shop public.orders", {"rows": 3})
    store.record("pause", "shop", {})
    entries = store.audit()
    assert [(e.actor, e.action, e.subject, e.detail) for e in entries] == [
        ("ann", "resync", "shop public.orders", {"rows": 3}),
        ("ann", "pause", "shop", {}),
    ]
    assert entries[0].at <= entries[1].at


def test_the_actor_is_the_systems_user_unless_said_otherwise(engine, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "operator")
    store = StateStore(engine)
    store.install()
    store.record("pause", "shop", {})
    assert store.audit()[0].actor == "operator"


@pytest.mark.servers
def test_installs_in_parallel_do_not_disturb_each_other(lake_dsn):
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(lake_dsn), poolclass=NullPool)
    threads = [threading.Thread(target=StateStore(engine, actor="ann").install) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert StateStore(engine).audit() == []
    engine.dispose()
