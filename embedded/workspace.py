"""A temporary folder for a server, which leaves with us however we leave."""

import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path

from embedded.accounts import OURSELVES, Account

# A Unix socket's path holds 103 bytes on macOS, 107 on Linux; ours adds up to 30 to the folder's.
_LONGEST_PARENT = 70

# When we are killed, nothing of ours runs any more. So a shell watches: its standard input is a
# pipe of which we hold the other end, and the kernel closes that end whatever we die of. Why not
# prctl(PR_SET_PDEATHSIG), which needs no second process: it fires when the *thread* that started
# the server ends, is Linux only, needs Python to run between fork and exec (unsafe beside
# threads), and would leave the folder behind.
# Every line read is the process to end: its id, or nothing. A process without a reaping parent
# stays visible as a zombie, hence the bound on waiting.
_WATCH = """
process=
while read -r line; do process=$line; done
if [ -n "$process" ]; then
    kill -s "$1" "$process"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -s 0 "$process" || { process=; break; }
        sleep 0.1
    done
    [ -z "$process" ] || kill -s KILL "$process"
fi
rm -rf "$2"
"""


class Workspace:
    """A temporary folder of an account, and a guard over the one process that works in it.

    When our process ends without `close()`, be it by SIGKILL, the guarded process is ended and
    the folder removed. A process forked from ours (without exec) prolongs our life in this sense.
    """

    def __init__(
        self, account: Account = OURSELVES, *, last_signal: signal.Signals = signal.SIGTERM
    ) -> None:
        """Make the folder; `last_signal` ends the guarded process should we vanish.

        Raises:
            RuntimeError: the account can enter no temporary folder of this system.

        """
        self.path = _make_folder(account)
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", last_signal.name.removeprefix("SIG"), self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # else Ctrl-C on our terminal would end the watcher too
        )
        self._watcher = watcher
        self._close = weakref.finalize(self, _dissolve, self.path, watcher, os.getpid())

    def guard(self, process: int | None) -> None:
        """Take this process along should we vanish; None when it has ended by itself."""
        if self._watcher.stdin is None or not self._close.alive:
            msg = f"The workspace {self.path} is closed; open a new one for a new server"
            raise RuntimeError(msg)
        self._watcher.stdin.write(f"{process or ''}\n".encode())
        self._watcher.stdin.flush()

    def close(self) -> None:
        """Remove the folder. The process that works in it has to be stopped first."""
        self._close()


def _make_folder(account: Account) -> Path:
    parents = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))  # noqa: S108
    for parent in parents:
        if len(os.fsencode(parent)) > _LONGEST_PARENT or not os.access(parent, os.W_OK):
            continue
        folder = Path(tempfile.mkdtemp(prefix="housekeeping-", dir=parent))
        account.take(folder)
        if account.reaches(folder):
            return folder
        folder.rmdir()
    msg = (
        f"User {account.name} can enter none of the temporary folders {', '.join(parents)}; "
        "set TMPDIR to one that it can enter and whose path is short"
    )
    raise RuntimeError(msg)


def _dissolve(folder: Path, watcher: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a fork of ours ends: the folder is not its own
        return
    watcher.kill()
    watcher.wait()
    if watcher.stdin is not None:
        watcher.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)
