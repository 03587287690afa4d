"""What we use of kombu's Redis transport beyond its public interface, all in one place.

kombu emulates acknowledgement in Redis. A delivered message waits in the hash `unacked` until it
is acked; the sorted set `unacked_index` holds the time of its delivery; every worker sweeps that
set and puts a message older than the visibility timeout back into its queue, guarded by the lock
`unacked_mutex`. Read in kombu 5.7.0, `kombu/transport/redis.py` and `virtual/base.py`; the fault
tests of the consumer and of the heartbeat hold us to it.
"""

# ruff: noqa: SLF001 - that is what this module is for

import time
from typing import Any

from kombu.transport.redis import Channel

__all__ = [
    "Channel",
    "disown",
    "hold_back_sweeps",
    "is_redis",
    "redis_channels",
    "refresh",
    "unsettled",
]


def is_redis(connection: Any) -> bool:
    """Whether a connection speaks to Redis or Valkey, be it through Sentinel or TLS."""
    return bool(connection.transport.driver_type == "redis")


def redis_channels(connection: Any) -> list[Channel]:
    """Return the open channels of a connection; none if its broker is not Redis."""
    channels = getattr(connection.transport, "channels", None) or ()
    return [channel for channel in channels if isinstance(channel, Channel)]


def disown(channel: Channel) -> None:
    """Leave the channel's unsettled messages as they are in Redis when it closes."""
    channel.do_restore = False


def unsettled(channel: Channel) -> dict[str, Any]:
    """Return the messages delivered on a channel and not yet acked or rejected, by delivery tag."""
    quality = channel._qos  # the property would make one on a closed channel
    if quality is None:
        return {}
    settled = quality._dirty
    delivered = quality._delivered
    # `list` first: it copies in one step, the heartbeat may be reading from another thread.
    return {tag: message for tag, message in list(delivered.items()) if tag not in settled}


def refresh(channel: Channel) -> int:
    """Make the channel's unsettled messages look as if delivered just now; return how many.

    A message that is no longer noted as unacked is left alone: somebody has put it back.
    """
    tags = list(unsettled(channel))
    if tags:
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, time.time()), xx=True)
    return len(tags)


def hold_back_sweeps(channel: Channel) -> None:
    """Keep every worker from sweeping for one visibility timeout.

    After an outage longer than that, all deliveries look too old, and whoever reconnects first
    would put the messages of everybody else's running tasks back. So who connects takes the
    sweepers' lock and lets it expire. Not prolonged while held: a worker that reconnects for ever
    must not keep a dead worker's messages from being found.
    """
    with channel.conn_or_acquire() as client:
        lifetime_ms = int(channel.visibility_timeout * 1000)
        client.set(channel.unacked_mutex_key, "held back after connecting", nx=True, px=lifetime_ms)
