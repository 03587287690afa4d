"""What a .NET service has, as URLs: Npgsql connection strings and StackExchange.Redis ones.

Parts that say where to connect, and as whom, are carried over. Parts that would change where we
connect in a way a URL can't say are refused. All others (pool sizes, timeouts of single commands)
belong to the service and are passed over.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from urllib.parse import quote, urlencode

_PAIR = re.compile(
    r"""\s*(?P<key>[^=;]+?)\s*=\s*(?P<value>"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;]*?)\s*(?:;|$)"""
)
# https://www.npgsql.org/doc/connection-string-parameters.html, blanks left out of the keys.
_NPGSQL_ALIASES = {
    "server": "host",
    "db": "database",
    "user": "username",
    "userid": "username",
    "uid": "username",
    "pwd": "password",
    "psw": "password",
}
_LIBPQ_NAMES = {
    "sslmode": "sslmode",
    "rootcertificate": "sslrootcert",
    "sslcertificate": "sslcert",
    "clientcertificate": "sslcert",
    "sslkey": "sslkey",
    "sslpassword": "sslpassword",
    "passfile": "passfile",
    "kerberosservicename": "krbsrvname",
    "channelbinding": "channel_binding",
    "timeout": "connect_timeout",
}
_NPGSQL_KEYS = ("host", "port", "database", "username", "password", "searchpath", "options")
_SSL_MODES = {
    mode.replace("-", ""): mode
    for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
}
_REDIS_KEYS = ("password", "user", "ssl", "defaultdatabase")
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0", "")
_REDIS_ELSEWHERE = {
    "servicename": "Sentinel chooses the server; give redis_url with the address of the primary",
    "tunnel": "we can't connect through a tunnel; give redis_url",
}


def npgsql_to_url(text: str) -> str:
    """Return a `postgresql://` URL for an Npgsql connection string; a URL comes back as it is.

    Raises ValueError where it can't be read or leads where a URL can't; no value is repeated.
    """
    if "://" in text.partition(";")[0].partition("=")[0]:
        return text
    given = _npgsql_parts(text)
    host, port = _one_host(given.get("host", ""), given.get("port", ""))
    parameters = {_LIBPQ_NAMES[key]: given[key] for key in given if key in _LIBPQ_NAMES}
    if "sslmode" in parameters:
        parameters["sslmode"] = _ssl_mode(parameters["sslmode"])
    if "channel_binding" in parameters:
        parameters["channel_binding"] = parameters["channel_binding"].lower()
    if options := _options(given):
        parameters["options"] = options
    if host.startswith(("/", "@")):  # a folder of Unix sockets
        parameters = {"host": host, **({"port": port} if port else {}), **parameters}
        host = port = ""
    login = _login(given.get("username", ""), given.get("password", ""))
    place = f"{host}:{port}" if port else host
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"postgresql://{login}{place}/{quote(given.get('database', ''), safe='')}{query}"


def stackexchange_to_url(text: str) -> str:
    """Return a `redis://` URL for a StackExchange.Redis string; a URL comes back as it is.

    Raises ValueError where it can't be read or leads where a URL can't; no value is repeated.
    """
    if "://" in text.partition(",")[0].partition("=")[0]:
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    endpoints = [part for part in parts if "=" not in part]
    options = dict(_redis_option(part) for part in parts if "=" in part)
    _refuse_near_misses(options, [*_REDIS_KEYS, *_REDIS_ELSEWHERE])
    for key, reason in _REDIS_ELSEWHERE.items():
        if options.get(key):
            raise ValueError(f"sets {key}: {reason}")
    if len(endpoints) != 1:
        raise ValueError(
            f"names {len(endpoints)} servers; give one, such as "
            '"host:6379,password=...,defaultDatabase=0"'
        )
    return _redis_url(endpoints[0], options)


def _npgsql_parts(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = text.strip().strip(";")
    while rest:
        match = _PAIR.match(rest)
        if match is None:
            raise ValueError(
                'is no list of keys and values; give one such as "Host=...;Database=...;'
                'Username=...;Password=...", with values that hold a semicolon in quotes'
            )
        key = re.sub(r"\s", "", match["key"]).lower()
        given[_NPGSQL_ALIASES.get(key, key)] = _unquoted(match["value"])
        rest = rest[match.end() :].strip().lstrip(";").strip()
    _refuse_near_misses(given, [*_NPGSQL_KEYS, *_NPGSQL_ALIASES, *_LIBPQ_NAMES])
    if not given.get("host"):
        raise ValueError('names no Host; give one such as "Host=localhost;Database=milvaion"')
    return {key: value for key, value in given.items() if value}


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"') and len(value) > 1 and value[-1] == value[0]:
        return value[1:-1].replace(value[0] * 2, value[0])
    return value


def _one_host(host: str, port: str) -> tuple[str, str]:
    if "," in host:
        raise ValueError("names several hosts; give database_url with the primary's address")
    if host.startswith(("/", "@")):
        return host, port
    if match := re.fullmatch(r"(\[[^\]]+\]|[^:]+):([0-9]+)", host):
        host, port = match.groups()
    elif ":" in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address
    return host, port


def _ssl_mode(value: str) -> str:
    mode = re.sub(r"[\s_-]", "", value).lower()
    if mode not in _SSL_MODES:
        raise ValueError(
            "has an SSL Mode we don't know; give Disable, Allow, Prefer, Require, VerifyCA "
            "or VerifyFull"
        )
    return _SSL_MODES[mode]


def _options(given: dict[str, str]) -> str:
    """Return libpq's `options`; the search path decides which tables a bare name means."""
    options = given.get("options", "")
    if "searchpath" in given:
        path = given["searchpath"].replace("\\", "\\\\").replace(" ", "\\ ")
        options = f"{options} -csearch_path={path}".strip()
    return options


def _redis_option(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key.strip().lower(), value.strip()


def _redis_url(endpoint: str, options: dict[str, str]) -> str:
    login = _login(options.get("user", ""), options.get("password", ""))
    database = options.get("defaultdatabase", "") or "0"
    if not re.fullmatch(r"[0-9]+", database):
        raise ValueError("has a defaultDatabase that is no number; give one such as 0")
    secure = options.get("ssl", "").lower()
    if secure not in (*_YES, *_NO):
        raise ValueError("has an ssl that is neither true nor false")
    if endpoint.startswith(("!", "unix:")):
        path = quote(endpoint.removeprefix("!").removeprefix("unix:"))
        return f"unix://{login}{path}?db={database}"
    scheme, port = ("rediss", "6380") if secure in _YES else ("redis", "6379")
    host, given_port = _one_host(endpoint, "")
    return f"{scheme}://{login}{host}:{given_port or port}/{database}"


def _login(user: str, password: str) -> str:
    if not user and not password:
        return ""
    secret = f":{quote(password, safe='')}" if password else ""
    return f"{quote(user, safe='')}{secret}@"


def _refuse_near_misses(given: Collection[str], meant: Collection[str]) -> None:
    """Refuse what looks like a mistyped key that says where to connect; pass the others over."""
    for key in given:
        near = get_close_matches(key, meant, n=1, cutoff=0.75)  # no other documented key is as near
        if near and key not in meant:
            # The key is not repeated: it may be the rest of a password with a semicolon in it.
            raise ValueError(f'has an unknown key; did you mean "{near[0]}"?')
