"""Every error the engine raises, arranged by what the reader should do about it.

::

    CdcError
    ├── RetryableError             wait and try again: nothing is wrong with the data or the configuration
    │   ├── SourceUnavailableError
    │   ├── SinkUnavailableError
    │   └── LocalDiskError
    ├── OperatorError              a person must act; ``hint`` says how
    │   ├── ConfigError            the configuration file or the command line is wrong
    │   ├── PrivilegeError         a role lacks a privilege
    │   ├── ServerSettingError     a server is configured in a way that makes the work impossible
    │   ├── SlotInUseError         somebody else reads this replication slot
    │   ├── SlotLostError          the log that we still need is gone
    │   ├── PublicationError       our publication is missing or was changed
    │   ├── IdentityMismatchError  another server answers behind the same address
    │   └── FencedError            another engine has moved this source's position
    └── DataError                  one table stops, the others go on
        ├── DecodeError            the bytes are not what the protocol says
        ├── SchemaChangedError     the rows no longer fit the table that the lake holds
        └── ApplyRefusedError      the lake refuses the rows (a constraint, a type, a privilege)

Wording is ``subject: expected X, got Y, at place``; no message holds a cell's value, a password or a DSN.
All of them survive pickling with their fields.
"""

from __future__ import annotations

from typing import Any


class CdcError(Exception):
    """Root of the tree; never raised itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[CdcError], args: tuple[Any, ...], fields: dict[str, Any]) -> CdcError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class RetryableError(CdcError):
    """The same call may succeed later.

    Args:
        retry_after_seconds: the least time to wait, or None to leave it to the retry policy.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SourceUnavailableError(RetryableError):
    """The source can't be reached, or hung up."""


class SinkUnavailableError(RetryableError):
    """The lake can't be reached, hung up, or has no room at the moment."""


class LocalDiskError(RetryableError):
    """This machine's disk has no room for what doesn't fit into memory."""


class OperatorError(CdcError):
    """A person must act.

    Args:
        hint: what to do, as a command or statement where there is one.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(OperatorError):
    """The configuration is wrong.

    Args:
        path: where, as in ``sources.shop.rpo``; empty for the file as a whole.
    """

    def __init__(self, message: str, *, hint: str, path: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class PrivilegeError(OperatorError):
    """A role lacks a privilege."""


class ServerSettingError(OperatorError):
    """A server's setting or version makes the work impossible."""


class SlotInUseError(OperatorError):
    """Somebody else reads the replication slot."""


class SlotLostError(OperatorError):
    """The log between the stored position and the source's oldest is gone."""


class PublicationError(OperatorError):
    """The publication is missing or doesn't hold what it should."""


class IdentityMismatchError(OperatorError):
    """The server isn't the one that the stored position belongs to."""


class FencedError(OperatorError):
    """Another engine has moved this source's position in the lake."""


class DataError(CdcError):
    """One table can't go on.

    Args:
        table: the source table's qualified name, or None where it isn't known.
    """

    def __init__(self, message: str, *, table: str | None = None) -> None:
        super().__init__(message)
        self.table = table


class DecodeError(DataError):
    """Bytes from a source don't follow its protocol."""


class SchemaChangedError(DataError):
    """A table's rows no longer fit the schema that its lake copy was made for."""


class ApplyRefusedError(DataError):
    """The lake refuses a table's rows."""
