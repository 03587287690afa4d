"""The operating system's user that an embedded server runs as.

PostgreSQL refuses to run as root, and in containers and on CI everything is root.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What a program sees: nothing of the user's environment, so that it behaves alike everywhere.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# Prints nothing; status 0 when every path can be executed (a file) or entered (a folder).
_ALL_REACHABLE = 'for path; do test -r "$path" && test -x "$path" || exit 1; done'


@dataclass(frozen=True)
class Account:
    """A user to run a program as; without numbers it is whoever we are."""

    name: str
    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """The supplementary groups a program gets: none, lest it keeps those of root."""
        return None if self.user is None else []

    def reaches(self, *paths: Path) -> bool:
        """Tell whether this user can read and run these files, and enter these folders.

        It is tried as that user instead of computed from modes: modes know nothing of access
        control lists, of mount options or of security modules.
        """
        return self.run(["/bin/sh", "-c", _ALL_REACHABLE, "sh", *paths]).returncode == 0

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this user; its output holds both of its streams.

        Raises:
            OSError: this user cannot run the program.

        """
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",  # ours may be closed to this user
            env=ENVIRONMENT,
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
        )

    def take(self, path: Path) -> None:
        """Become the owner of a file or folder and of all that is in it."""
        if self.user is None or self.group is None:
            return
        os.chown(path, self.user, self.group, follow_symlinks=False)
        for folder, folders, files in os.walk(path):
            for name in folders + files:
                os.chown(Path(folder, name), self.user, self.group, follow_symlinks=False)


OURSELVES = Account("ourselves")


def unprivileged() -> Account:
    """Return an account without privileges: `postgres` or `nobody` when we are root, else us.

    Raises:
        RuntimeError: we are root and this system has neither user.

    """
    if os.geteuid() != 0:
        return OURSELVES
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    msg = (
        "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to "
        "run it as; create one (`useradd --system postgres`) or start as another user"
    )
    raise RuntimeError(msg)
