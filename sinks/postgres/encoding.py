"""Arrow string columns as the CSV that COPY reads. Pure.

Every value is quoted and NULL is an unquoted nothing, so that an empty string stays one; quotes are doubled, and all
else (tabs, newlines, backslashes) travels as it is.

Spec: PostgreSQL 18, "COPY", CSV Format, https://www.postgresql.org/docs/18/sql-copy.html
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pyarrow import csv

_OPTIONS = csv.WriteOptions(include_header=False, quoting_style="all_valid", batch_size=65_536)


def to_csv(columns: Mapping[str, pa.Array]) -> memoryview:
    """Return the columns, all pa.string() of one length, as CSV in the mapping's order."""
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    out = pa.BufferOutputStream()
    csv.write_csv(rows, out, _OPTIONS)
    return memoryview(out.getvalue())
