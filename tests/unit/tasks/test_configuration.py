"""Celery's configuration: what fault tests showed to matter stays as it is."""

from typing import Any

import pytest

import settings
from tasks.configuration import RefusedToStart, celery_configuration, current_suite

GIVEN = {
    "HOUSEKEEPING__REDIS_URL": "redis://:secret@localhost/2",
    "HOUSEKEEPING__DATABASE_URL": "postgresql://localhost/jobs",
    "HOUSEKEEPING__MILVAION": "{}",
    "HOUSEKEEPING__TABLES__A__TABLE": "a",
    "HOUSEKEEPING__TABLES__A__AGE": "at",
    "HOUSEKEEPING__TABLES__A__KEEP_FOR": "1d",
    "HOUSEKEEPING__TABLES__B__TABLE": "b",
    "HOUSEKEEPING__TABLES__B__AGE": "at",
    "HOUSEKEEPING__TABLES__B__KEEP_FOR": "1d",
    "HOUSEKEEPING__TABLES__B__TIME_BUDGET": "10m",
}


def configuration(**more: str) -> dict[str, Any]:
    return celery_configuration(settings.load({**GIVEN, **more}))


def test_messages_and_results_are_json_and_nothing_else() -> None:
    conf = configuration()

    assert conf["accept_content"] == ["json"]
    assert (conf["task_serializer"], conf["result_serializer"]) == ("json", "json")


def test_a_task_is_acknowledged_only_when_it_has_ended() -> None:
    conf = configuration()

    assert conf["task_acks_late"]
    assert conf["task_reject_on_worker_lost"]
    assert conf["task_retry_on_worker_lost"]
    assert conf["worker_prefetch_multiplier"] == 1


def test_what_was_seen_to_hang_or_lose_messages_is_not_set() -> None:
    conf = configuration()

    assert "retry_on_timeout" not in conf["broker_transport_options"]
    assert conf["worker_cancel_long_running_tasks_on_connection_loss"] is False


def test_a_task_s_limits_lie_beyond_the_budgets_of_all_its_policies() -> None:
    limits = configuration()["task_annotations"]["tasks.tables.purge"]

    assert limits["soft_time_limit"] == (50 + 10 + 5) * 60
    assert limits["time_limit"] == limits["soft_time_limit"] + 60


def test_rabbitmq_confirms_what_it_was_sent_and_is_given_no_options_of_redis() -> None:
    conf = configuration(HOUSEKEEPING__BROKER_URL="amqp://guest@localhost//")

    assert conf["broker_transport_options"] == {"confirm_publish": True}


@pytest.mark.parametrize(("visibility_timeout", "heartbeat"), [("60s", 30), ("2s", 5), ("1h", 60)])
def test_rabbitmq_notices_a_host_that_is_gone_within_the_visibility_timeout(
    visibility_timeout: str, heartbeat: int
) -> None:
    conf = configuration(
        HOUSEKEEPING__BROKER_URL="amqp://guest@localhost//",
        HOUSEKEEPING__VISIBILITY_TIMEOUT=visibility_timeout,
    )

    assert conf["broker_heartbeat"] == heartbeat
    assert isinstance(conf["broker_heartbeat"], int)


def test_the_beat_lock_outlives_five_loops() -> None:
    conf = configuration()

    assert conf["redbeat_lock_timeout"] >= 5 * conf["beat_max_loop_interval"]


def test_settings_that_can_not_be_used_refuse_to_start_with_their_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOUSEKEEPING__REDIS_URL", raising=False)
    monkeypatch.setenv("HOUSEKEEPING__QUEUE", "q")
    current_suite.cache_clear()

    with pytest.raises(RefusedToStart) as refused:
        current_suite()

    assert refused.value.exit_code == 65
    assert "redis_url" in refused.value.message
    assert "redis_url" in refused.value.format_message()


def test_a_worker_that_shares_a_run_has_the_limits_of_the_longest_one() -> None:
    limits = configuration(
        HOUSEKEEPING__TABLES__A__WORKERS="2",
        HOUSEKEEPING__TABLES__A__TIME_BUDGET="20m",
    )["task_annotations"]

    assert limits["housekeeping.shards.work"]["soft_time_limit"] == (20 + 5) * 60
    assert "housekeeping.shards.work" not in configuration()["task_annotations"]
