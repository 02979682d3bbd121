"""How a connection to the source is opened, and what its errors become."""

from __future__ import annotations

import socket

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from cdc.errors import (
    CdcError,
    ConfigError,
    OperatorError,
    PrivilegeError,
    ServerSettingError,
    SourceUnavailableError,
)
from connectors.postgres.session import CANONICAL, conninfo, refusal, session, translate, translated

SECRETS = ("s3cret", "db.internal", "10.1.2.3", "/run/private")


def options_in(info: str) -> dict[str, str]:
    """Return the settings in a connection string's options, read as the server does: a backslash keeps a blank."""
    text = str(conninfo_to_dict(info)["options"])
    words = [word.replace("\0", " ") for word in text.replace("\\ ", "\0").split()]
    assert words[0::2] == ["-c"] * len(words[1::2])
    return dict(word.split("=", 1) for word in words[1::2])


def plainly(error: CdcError) -> str:
    """Return all that is said; nothing of it may be secret."""
    said = f"{error} {getattr(error, 'hint', '')}"
    assert not [secret for secret in SECRETS if secret in said]
    return str(error)


class TestConninfo:
    def test_every_setting_that_text_output_depends_on_is_fixed(self) -> None:
        assert options_in(conninfo("postgresql://u@h/d", application_name="cdc:shop")) == CANONICAL

    @pytest.mark.parametrize(
        "dsn",
        [
            "postgresql://u@h/d?options=-c%20statement_timeout%3D5s",
            "host=h user=u dbname=d options='-c statement_timeout=5s'",
        ],
    )
    def test_options_of_the_user_are_kept_before_ours(self, dsn: str) -> None:
        options = options_in(conninfo(dsn, application_name="cdc:shop"))
        assert options == {"statement_timeout": "5s", **CANONICAL}
        assert next(iter(options)) == "statement_timeout"

    def test_the_canonical_settings_win_over_the_users(self) -> None:
        dsn = "host=h options='-c DateStyle=German -c timezone=Europe/Vienna'"
        options = options_in(conninfo(dsn, application_name="cdc:shop"))
        assert options["timezone"] == "UTC", "the last one counts"
        assert list(options).index("DateStyle") < list(options).index("datestyle")

    def test_everything_else_in_the_dsn_is_kept(self) -> None:
        dsn = "postgresql://u:pass%20word@h1,h2:5433/d?sslmode=verify-full&connect_timeout=3&keepalives_idle=7"
        given = conninfo_to_dict(conninfo(dsn, application_name="cdc:shop", replication="database"))
        assert given["password"] == "pass word"
        assert given["host"] == "h1,h2"
        assert (given["sslmode"], given["connect_timeout"], given["keepalives_idle"]) == ("verify-full", "3", "7")
        assert given["replication"] == "database"

    def test_name_encoding_and_keepalives_are_ours(self) -> None:
        dsn = "host=h application_name=theirs client_encoding=LATIN1"
        given = conninfo_to_dict(conninfo(dsn, application_name="cdc:shop"))
        assert (given["application_name"], given["client_encoding"]) == ("cdc:shop", "UTF8")
        assert (given["connect_timeout"], given["keepalives_idle"], given["tcp_user_timeout"]) == ("10", "30", "60000")

    @pytest.mark.parametrize("dsn", ["mysql://u:s3cret@10.1.2.3/d", "nonsense s3cret", "host=h nosuchkey=s3cret"])
    def test_what_libpq_cannot_read_is_a_configuration_error_without_the_dsn(self, dsn: str) -> None:
        with pytest.raises(ConfigError) as raised:
            conninfo(dsn, application_name="cdc:shop")
        assert plainly(raised.value).startswith("url: expected")


AT = 'connection to server at "db.internal" (10.1.2.3), port 5432 failed: '
IN = 'connection to server on socket "/run/private/.s.PGSQL.5432" failed: '
REFUSED = {
    # As PostgreSQL 15 and 18 and libpq 17 say them.
    "no replication privilege, 16 and later": (
        (
            f"{AT}FATAL:  permission denied to start WAL sender\n"
            "DETAIL:  Only roles with the REPLICATION attribute may start a WAL sender process."
        ),
        PrivilegeError,
        "source: permission denied to start WAL sender",
    ),
    "no replication privilege, before 16": (
        f"{AT}FATAL:  must be superuser or replication role to start walsender",
        PrivilegeError,
        "source: must be superuser or replication role to start walsender",
    ),
    "pg_hba": (
        f'{AT}FATAL:  no pg_hba.conf entry for host "10.1.2.3", user "u", database "d", no encryption',
        PrivilegeError,
        "source: pg_hba.conf refuses the connection",
    ),
    "pg_hba for replication": (
        f'{AT}FATAL:  no pg_hba.conf entry for replication connection from host "10.1.2.3", user "u", no encryption',
        PrivilegeError,
        "source: pg_hba.conf refuses the connection",
    ),
    "wal senders": (
        f'{IN}FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 10)',
        ServerSettingError,
        'source: number of requested standby connections exceeds "max_wal_senders" (currently 10)',
    ),
    "wrong password": (
        f'{AT}FATAL:  password authentication failed for user "u"',
        OperatorError,
        "source: the server refuses the login",
    ),
    "no password": (
        f"{AT}fe_sendauth: no password supplied",
        OperatorError,
        "source: the server refuses the login",
    ),
    "peer": (
        f'{IN}FATAL:  Peer authentication failed for user "u"',
        OperatorError,
        "source: the server refuses the login",
    ),
    "no such role": (
        f'{AT}FATAL:  role "replication_user" does not exist',
        OperatorError,
        'source: role "replication_user" does not exist',
    ),
    "no such database": (
        f'{AT}FATAL:  database "d" does not exist',
        OperatorError,
        'source: database "d" does not exist',
    ),
    "nobody listens": (
        f"{AT}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        SourceUnavailableError,
        "source: Connection refused",
    ),
    "nobody listens at several": (
        (
            f"connection failed: {AT}Connection refused\n\tIs the server running on that host?\n"
            "Multiple connection attempts failed. All failures were:\n"
            f"- host: 'db.internal', port: '1', hostaddr: '10.1.2.3': connection failed: {AT}Connection refused\n"
            "\tIs the server running on that host?"
        ),
        SourceUnavailableError,
        "source: Connection refused",
    ),
    "no socket": (
        f"connection is bad: {IN}No such file or directory\n\tIs the server running locally?",
        SourceUnavailableError,
        "source: No such file or directory",
    ),
    "starting up": (
        f"{AT}FATAL:  the database system is starting up",
        SourceUnavailableError,
        "source: the database system is starting up",
    ),
    "no such host": (
        'could not translate host name "db.internal" to address: Name or service not known',
        SourceUnavailableError,
        "source: the host's name can't be resolved",
    ),
    "no such host, psycopg": (
        "failed to resolve host 'db.internal': [Errno -2] Name or service not known",
        SourceUnavailableError,
        "source: the host's name can't be resolved",
    ),
    "hung up": (
        (
            "consuming input failed: server closed the connection unexpectedly\n"
            "\tThis probably means the server terminated abnormally\n\tbefore or while processing the request."
        ),
        SourceUnavailableError,
        "source: server closed the connection unexpectedly",
    ),
    "nothing": ("", SourceUnavailableError, "source: no reason given"),
    "blanks": (" \n\t\n", SourceUnavailableError, "source: no reason given"),
}


@pytest.mark.parametrize(("message", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_refused_connection_says_why_and_not_where(message: str, kind: type[CdcError], said: str) -> None:
    error = refusal(message)
    assert type(error) is kind
    assert plainly(error) == said


@pytest.mark.parametrize(("message", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_psycopgs_words_about_it_hold_no_secret_either(message: str, kind: type[CdcError], said: str) -> None:
    error = translate(psycopg.OperationalError(message))
    assert type(error) is kind
    assert plainly(error) == said


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (pg.InsufficientPrivilege("permission denied for table orders"), PrivilegeError),
        (pg.InvalidPassword("password authentication failed"), OperatorError),
        (pg.InvalidAuthorizationSpecification("no such role"), OperatorError),
        (pg.InvalidCatalogName('database "d" does not exist'), OperatorError),
        (pg.AdminShutdown("terminating connection"), SourceUnavailableError),
        (pg.QueryCanceled("canceling statement due to statement timeout"), SourceUnavailableError),
        (pg.TooManyConnections("sorry, too many clients already"), SourceUnavailableError),
        (pg.IoError("could not read block"), SourceUnavailableError),
        (pg.InternalError_("cache lookup failed"), SourceUnavailableError),
        (pg.UndefinedTable('relation "x" does not exist'), OperatorError),
        (pg.InsufficientPrivilege(), PrivilegeError),
        (psycopg.OperationalError(), SourceUnavailableError),
        (psycopg.InterfaceError("the connection is closed"), SourceUnavailableError),
    ],
)
def test_each_of_psycopgs_errors_has_its_class(raised: psycopg.Error, kind: type[CdcError]) -> None:
    assert type(translate(raised)) is kind
    with pytest.raises(kind), translated():
        raise raised


def test_an_errors_further_lines_are_left_out() -> None:
    error = pg.UndefinedFunction("function f(int) does not exist\nLINE 1: SELECT f('s3cret')\nHINT: ...")
    assert plainly(translate(error)) == "source: function f(int) does not exist"


def test_other_exceptions_pass_unchanged() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("x")


def test_a_port_where_nobody_listens_is_unavailable_without_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dsn = f"host=127.0.0.1 port={taken.getsockname()[1]} user=u password=s3cret"
        with pytest.raises(SourceUnavailableError) as raised, session(dsn, application_name="cdc:shop"):
            pass
    assert plainly(raised.value) == "source: Connection refused"
    assert "127.0.0.1" not in str(raised.value)
