"""What the engine does, appended to the audit trail; a trail that can't be reached never stops the stream."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from cdc.errors import CdcError
from cdc.state import StateStore

log = logging.getLogger(__name__)


class Journal:
    """The engine's side of the audit trail. Thread-safe."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._lock = Lock()
        self._installed = False

    def note(self, action: str, subject: str, **detail: Any) -> None:
        """Append an entry; where that fails, log it instead.

        Args:
            action: a short word, as in ``start`` or ``copied``.
            subject: to what, as in ``shop`` or ``shop public.orders``.
            detail: plain JSON values; never a cell's value or a secret.
        """
        try:
            with self._lock:
                if not self._installed:
                    self._store.install()
                    self._installed = True
                self._store.record(action, subject, detail)
        except (SQLAlchemyError, CdcError) as error:
            log.warning("audit trail: %s of %s isn't in it: %s", action, subject, type(error).__name__)
