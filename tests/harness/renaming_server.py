"""A relay in front of an adb server that gives devices other serials, with spaces as some phones have."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from android_harness.simulator.server import wait_for_server_port

LISTS = ("host:devices", "host:devices-l")
PROGRAM = ("setpriv", "--pdeathsig", "KILL", sys.executable, __file__)
TRACKERS = ("host:track-devices", "host:track-devices-l")


@contextmanager
def renaming_server(server_port: int, serials: Mapping[str, str]) -> Iterator[int]:
    """Run a relay in front of the adb server at `server_port`; yield its port. `serials`: real -> shown."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        pairs = [part for pair in serials.items() for part in pair]
        relay = subprocess.Popen(
            [*PROGRAM, str(listener.fileno()), str(server_port), *pairs],
            pass_fds=[listener.fileno()],
        )
    try:
        wait_for_server_port(port, relay)
        yield port
    finally:
        relay.kill()
        relay.wait()


class Relay:
    """Answers clients as the adb server would if the devices were called otherwise."""

    def __init__(self, server_port: int, serials: Mapping[str, str]) -> None:
        self.server_port = server_port
        self.serials = serials

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
            request = (await _packet(reader)).decode()
            server_writer.write(_framed(self.to_server(request)))
            listing = asyncio.ensure_future(self._answer(request, server_reader, writer))
            await asyncio.gather(_pipe(reader, server_writer), listing)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def to_server(self, request: str) -> str:
        """The request with the real serial in place of the shown one."""
        for real, shown in self.serials.items():
            request = request.replace(shown, real)
        return request

    def to_client(self, listing: str) -> str:
        """Lines of "serial state ..." with the shown serials."""
        for real, shown in self.serials.items():
            listing = listing.replace(real, shown)
        return listing

    async def _answer(self, request: str, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if request in LISTS + TRACKERS:
            client.write(await server.readexactly(4))
            client.write(_framed(self.to_client((await _packet(server)).decode())))
            while request in TRACKERS:
                await client.drain()
                client.write(_framed(self.to_client((await _packet(server)).decode())))
        await _pipe(server, client)


async def _packet(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int(await reader.readexactly(4), 16))


def _framed(text: str) -> bytes:
    data = text.encode()
    return b"%04x%s" % (len(data), data)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()
    with suppress(OSError):
        sink.write_eof()


async def _main(listener: socket.socket, relay: Relay) -> None:
    await (await asyncio.start_server(relay.accept, sock=listener)).serve_forever()


if __name__ == "__main__":
    _, fd, real_port, *names = sys.argv
    renamed = dict(zip(names[::2], names[1::2], strict=True))
    asyncio.run(_main(socket.socket(fileno=int(fd)), Relay(int(real_port), renamed)))
