"""Log sequence numbers (LSN): byte positions in the server's write-ahead log, as unsigned 64-bit integers.

Spec: PostgreSQL 18, "pg_lsn Type", https://www.postgresql.org/docs/18/datatype-pg-lsn.html
"""

from __future__ import annotations

import re

from cdc.errors import DecodeError

# ASCII only: \d and int() would also take other scripts' digits, and int() an underscore.
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


def format_lsn(lsn: int) -> str:
    """Return the server's own text: upper and lower 32 bits in hex, without leading zeros, as in ``0/16B3748``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read what ``format_lsn`` or the server wrote; leading zeros and lower case are accepted.

    Raises:
        DecodeError: the text isn't two numbers of 1 to 8 hex digits with a slash between them.
    """
    match = _LSN.fullmatch(text)
    if match is None:
        raise DecodeError(f"LSN: expected hex digits, a slash and hex digits, got {text!r}")
    return int(match[1], 16) << 32 | int(match[2], 16)
