"""A server at the other end of a slow network."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[int]:
    """Relay to a port of this machine, each message `seconds` late; yield the relay's own port."""
    loop = asyncio.new_event_loop()
    relay = loop.run_until_complete(_listen(port, seconds))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield relay.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_close(relay), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(port: int, seconds: float) -> asyncio.Server:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                _carry(reader, there_writer, seconds), _carry(there_reader, writer, seconds)
            )
        there_writer.close()
        writer.close()

    return await asyncio.start_server(relay, "127.0.0.1", 0)


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    while message := await reader.read(65_536):
        await asyncio.sleep(seconds)
        writer.write(message)
    writer.close()


async def _close(relay: asyncio.Server) -> None:
    relay.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
