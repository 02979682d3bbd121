"""Content-addressed schema ids: two schemas have the same id exactly if they are equal."""

from __future__ import annotations

import hashlib

import orjson

from cdc.schema import TableSchema


def schema_id(schema: TableSchema) -> str:
    """Return the first 16 hex digits of the SHA-256 of the schema's JSON form with sorted keys."""
    return hashlib.sha256(orjson.dumps(schema.to_json(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
