"""Configuration files: TOML, JSON or YAML by their suffix, read or refused in one sentence."""

import json
import re
import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from housekeeping.policies.errors import ConfigurationRefused
from settings.addresses import without_secrets

Keys = dict[str, Any]


class UnreadableError(Exception):
    """A file's text isn't what its suffix says. The text tells where, and repeats none of it."""


def read_file(path: Path) -> Keys:
    """Return the keys of a configuration file.

    JSON may carry comments and trailing commas, as an appsettings.json does.

    Raises ConfigurationRefused when it is missing, not readable, or broken, with the line.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ConfigurationRefused(
            f"{shown(path)}: can't tell its format; name it {', '.join(_READERS)} at the end"
        )
    problem, keys = _attempt(path, read)
    if problem:  # raised out here, so that no parser's error with the text in it hangs on
        raise ConfigurationRefused(f"{shown(path)}: {problem}")
    return keys


def shown(path: Path) -> str:
    """Return `path` for a message: somebody will give an address where a path belongs."""
    return without_secrets(str(path))


def _attempt(path: Path, read: Callable[[str], object]) -> tuple[str, Keys]:
    try:
        # .NET's tools write a byte order mark.
        return "", _text_keys(read(path.read_bytes().decode("utf-8-sig")))
    except UnreadableError as error:
        return str(error), {}
    except FileNotFoundError:
        return "no such file", {}
    except OSError as error:
        return f"can't be read: {error.strerror}", {}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return f"not UTF-8 (at line {line})", {}
    except RecursionError:
        return "nested too deeply", {}


def _toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise UnreadableError(f"broken TOML: {_without_quotes(str(error))}") from None


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        strict = UnreadableError(
            f"broken JSON: {error.msg} (at line {error.lineno}, column {error.colno})"
        )
    except ValueError as error:  # a number of thousands of digits
        raise UnreadableError(f"broken JSON: {error}") from None
    return _json_with_comments(text, strict)


def _json_with_comments(text: str, strict: UnreadableError) -> object:
    import json5  # noqa: PLC0415 (slow to import, and seldom needed)

    try:
        found = json5.loads(text, object_pairs_hook=_unique)
    except ValueError:
        raise strict from None
    # Only Milvaion's file has the liberty; ours is JSON as it stands in the standard.
    if isinstance(found, Mapping) and any(key.lower() == "maintenanceconfig" for key in found):
        return found
    raise strict


def _yaml(text: str) -> object:
    import yaml  # noqa: PLC0415 (only where the file is YAML)

    class UniqueKeys(yaml.SafeLoader):
        def construct_mapping(
            self,
            node: yaml.MappingNode,
            deep: bool = False,  # noqa: FBT001, FBT002 (yaml's signature)
        ) -> dict[Hashable, Any]:
            _refuse_twice([str(key.value) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    try:
        found = yaml.load(text, UniqueKeys)  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = _without_quotes(error.problem or "can't be read")
        raise UnreadableError(f"broken YAML: {problem} (at line {line})") from None
    except (yaml.YAMLError, ValueError):
        raise UnreadableError("broken YAML: holds what YAML can't have") from None
    return {} if found is None else found


def _unique(given: Iterable[tuple[str, Any]]) -> Keys:
    pairs = list(given)
    _refuse_twice([name for name, _ in pairs])
    return dict(pairs)


def _refuse_twice(names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UnreadableError(f"{', '.join(twice)}: given twice; keep one")


def _text_keys(tree: object) -> Keys:
    if not isinstance(tree, Mapping):
        raise UnreadableError("holds no keys; give sections of keys and values")
    return {_key(key): _inner(value) for key, value in tree.items()}


def _inner(value: object) -> object:
    return _text_keys(value) if isinstance(value, Mapping) else value


def _key(key: object) -> str:
    """Return a key as text: YAML reads `2:` as a number and `yes:` as a truth value."""
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, str | int):
        return str(key)
    raise UnreadableError("has a key that is neither text nor a whole number; put it in quotes")


def _without_quotes(text: str) -> str:
    """Parsers repeat what they stumbled over, which may be a password."""
    return re.sub(r"'[^']{2,}'|\"[^\"]{2,}\"", "...", text)


_READERS: dict[str, Callable[[str], object]] = {
    ".toml": _toml,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}
