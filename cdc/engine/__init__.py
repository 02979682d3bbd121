"""The engine: every source's threads in one process, its endpoints, and an orderly end.

``runner`` keeps one source flowing; it puts together ``copying`` (initial copies), ``handover`` (room for one group
between two threads) and ``apply`` (topology and acknowledgement) over one book of ``tables``.
"""

from __future__ import annotations

from cdc.engine.process import Engine

__all__ = ["Engine"]
