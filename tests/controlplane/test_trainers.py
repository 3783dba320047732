"""The played agents themselves."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.controlplane.trainers import close


@pytest.mark.parametrize("turns", range(4))
def test_whoever_connects_while_a_server_closes_is_answered_or_refused(turns: int) -> None:
    """He is in the queue, being accepted or in when it closes; asyncio alone keeps the socket of the second open."""
    answered: list[asyncio.StreamWriter] = []

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(writer)
        writer.close()
        await writer.wait_closed()

    async def story() -> bytes | None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as caller:
            caller.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            await close(server)
            try:
                return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(caller, 1), 5)
            except ConnectionResetError:
                return None

    end = asyncio.run(story())
    assert end == (b"" if answered else None)
