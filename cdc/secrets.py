"""Where secrets come from, and how texts that hold one are shown.

A configuration names secrets (``${SHOP_URL}``, ``file:/run/secrets/shop``) instead of holding them. Whatever is printed
goes through ``mask_dsn`` or ``redact``, which rather hide too much: a DSN that they don't fully understand is ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MASK = "***"

_REFERENCE = re.compile(r"\$(?:\$|\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^}]*))?\})?)")
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^@]*)?@)?"
    r"(?P<place>(?:[\w.%-]*|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?(?:,[\w.%-]+(?::[0-9]+)?)*(?:/[^@?#\s]*)?)"
    r"(?P<query>[?#][^@]*)?"
)
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s']+)")
_PAIRS = re.compile(rf"\s*(?:{_PAIR.pattern}\s*)+")
_SHOWN = ("host", "hostaddr", "port", "dbname", "user")
_SECRET_WORD = re.compile(r"pass|secret|token|key", re.IGNORECASE)


class UnsetVariableError(LookupError):
    """A text refers to an environment variable that isn't set; the argument is its name."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` by the variable, ``$$`` by ``$``; what was put in isn't read again.

    As in a shell, ``${NAME:-default}`` gives the default if the variable is unset or empty, ``${NAME-default}`` only
    if it is unset.

    Raises:
        UnsetVariableError: a variable is unset and has no default.
        ValueError: a ``${`` isn't followed by a name and a closing brace.
    """

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        if match[0] == "$$":
            return "$"
        if name is None:
            raise ValueError("expected ${NAME} or ${NAME:-default} (write $$ for a dollar sign)")
        found = environ.get(name)
        if found is None or (operator == ":-" and not found):
            if operator is None and found is None:
                raise UnsetVariableError(name)
            return str(default)
        return found

    return _REFERENCE.sub(value, text) if "$" in text else text


def read_secret(reference: str) -> str:
    """Return the stripped content of the file that ``file:/absolute/path`` names.

    Raises:
        ValueError: the path isn't absolute, or the file can't be read or holds nothing.
    """
    path = Path(reference.removeprefix("file:"))
    if not path.is_absolute():
        raise ValueError(f"expected an absolute path after file:, as in file:/run/secrets/{path.name or 'url'}")
    try:
        content = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"expected text in the file {path}, got other bytes") from None
    except OSError as error:
        raise ValueError(f"expected a secret in the file {path}, got: {error.strerror}") from None
    if not content:
        raise ValueError(f"expected a secret in the file {path}, got nothing")
    return content


def mask_dsn(dsn: str) -> str:
    """Return the DSN with scheme, user, hosts and database only; ``***`` stands for a password, or for all of it."""
    if url := _URL.fullmatch(dsn):
        user = f"{url['user']}{':' + MASK if url['password'] else ''}@" if url["user"] or url["password"] else ""
        return f"{url['scheme']}{user}{url['place']}"
    if _PAIRS.fullmatch(dsn):
        pairs = _PAIR.findall(dsn)
        shown = [f"{key}={value}" for key, value in pairs if key in _SHOWN]
        return " ".join([*shown, f"password={MASK}"] if any(key == "password" for key, _ in pairs) else shown)
    return MASK


def holds_secret(dsn: str) -> bool:
    """Return whether the DSN must not be written down: it holds a password, or isn't understood."""
    if dsn.startswith("file:"):
        return False
    if url := _URL.fullmatch(dsn):
        return bool(url["password"] or _SECRET_WORD.search(url["query"] or ""))
    if _PAIRS.fullmatch(dsn):
        return any(_SECRET_WORD.search(key) for key, _ in _PAIR.findall(dsn))
    return True


def redact(text: str) -> str:
    """Return free text, such as a foreign error message, without the passwords of any DSN in it."""
    text = re.sub(r"(?<=://)[^\s/@:]*:\S*@", f"{MASK}@", text)
    return re.sub(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", rf"\1{MASK}", text)
