"""PostgreSQL in a temporary folder with a Unix socket, without a port or a password."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
QUICK = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nlisten_addresses = ''\n"
START_S = 60


def programs() -> Path | None:
    """Return the folder of the newest initdb and pg_ctl; None if they are not installed."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    return max(
        (path.parent for path in DEBIAN.glob("*/bin/initdb")),
        key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0,
        default=None,
    )


def why_not() -> str:
    """Return the reason why no server can run here; empty if one can."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and _owner() is None:
        return "PostgreSQL refuses to run as root, and there is no other user"
    return ""


def _owner() -> str | None:
    """Return the user that the server runs as: PostgreSQL refuses root."""
    known = {user.pw_name for user in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


class Server:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def new_location(self) -> str:
        """Return the URL of an empty schema: a database would take a second and 7 MB."""
        import psycopg

        name = f"history_{next(self._numbers)}"
        where = f"host={self._folder} user=owner dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"postgresql+psycopg://owner@/postgres?host={self._folder}&options=-csearch_path%3D{name}"


@contextmanager
def running() -> Iterator[Server]:
    """Run a server; it ends, and its folder is removed, even if this process is killed."""
    owner = _owner() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="history-"))  # short, because a socket's path has at most 107 bytes
    if owner:
        shutil.chown(folder, owner)
    with _keeper(owner, folder):
        _run(
            owner, folder, "initdb", "--pgdata", "data", "--username", "owner", "--auth", "trust", "--no-sync"
        )
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(QUICK)
        _run(owner, folder, "pg_ctl", "start", *_control(folder), "--log", "log", "-o", f"-k {folder}")
        yield Server(folder)


KEEPER = 'read -r _; "$@"; rm -rf "$0"'
"""Waits until its standard input is closed, stops the server, and removes its folder."""


@contextmanager
def _keeper(owner: str | None, folder: Path) -> Iterator[None]:
    """Start a process that cleans up when this one closes a pipe, which happens even if it is killed."""
    stop = (str(_program("pg_ctl")), "stop", *_control(folder), "--mode", "immediate")
    with subprocess.Popen(
        ["/bin/sh", "-c", KEEPER, folder, *stop],
        user=owner,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C must not reach the process that cleans up
    ):
        yield


def _control(folder: Path) -> tuple[str, ...]:
    return ("--pgdata", str(folder / "data"), "--wait", "--timeout", str(START_S))


def _run(owner: str | None, folder: Path, program: str, *arguments: str) -> None:
    subprocess.run(
        [_program(program), *arguments],
        user=owner,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdout=subprocess.DEVNULL,  # the server inherits it, and a pipe would never end
        stderr=subprocess.DEVNULL,
        timeout=2 * START_S,
        check=True,
    )


def _program(name: str) -> Path:
    where = programs()
    assert where is not None
    return where / name
