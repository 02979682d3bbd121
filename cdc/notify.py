"""Tells systemd how the process is: the notification protocol, through ``$NOTIFY_SOCKET``.

Spec: sd_notify(3), systemd 255, https://www.freedesktop.org/software/systemd/man/255/sd_notify.html. Without the
variable, or when nobody listens there, every function does nothing.
"""

from __future__ import annotations

import os
import socket


def ready() -> bool:
    """Say that start-up is over. Returns whether it was sent."""
    return _send("READY=1")


def stopping() -> bool:
    """Say that the process is about to end. Returns whether it was sent."""
    return _send("STOPPING=1")


def watchdog() -> bool:
    """Say that the process is alive; due more often than every ``watchdog_seconds()``. Returns whether it was sent."""
    return _send("WATCHDOG=1")


def status(text: str) -> bool:
    """Set the line that ``systemctl status`` shows. Returns whether it was sent."""
    return _send("STATUS=" + " ".join(text.split()))


def watchdog_seconds() -> float | None:
    """Return after how many seconds without ``watchdog()`` systemd kills us; None if it doesn't."""
    interval_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not interval_us.isdecimal() or int(interval_us) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(interval_us) / 1_000_000


def _send(message: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.setblocking(False)
            notifier.sendto(message.encode(), address)
    except OSError:
        return False
    return True
