"""Addresses of stores. They carry passwords, so nothing shows one unless it is asked to."""

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_TELLING_NAME = r"[\w.-]*(?:pass|pwd|secret|token|credential)[\w.-]*"
_SECRET_PAIR = re.compile(
    rf"""(?ix) (\b{_TELLING_NAME}\s*=\s*) ("[^"]*"?|'[^']*'?|[^;&,\s]*)""", re.IGNORECASE
)
_USER_INFO = re.compile(r"(?P<scheme>[\w+.-]*:/{1,2})(?P<user>[^\s@:]*)(?P<rest>:?\S*)@")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>[^/?#:@]*)(?P<password>:[^/?#@]*)?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^/?#:@\[\]]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[^?#@]*)?)(?P<query>\?[^#]*)?"
)
_REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis"}
_DATABASE_SCHEMES = dict.fromkeys(("postgresql", "postgres", "postgresql+psycopg2"), "postgresql")
_BROKER_SCHEMES = _REDIS_SCHEMES | {
    name: name for name in ("redis+socket", "amqp", "amqps", "pyamqp")
}
_RESULT_SCHEMES = _REDIS_SCHEMES | {name: name for name in ("redis+socket", "rpc", "disabled")}
# Celery takes them, and a run sent through them is waited for without end.
_LEADS_NOWHERE = {
    "memory": "never leaves the process: no worker would see a task",
    "cache+memory": "never leaves the process: nobody would see a result",
    "filesystem": "is for Celery's own examples: it neither redelivers nor locks",
}
_HIGHEST_PORT = 65_535


class StoreUrl:
    """Where a store is and how to get in. Shown without its password; `reveal()` gives it whole."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def reveal(self) -> str:
        """Return the address with its password, for a driver and nobody else."""
        return self._url

    def __str__(self) -> str:
        return without_secrets(self._url)

    def __repr__(self) -> str:
        return f"StoreUrl({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: type[Any], _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.to_string_ser_schema(when_used="always")
        )


def without_secrets(text: str) -> str:
    """Return `text` with what may be a password replaced by ***, whether or not it is a URL."""
    return _SECRET_PAIR.sub(r"\1***", _USER_INFO.sub(_mask_user_info, text))


def _mask_user_info(match: re.Match[str]) -> str:
    # Redis with a user and no password is mostly a password in the wrong place.
    hides_user = not match["rest"] and match["scheme"].startswith(("redis", "unix", "valkey"))
    user = "" if hides_user else match["user"]
    secret = "***" if hides_user else ":***" if match["rest"] else ""
    return f"{match['scheme']}{user}{secret}@"


def read_database(value: object) -> StoreUrl:
    """Return a PostgreSQL address, its scheme written `postgresql`."""
    return _read(value, _DATABASE_SCHEMES, "postgresql://user@host:5432/database")


def read_redis(value: object) -> StoreUrl:
    """Return a Redis or Valkey address, `valkey` written `redis`."""
    return _read(value, _REDIS_SCHEMES, "redis://host:6379/0")


def read_broker(value: object) -> StoreUrl:
    """Return the address of a Celery broker."""
    return for_celery(_read(value, _BROKER_SCHEMES, "redis://host:6379/0"))


def read_result_backend(value: object) -> StoreUrl:
    """Return the address of a Celery result backend."""
    return for_celery(_read(value, _RESULT_SCHEMES, "redis://host:6379/0"))


def for_celery(url: StoreUrl) -> StoreUrl:
    """Return `url` as Celery wants it: it knows no `unix://`, and calls the database otherwise."""
    text = url.reveal()
    if not text.startswith("unix://"):
        return url
    socket, _, query = text.removeprefix("unix://").partition("?")
    options = [part.partition("=") for part in query.split("&") if part]
    passwords = [value for name, _, value in options if name == "password"]
    if passwords and "@" not in socket:
        socket = f":{passwords[-1]}@{socket}"
    kept = [
        f"{'virtual_host' if name == 'db' else name}={value}"
        for name, _, value in options
        if name != "password"
    ]
    return StoreUrl(f"redis+socket://{socket}" + (f"?{'&'.join(kept)}" if kept else ""))


def database_at(url: str) -> tuple[str, str, str]:
    """Return host, port and name of a database: two addresses that lead there say the same."""
    match = _URL.fullmatch(url)
    if match is None:
        return url, "", ""
    options = dict(
        part.partition("=")[::2] for part in (match["query"] or "").lstrip("?").split("&")
    )
    host = match["host"] or unquote(options.get("host", ""))
    port = match["port"] or options.get("port", "5432")
    return host.lower(), port, unquote(match["path"].lstrip("/") or match["user"] or "")


def _read(value: object, schemes: Mapping[str, str], example: str) -> StoreUrl:
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'give an address such as "{example}"')
    text = value.strip()
    accepted = ", ".join(f"{name}://" for name in schemes)
    scheme, separator, _ = text.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise ValueError(f"has no scheme; give an address that starts with one of {accepted}")
    if scheme.lower() not in schemes:
        why = _LEADS_NOWHERE.get(scheme.lower(), "is not accepted")
        raise ValueError(f"{scheme}:// {why}; start it with one of {accepted}")
    match = _URL.fullmatch(text)
    if match is None or re.search(r"\s", text) or _has_stray_at(match["query"] or ""):
        raise ValueError(
            f'is not an address such as "{example}"; in a user or password write '
            "@ as %40, / as %2F, ? as %3F, # as %23, : as %3A, and a blank as %20"
        )
    canonical = schemes[scheme.lower()]
    _check_parts(canonical, match)
    return StoreUrl(f"{canonical}://{text.partition('://')[2]}")


def _has_stray_at(query: str) -> bool:
    """Say whether an @ stands where only the end of a password would put it."""
    return any("@" in part.partition("=")[0] for part in query.lstrip("?").split("&"))


def _check_parts(scheme: str, match: re.Match[str]) -> None:
    if match["port"] and not 1 <= int(match["port"]) <= _HIGHEST_PORT:
        raise ValueError(f"has port {match['port']}; give one from 1 to {_HIGHEST_PORT}")
    if "," in match["host"]:
        raise ValueError("names several hosts; give the one to work on")
    if scheme == "unix" and len(match["path"]) <= 1:
        raise ValueError('names no socket; give its path, such as "unix:///run/redis.sock"')
    # redis-py reads a path that is no number as database 0 without a word.
    if scheme in ("redis", "rediss") and not re.fullmatch(r"/?|/[0-9]{1,9}", match["path"]):
        raise ValueError('has a path that is no database number; end it like "redis://host:6379/0"')


DatabaseUrl = Annotated[StoreUrl, BeforeValidator(read_database)]
RedisUrl = Annotated[StoreUrl, BeforeValidator(read_redis)]
BrokerUrl = Annotated[StoreUrl, BeforeValidator(read_broker)]
ResultBackendUrl = Annotated[StoreUrl, BeforeValidator(read_result_backend)]
