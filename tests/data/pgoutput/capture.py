"""Write postgres-<version>.json beside this file: logical replication messages as a real server sends them.

    python tests/data/pgoutput/capture.py DIRECTORY_OF_SERVER_PROGRAMS [--user NAME]

Starts a server of its own in a temporary directory (on a Unix socket; as another user where this one is root), runs
each case's SQL, and reads the messages from a slot made just before. Each case's SQL and options are stored with them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq, sql

TABLES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE person (id int PRIMARY KEY, name text, mood mood, price numeric(12,2), big text);
ALTER TABLE person ALTER big SET STORAGE EXTERNAL;
CREATE TABLE whole (id int, name varchar(40), big text);
ALTER TABLE whole ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE indexed (id int, code char(4) NOT NULL, note text);
CREATE UNIQUE INDEX indexed_code ON indexed (code);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code;
CREATE TABLE nothing (note text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE long_key (id text PRIMARY KEY, n int);
ALTER TABLE long_key ALTER id SET STORAGE EXTERNAL;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE PUBLICATION everything FOR TABLE person, whole, indexed, long_key, parent, child;
CREATE PUBLICATION inserts FOR TABLE nothing WITH (publish = 'insert');
SELECT pg_replication_origin_create('elsewhere');
"""

ROWS = [
    "INSERT INTO person VALUES (1, 'Ada', 'glad', 12.50, repeat('x', 2100)), (2, 'Jürgen 🐘', NULL, NULL, '')",
    "UPDATE person SET name = 'Ada L.' WHERE id = 1",
    "UPDATE person SET id = 3 WHERE id = 1",
    "DELETE FROM person WHERE id = 2",
    "INSERT INTO whole VALUES (1, 'one', repeat('y', 2100)), (1, NULL, NULL)",
    "UPDATE whole SET name = 'two' WHERE big IS NOT NULL",
    "DELETE FROM whole WHERE name IS NULL",
    "INSERT INTO indexed VALUES (1, 'ab', 'note')",
    "UPDATE indexed SET code = 'cd'",
    "DELETE FROM indexed",
    "INSERT INTO nothing VALUES ('only inserts')",
    "INSERT INTO long_key VALUES (repeat('k', 2100), 1)",
    "UPDATE long_key SET n = 2",
    "ALTER TABLE person ADD COLUMN late date DEFAULT '2024-02-29'; INSERT INTO person (id) VALUES (9)",
    "TRUNCATE parent RESTART IDENTITY CASCADE",
    "TRUNCATE whole",
    "SELECT pg_logical_emit_message(true, 'prefix', 'in the transaction')",
    "SELECT pg_logical_emit_message(false, 'prefix', '\\x00ff'::bytea)",
    "SELECT pg_replication_origin_session_setup('elsewhere')",
    "BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCDEF', now()); INSERT INTO parent VALUES (1); COMMIT",
    "SELECT pg_replication_origin_session_reset()",
]

# Larger than logical_decoding_work_mem, which the server below sets to its least.
LARGE = "INSERT INTO parent SELECT generate_series({}, {})"

STREAMED = [
    "; ".join(
        [
            "BEGIN",
            LARGE.format(1000, 1500),
            "SAVEPOINT s",
            LARGE.format(2000, 2500),
            "ROLLBACK TO s",
            "ALTER TABLE person ADD COLUMN streamed mood",
            "INSERT INTO person (id, streamed) VALUES (70, 'sad')",
            "TRUNCATE whole",
            "SELECT pg_logical_emit_message(true, 'prefix', 'in a stream')",
            LARGE.format(3000, 3500),
            "COMMIT",
        ]
    )
]

PREPARED = [
    "BEGIN; INSERT INTO parent VALUES (5); PREPARE TRANSACTION 'the first'",
    "COMMIT PREPARED 'the first'",
    "BEGIN; INSERT INTO parent VALUES (6); PREPARE TRANSACTION 'the second'",
    "ROLLBACK PREPARED 'the second'",
    f"BEGIN; {LARGE.format(6000, 6500)}; PREPARE TRANSACTION 'the large one'",
    "COMMIT PREPARED 'the large one'",
]

CASES: list[dict[str, Any]] = [
    {"name": "rows", "options": {"proto_version": "1"}, "sql": ROWS},
    {"name": "streaming", "options": {"proto_version": "2", "streaming": "on"}, "sql": STREAMED},
    {"name": "two-phase", "options": {"proto_version": "3", "streaming": "on", "two_phase": "on"}, "sql": PREPARED},
    {"name": "parallel", "options": {"proto_version": "4", "streaming": "parallel"}, "sql": STREAMED, "from": 160000},
]


def capture_case(connection: psycopg.Connection[Any], case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in an empty database and return it with its messages as hex."""
    connection.execute(TABLES)
    two_phase = "two_phase" in case["options"]
    slot = case["name"].replace("-", "_")
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)", [slot, two_phase])
    for statement in case["sql"]:
        connection.execute(statement)
    options = {"publication_names": "everything,inserts", "messages": "true", **case["options"]}
    pairs = [text for pair in options.items() for text in pair]
    messages = connection.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, VARIADIC %s)", [slot, pairs]
    ).fetchall()
    frames = capture_frames(connection, slot, options) if case["name"] == "rows" else []
    connection.execute("SELECT pg_replication_origin_drop('elsewhere')")
    return {
        "name": case["name"],
        "options": options,
        "sql": case["sql"],
        "messages": [data.hex() for (data,) in messages],
        "frames": [frame.hex() for frame in frames],
    }


def capture_frames(connection: psycopg.Connection[Any], slot: str, options: dict[str, str]) -> list[bytes]:
    """Return the first frames of the streaming protocol: a keepalive, then messages with their header."""
    pairs = [sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items()]
    start = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(
        sql.Identifier(slot), sql.SQL(", ").join(pairs)
    )
    stream = pq.PGconn.connect(f"{connection.info.dsn} user={connection.info.user} replication=database".encode())
    stream.exec_(start.as_bytes(connection))
    frames = []
    while len(frames) < 4:
        _, data = stream.get_copy_data(0)
        frames.append(bytes(data))
    stream.finish()
    return frames


def connect(home: Path, database: str) -> psycopg.Connection[Any]:
    """Connect to the server whose socket is in ``home``."""
    return psycopg.connect(host=str(home), user="golden", dbname=database, autocommit=True)


def main() -> None:
    """Capture every case that the server's version knows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path, help="directory that holds initdb and pg_ctl")
    parser.add_argument("--user", help="system user to run the server as; needed as root")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pgoutput-"))
    if arguments.user:
        shutil.chown(home, arguments.user)

    def program(name: str, *words: str) -> None:
        subprocess.run(
            [arguments.programs / name, *words], check=True, user=arguments.user, cwd=home, stdout=subprocess.DEVNULL
        )

    settings = {
        "wal_level": "logical",
        "listen_addresses": "",
        "unix_socket_directories": str(home),
        "max_prepared_transactions": "4",
        "logical_decoding_work_mem": "64kB",
        "fsync": "off",
    }
    program("initdb", "-D", "data", "-U", "golden", "-E", "UTF8", "--locale=C", "-A", "trust")
    words = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    program("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", words, "start")
    try:
        with connect(home, "postgres") as connection:
            server = connection.info.server_version
            version = connection.execute("SHOW server_version").fetchone()
            chosen = [case for case in CASES if case.get("from", 0) <= server]
            for case in chosen:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(case["name"])))
        cases = []
        for case in chosen:
            with connect(home, case["name"]) as connection:
                cases.append(capture_case(connection, case))
    finally:
        program("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(home)
    golden = {"server_version": version and version[0], "tables": TABLES.strip().splitlines(), "cases": cases}
    path = Path(__file__).with_name(f"postgres-{server // 10000}.json")
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
