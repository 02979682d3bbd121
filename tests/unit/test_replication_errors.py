"""What the server's refusals of replication become, and which server is the right one."""

from __future__ import annotations

import pytest
from psycopg.pq import DiagnosticField

from cdc.errors import (
    CdcError,
    IdentityMismatchError,
    OperatorError,
    PrivilegeError,
    PublicationError,
    ServerSettingError,
    SlotInUseError,
    SlotLostError,
    SourceUnavailableError,
)
from connectors.postgres.copyboth import result_failure
from connectors.postgres.replication import SystemIdentity, guard_identity


class EndedResult:
    """The part of libpq's result that says how a command ended."""

    def __init__(self, state: str | None, message: str | None) -> None:
        self._fields = {DiagnosticField.SQLSTATE: state, DiagnosticField.MESSAGE_PRIMARY: message}

    def error_field(self, field: DiagnosticField) -> bytes | None:
        text = self._fields[field]
        return None if text is None else text.encode()

    def get_error_message(self) -> str:
        return "server closed the connection unexpectedly\n"


def failure(state: str | None, message: str | None) -> CdcError:
    return result_failure(EndedResult(state, message))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "message", "kind"),
    [
        ("55006", 'replication slot "cdc_shop" is active for PID 4711', SlotInUseError),
        ("55000", "logical decoding requires wal_level >= logical", ServerSettingError),
        ("55000", 'can no longer get changes from replication slot "cdc_shop"', SlotLostError),
        ("55000", 'cannot read from logical replication slot "cdc_shop"', SlotLostError),
        ("58P01", "requested WAL segment 000000010000000000000001 has already been removed", SlotLostError),
        ("42704", 'replication slot "cdc_shop" does not exist', SlotLostError),
        ("42704", 'replication slot "publication" does not exist', SlotLostError),
        ("42704", 'publication "cdc_shop" does not exist', PublicationError),
        ("42704", 'publication "my_slot" does not exist', PublicationError),
        ("42501", "permission denied to use replication slots", PrivilegeError),
        ("42601", "syntax error", ServerSettingError),
        ("22023", "client sent proto_version=4 but server only supports protocol 3 or lower", ServerSettingError),
        ("0A000", "requested proto_version=1 does not support streaming", ServerSettingError),
        ("57P01", "terminating connection due to administrator command", SourceUnavailableError),
        ("57P03", "the database system is shutting down", SourceUnavailableError),
        ("55000", "something else", SourceUnavailableError),
        ("53100", "could not write to file: No space left on device", SourceUnavailableError),
        (None, None, SourceUnavailableError),
    ],
)
def test_each_way_in_which_the_server_ends_a_stream_has_its_error(
    state: str | None, message: str | None, kind: type[CdcError]
) -> None:
    error = failure(state, message)
    assert type(error) is kind
    assert str(error) == f"source: {message or 'server closed the connection unexpectedly'}"
    assert not isinstance(error, OperatorError) or error.hint


HERE = SystemIdentity("7300000000000000001", 3, 0x5000)


def guard(
    *, stored: str = HERE.system_identifier, timeline: int = 3, lsn: int = 0x4000, branch: int | None = None
) -> None:
    guard_identity(HERE, stored, timeline, lsn, branch)


def test_the_server_on_the_stored_timeline_is_the_right_one() -> None:
    guard()
    guard(lsn=0x6000)


@pytest.mark.parametrize("branch", [0x4000, 0x4001])
def test_a_promoted_server_that_has_all_that_was_applied_is_the_right_one(branch: int) -> None:
    guard(timeline=2, branch=branch)


def test_another_server_is_refused() -> None:
    with pytest.raises(IdentityMismatchError, match="expected the server with system identifier 1, got 73") as raised:
        guard(stored="1", branch=0x9000)
    assert "cdc tables resync" in raised.value.hint


def test_a_promoted_server_that_lacks_what_was_applied_is_refused() -> None:
    said = r"^source: expected timeline 2 or one that left it after 0/4000, got timeline 3 that left it at 0/3FFF$"
    with pytest.raises(IdentityMismatchError, match=said):
        guard(timeline=2, branch=0x3FFF)


@pytest.mark.parametrize("timeline", [1, 4])
def test_a_server_that_never_was_on_the_stored_timeline_is_refused(timeline: int) -> None:
    with pytest.raises(IdentityMismatchError, match=rf"expected timeline {timeline} .+, got timeline 3$"):
        guard(timeline=timeline)
