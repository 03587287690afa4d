"""Where settings come from: one file, Milvaion's file, and the environment, which wins."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from housekeeping.policies.errors import ConfigurationRefused
from settings import shape
from settings.files import read_file, shown
from settings.layers import Layers, spelling
from settings.maintenance_config import SECTION
from settings.problems import Problem
from settings.suite import Suite

PATH_VARIABLE = "HOUSEKEEPING_CONFIG"
DEFAULT_PATH = Path("housekeeping.toml")
_PREFIX = "housekeeping__"
_UPSTREAM_PREFIX = f"{SECTION}__".lower()


def find_file(environment: Mapping[str, str], path: Path | None) -> Path | None:
    """Return the file to read: `path`, else HOUSEKEEPING_CONFIG, else the default one."""
    if path is not None:
        return path
    if named := environment.get(PATH_VARIABLE, "").strip():
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.is_file() else None


def gather(file: Path | None, environment: Mapping[str, str]) -> tuple[Layers, list[Problem]]:
    """Return all settings laid over each other, and what couldn't be laid.

    From the weakest: the file `milvaion.maintenance_config` names, `MaintenanceConfig` in the main
    file, `MaintenanceConfig__` variables; these stay a section of their own, below `milvaion`.
    Beside it: the main file, then `HOUSEKEEPING__` variables.

    Raises ConfigurationRefused when a file is missing or broken.
    """
    layers = Layers()
    keys = read_file(file) if file else {}
    upstream = _take_upstream(keys)
    if upstream is not None and file and file.suffix.lower() == ".json":
        # An appsettings.json: what else is in it is the service's own.
        keys = {key: value for key, value in keys.items() if key in shape.accepted_keys(Suite)}
    origin = shown(file) if file else ""
    layers.lay((), keys, origin, any_case=False)
    problems = list(_lay_environment(layers, environment))
    problems += _lay_named_file(layers, file)
    if upstream is not None:
        # Two spellings of one key in one file are told, two in two files are one key.
        above_another = layers.at((SECTION,)) is not None
        layers.lay((SECTION,), upstream, origin, any_case=above_another)
    problems += _lay_upstream_environment(layers, environment)
    return layers, problems


def _take_upstream(keys: dict[str, Any]) -> object:
    """Remove `MaintenanceConfig` from `keys` and return it, None where it isn't there."""
    return keys.pop(spelling(keys, SECTION), None)


def _lay_named_file(layers: Layers, file: Path | None) -> Iterator[Problem]:
    setting = ("milvaion", "maintenance_config")
    named, origin = layers.at(setting), layers.origin_of(setting)
    if not isinstance(named, str) or not named:
        return  # absent, or refused later with all the rest
    # What a file names lies beside it; what a variable names is read as a shell would.
    path = file.parent / named if file and origin == shown(file) else Path(named)
    try:
        upstream = _take_upstream(read_file(path))
    except ConfigurationRefused as error:
        yield Problem(".".join(setting), error.message, origin)
        return
    if isinstance(upstream, Mapping):
        layers.lay((SECTION,), upstream, shown(path), any_case=False)
    else:
        yield Problem(".".join(setting), f'{shown(path)} holds no section "{SECTION}"', origin)


def _lay_environment(layers: Layers, environment: Mapping[str, str]) -> Iterator[Problem]:
    seen: set[tuple[str, ...]] = set()
    for path, name, text in _named(environment, _PREFIX):
        origin = f"environment variable {name}"
        if not all(path):
            yield Problem("", f"{name} names no setting; write HOUSEKEEPING__SECTION__KEY")
        elif path in seen:
            yield Problem(".".join(path), "is given twice, in different case; keep one", origin)
        elif _is_new_status(layers, path):
            yield Problem(
                ".".join(path),
                "a status is data, and its case can't be told from a variable's name; give "
                f"HOUSEKEEPING__{'__'.join(path[:-1]).upper()} = "
                '{"done": "30d"} instead',
                origin,
            )
        else:
            seen.add(path)
            value, problem = _value(path, text, origin)
            if problem:
                yield problem
            else:
                layers.lay(path, value, origin)


def _lay_upstream_environment(layers: Layers, environment: Mapping[str, str]) -> Iterator[Problem]:
    dotnet = {name.replace(":", "__"): text for name, text in environment.items()}
    for path, name, text in _named(dotnet, _UPSTREAM_PREFIX):
        if all(path):
            layers.lay((SECTION, *path), text, f"environment variable {name}")
        else:
            yield Problem("", f"{name} names no setting; write {SECTION}__Section__Key")


def _named(
    environment: Mapping[str, str], prefix: str
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Tell path, name and text of each variable with `prefix`, whole sections before their keys."""
    found = [
        (tuple(name[len(prefix) :].split("__")), name, text)
        for name, text in environment.items()
        if name.lower().startswith(prefix)
    ]
    for path, name, text in sorted(found, key=lambda each: (len(each[0]), each[1])):
        lowered = tuple(key.lower() for key in path) if prefix == _PREFIX else path
        yield lowered, name, text


def _is_new_status(layers: Layers, path: tuple[str, ...]) -> bool:
    match path:
        case ("tables", _, "statuses", status):
            statuses = layers.at(path[:-1])
            known = statuses if isinstance(statuses, Mapping) else {}
            return spelling(known, status) not in known
    return False


def _value(path: tuple[str, ...], text: str, origin: str) -> tuple[object, Problem | None]:
    """Return what `text` says: JSON where a list or a section may stand, else the text."""
    if text.lstrip()[:1] not in ("{", "[") or not shape.takes_structure(shape.kind_at(Suite, path)):
        return text, None
    try:
        return json.loads(text), None
    except ValueError:
        return None, Problem(".".join(path), "is broken JSON", origin)
