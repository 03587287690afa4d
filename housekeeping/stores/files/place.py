"""Where exports go: a folder on a file system or object store, named by a URL.

A URL may carry a password. Nothing leaves this module but `shown`, which holds none, and errors in
which it has been replaced.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from housekeeping.policies.archives import KEEPS_NOTHING
from housekeeping.policies.errors import ExportPlaceRefused, ExportUnreachable, HousekeepingError

_S3 = ("s3", "s3a")
_BUFFER = 1 << 20
# They fire wherever they find us and are not the store's: Celery's time limits.
_NOT_THE_STORES = ("celery", "billiard")


_Told = Callable[[], AbstractContextManager[None]]


class NameTaken(ExportUnreachable):
    """{url} can't be given to another file: it is there already."""


class Sink(io.RawIOBase):
    """A file that is being written; knows what has been written so far."""

    def __init__(self, file: Any, told: _Told) -> None:
        self._file = file
        self._told = told
        self._hash = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        with self._told():
            self._file.write(view)
        self._hash.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.bytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class _Source(io.RawIOBase):
    """A file that is being read."""

    def __init__(self, file: Any, told: _Told) -> None:
        self._file = file
        self._told = told

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._told():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._told():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


class Place:
    """A folder that holds exports. Every failure in here is told without the URL's secrets."""

    def __init__(self, url: str) -> None:
        """Find the file system a URL names.

        Raises ExportPlaceRefused for a URL no export could be kept at, and for one whose driver is
        not installed.
        """
        self.shown = shown(url)
        self._secrets = _secrets_in(url)
        protocol = url.partition("://")[0].lower() if "://" in url else "file"
        if "::" in url or protocol in KEEPS_NOTHING:
            reason = "what is written there is not kept, or can't be written at all"
            raise ExportPlaceRefused(url=self.shown, reason=reason)
        address, options = _s3_options(url) if protocol in _S3 else (url, {})
        with self._told(ExportPlaceRefused):
            self._fs, path = url_to_fs(
                address, skip_instance_cache=True, use_listings_cache=False, **options
            )
        self._root = str(path).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def __repr__(self) -> str:
        return f"Place({self.shown!r})"

    def require(self) -> None:
        """Raise ExportUnreachable unless the folder can be written to, by writing to it.

        A local folder has to be there: made by us it could be on the wrong disk, where the right
        one is not mounted.
        """
        if self._local and not Path(self._root).is_dir():
            raise ExportUnreachable(url=self.shown, reason="there is no such folder; make it")
        probe = f".housekeeping-{os.getpid()}.probe"
        with self.writing(probe) as file:
            file.write(b"can this be written?")
        self.remove(probe)

    def exists(self, name: str) -> bool:
        with self._told():
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        with self._told():
            return cast("bytes", self._fs.cat_file(self._path(name)))

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read from; it can be read from the middle."""
        with self._told():
            file = self._fs.open(self._path(name), "rb")
        with closing(file), io.BufferedReader(_Source(file, self._told), _BUFFER) as source:
            yield cast("BinaryIO", source)

    @contextmanager
    def writing(self, name: str) -> Iterator["Sink"]:
        """Open a file to write to. Once the block has ended well, the file has reached its disk."""
        with self._told():
            if not self._local:
                self._fs.makedirs(self._root, exist_ok=True)
            file = self._fs.open(self._path(name), "wb")
        try:
            yield Sink(file, self._told)
            with self._told():
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())
        finally:
            with self._told():
                file.close()

    def move(self, name: str, to: str) -> None:
        """Give a file its final name; what has that name already stays, and is an error."""
        with self._told():
            if self.exists(to):
                raise NameTaken(url=self.at(to))
            if not self._local:
                self._fs.mv(self._path(name), self._path(to))
                return
            try:
                _rename(self._path(name), self._path(to))
            except FileExistsError:  # by another process, since we looked
                raise NameTaken(url=self.at(to)) from None
            _reach_the_disk(self._root)

    def remove(self, name: str) -> None:
        """Remove a file of ours that is of no use; that it can't be removed is no error."""
        with suppress(HousekeepingError), self._told():
            self._fs.rm_file(self._path(name))

    def at(self, name: str) -> str:
        """Return the address of a file here, without secrets."""
        return f"{self.shown.rstrip('/')}/{name}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, as_: Callable[..., HousekeepingError] = ExportUnreachable) -> Iterator[None]:
        """Turn whatever a store raises into an error of ours without secrets, and without its cause:
        a traceback would show it.
        """
        try:
            yield
        except HousekeepingError:
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] in _NOT_THE_STORES:
                raise
            raise as_(url=self.shown, reason=self._masked(error)) from None

    def _masked(self, error: Exception) -> str:
        lines = str(error).strip().splitlines() or [""]
        text = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _rename(path: str, to: str) -> None:
    """Give a local file another name. Raises FileExistsError where that is taken.

    `rename` would replace what another process has just put there.
    """
    try:
        os.link(path, to)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        Path(path).rename(to)
    else:
        Path(path).unlink(missing_ok=True)  # a run that took our work over may have removed it


def shown(url: str) -> str:
    """Return a URL without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    # Up to the last @: an unescaped slash or @ in a password must not show the rest of it.
    rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest.partition('?')[0]}"


def split(url: str) -> tuple[str, str]:
    """Return the folder of a file's URL, and the file's name in it."""
    folder, separator, name = url.rpartition("/")
    return (folder or separator or ".", name)


def _secrets_in(url: str) -> tuple[str, ...]:
    rest = url.partition("://")[2]
    found = [url] if "@" in rest or "?" in rest else []
    if "@" in rest:
        user_info = rest.rpartition("@")[0]
        password = user_info.partition(":")[2]
        found += [user_info, password, unquote(password)]
    if "?" in rest:
        query = rest.partition("?")[2]
        found += [query, *(part.partition("=")[2] for part in query.split("&"))]
    return tuple(sorted({each for each in found if each}, key=len, reverse=True))


def _s3_options(url: str) -> tuple[str, dict[str, Any]]:
    """Return an S3 URL without its key and secret, and those as s3fs takes them."""
    scheme, _, rest = url.partition("://")
    user_info, at, bucket = rest.rpartition("@")
    if not at:
        return url, {}
    key, _, secret = user_info.partition(":")
    return f"{scheme}://{bucket}", {"key": unquote(key), "secret": unquote(secret)}


def _reach_the_disk(folder: str) -> None:
    """Make a rename in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
