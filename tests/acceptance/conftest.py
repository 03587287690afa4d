"""Our suite on pytest-celery: on local processes, or on Docker where an engine runs.

    HOUSEKEEPING_TEST_NODES=process    the default: needs no engine
    HOUSEKEEPING_TEST_NODES=docker     the broker's image, and a worker built from our Dockerfile

The tests are the same. On Docker they have not run where this was written, for want of an engine:
they are collected, and the fixtures below are complete.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import (
    CELERY_REDIS_BROKER,
    CeleryBackendCluster,
    CeleryTestSetup,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBackend,
)
from pytest_docker_tools import build, container, fxtr

from embedded.ports import free_port
from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer, binaries
from tasks.application import app
from tests.acceptance import whole_stack
from tests.acceptance.nodes import ProcessContainer, run_node
from tests.faults.runs.installation import Installation
from tests.rabbit import rabbit_server

__all__ = ["rabbit_server"]  # a fixture

ROOT = Path(__file__).parents[2]
ON_PROCESSES = os.environ.get("HOUSEKEEPING_TEST_NODES", "process") != "docker"
REDIS_PORT = "6379/tcp"


class SuiteWorker(CeleryWorkerContainer):
    """`celery -A tasks worker` with the settings a user would give."""

    @classmethod
    def command(cls, *arguments: str, **_: Any) -> list[str]:
        return [
            *("celery", "-A", "tasks", "worker", "--concurrency=2"),
            *("--loglevel", cls.log_level(), "--hostname", f"{cls.worker_name()}@%h"),
            *("--without-gossip", "--without-mingle", *arguments),
        ]

    @classmethod
    def worker_queue(cls) -> str:
        return "housekeeping"

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        environment = super().initial_env(celery_worker_cluster_config, initial)
        broker = environment["CELERY_BROKER_URL"].rsplit("/", 1)[0]
        # Nobody listens on port 1: what these tests show does not depend on a database.
        return {
            **environment,
            "HOUSEKEEPING__BROKER_URL": f"{broker}/0",
            "HOUSEKEEPING__RESULT_BACKEND": f"{broker}/1",
            "HOUSEKEEPING__REDIS_URL": f"{broker}/2",
            "HOUSEKEEPING__VISIBILITY_TIMEOUT": "4s",
            "HOUSEKEEPING__TABLES__EVENTS__TABLE": "events",
            "HOUSEKEEPING__TABLES__EVENTS__AGE": "happened_at",
            "HOUSEKEEPING__TABLES__EVENTS__KEEP_FOR": "30d",
            "HOUSEKEEPING__DATABASE_URL": os.environ.get(
                "HOUSEKEEPING_TEST_DATABASE", "postgresql://nobody@127.0.0.1:1/nothing"
            ),
        }


class OneRedis(RedisContainer):
    """The broker's node, also where a container runs inside another."""

    @property
    def port(self) -> int:
        if not ON_PROCESSES:
            return super().port
        # On finding /.dockerenv, pytest-docker-tools takes the container's own port.
        return int(self.ports[REDIS_PORT][0])


class ResultsRedis(OneRedis):
    """The same server as the broker's; results live in database 1."""

    @property
    def vhost(self) -> str:
        return "1"


class SuiteSetup(CeleryTestSetup):
    """Takes our own app for the client's side."""

    @classmethod
    def create_setup_app(
        cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str
    ) -> Any:
        configure({**celery_setup_config, "task_default_queue": SuiteWorker.worker_queue()})
        app.set_current()
        return app


def configure(settings: dict[str, Any] | str) -> None:
    """Give our app other settings; its pools and its backend belong to the old ones."""
    app.configured, app._conf = False, None  # so that it is read when it is first needed
    app.config_from_object(settings)
    app.close()
    app._backend_cache = None
    app._local.__dict__.pop("backend", None)
    app.__dict__.pop("amqp", None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all acceptance tests; it logs who connects."""
    with PostgresServer(settings={"log_connections": "on"}) as server:
        yield server


@pytest.fixture(scope="module")
def stack(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """PostgreSQL, Valkey, a worker with two processes, and the environment they share."""
    folder = tmp_path_factory.mktemp("stack")
    name = f"stack_{folder.name}"
    database = postgres.create_database(name)
    whole_stack.make_tables(database)
    with ValkeyServer(append_only=True) as valkey:
        installation = Installation(database, valkey, folder, **whole_stack.SETTINGS)
        try:
            installation.worker("--concurrency=2")
            yield installation
        finally:
            installation.end()
    postgres.drop_database(name)


@pytest.fixture
def full(stack: Installation) -> Installation:
    """The stack with all events back in their tables."""
    whole_stack.refill(stack)
    return stack


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Redis alone: pytest-celery's own default adds RabbitMQ, in an order that changes."""
    broker = request.getfixturevalue(request.param)
    yield broker
    broker.teardown()


@pytest.fixture
def celery_backend_cluster(celery_broker: Any) -> CeleryBackendCluster:
    """One server for both: the broker in database 0, results in database 1."""
    return CeleryBackendCluster(RedisTestBackend(ResultsRedis(celery_broker.container._container)))


@pytest.fixture
def celery_setup_cls() -> Iterator[type[CeleryTestSetup]]:
    yield SuiteSetup
    configure("tasks.configuration:celery_settings")


@pytest.fixture
def default_worker_container_cls() -> type[CeleryWorkerContainer]:
    return SuiteWorker


@pytest.fixture
def default_redis_broker_cls() -> type[RedisContainer]:
    return OneRedis


if ON_PROCESSES:

    @pytest.fixture
    def default_redis_broker(
        request: pytest.FixtureRequest,
        tmp_path: Path,
        default_redis_broker_cls: type[RedisContainer],
    ) -> RedisContainer:
        """A Valkey that keeps its data over a restart."""
        port = free_port()
        server = next(iter(binaries().values()))
        options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes"]
        process = ProcessContainer(
            "broker",
            [str(server), *options, "--dir", str(tmp_path)],
            tmp_path,
            port=port,
            container_port=REDIS_PORT,
        )
        return run_node(request, default_redis_broker_cls, process)

    @pytest.fixture
    def default_worker_container(
        request: pytest.FixtureRequest,
        tmp_path: Path,
        default_worker_container_cls: type[CeleryWorkerContainer],
        default_worker_env: dict[str, str],
        default_worker_command: list[str],
    ) -> CeleryWorkerContainer:
        """A worker from this environment's own `celery`."""
        program, *words = default_worker_command
        process = ProcessContainer(
            "worker",
            [str(Path(sys.executable).parent / program), *words],
            tmp_path,
            environment=default_worker_env,
        )
        return run_node(request, default_worker_container_cls, process)

else:
    suite_image = build(path=str(ROOT), tag="celery-housekeeping:tests")

    default_worker_container = container(
        image="{suite_image.id}",
        environment=fxtr("default_worker_env"),
        network="{default_pytest_celery_network.name}",
        command=fxtr("default_worker_command"),
        wrapper_class=SuiteWorker,
        timeout=60,
    )
