"""The connection to Redis or Valkey that leases, flags and schedules go through."""

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry


def connect(url: str) -> Redis:
    """Return a client that answers or fails within seconds, never hangs.

    No retries inside the client: the lease counts its own time, and redis-py's `retry_on_timeout`
    was seen to block for good after a TCP reset.
    """
    return Redis.from_url(
        url,
        socket_timeout=3,
        socket_connect_timeout=3,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 0),
    )


def eviction_policy(client: Redis) -> str | None:
    """Return the server's maxmemory-policy; None where a managed Redis hides it.

    Raises RedisError when nobody answers.
    """
    client.ping()
    try:
        answer = client.config_get("maxmemory-policy")
    except ResponseError:
        return None
    value = answer.get("maxmemory-policy") if isinstance(answer, dict) else None
    return value.decode() if isinstance(value, bytes) else value
