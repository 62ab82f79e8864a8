"""The TCP relay between the adb server and a device's adbd, which can imitate a bad connection."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

ADBD = ("127.0.0.1", 5555)
CHUNK = 1 << 16
HEADER = struct.Struct("<6I")
AUTH, TOKEN, SIGNATURE = 0x48545541, 1, 2
MAX_PAYLOAD = 1 << 20


class SimulatedLink:
    """Relay every connection with the faults in its settings, which may change at any time.

    It connects to `ADBD` in the network namespace of the calling thread.
    """

    def __init__(self) -> None:
        self.cut_after: int | None = None
        """Number of bytes to the device after which the cable is unplugged; None for never."""
        self.out_for_s = 0.0
        """Seconds for which it stays unplugged."""
        self.bytes_per_second: int | None = None
        self._plugged = asyncio.Event()
        self._plugged.set()
        self._back: asyncio.TimerHandle | None = None
        self._authorized = asyncio.Event()
        self._authorized.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._accept, sock=listener)
        await server.serve_forever()

    def authorize(self, authorized: bool) -> None:
        """Set the user's answer to the authorisation dialog; a withdrawal drops the connections."""
        if authorized:
            self._authorized.set()
        elif self._authorized.is_set():
            self._authorized.clear()
            self.drop()

    def unplug(self, seconds: float) -> None:
        self._plugged.clear()
        self._plug_in_after(seconds)
        self.drop()

    def heal(self) -> None:
        self.cut_after = self.bytes_per_second = None
        self._plug_in_after(0)
        self.authorize(True)

    def _plug_in_after(self, seconds: float) -> None:
        """Plug the cable in again after some seconds; the last call replaces earlier ones."""
        if self._back:
            self._back.cancel()
        if seconds:
            self._back = asyncio.get_running_loop().call_later(seconds, self._plugged.set)
        else:
            self._plugged.set()

    def drop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._plugged.is_set():
            return
        greeting = b"" if self._authorized.is_set() else await self._refuse(reader, writer)
        device_reader, device_writer = await asyncio.open_connection(*ADBD)
        try:
            device_writer.write(greeting)
            pumps = (self._pump(reader, device_writer, True), self._pump(device_reader, writer, False))
            tasks = [asyncio.ensure_future(pump) for pump in pumps]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            device_writer.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Behave like a phone with an open dialog; return the host's greeting once the user has accepted."""
        greeting = await _link_message(reader)
        asking = asyncio.ensure_future(_ask_for_keys_on_link(reader, writer))
        try:
            await self._authorized.wait()
        finally:
            asking.cancel()
        return greeting

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, upwards: bool) -> None:
        while data := await source.read(CHUNK):
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)
            if upwards and self.cut_after is not None:
                self.cut_after -= len(data)
                if self.cut_after < 0:
                    self.cut_after = None
                    self.unplug(self.out_for_s)
                    return
            sink.write(data)
            await sink.drain()


async def _link_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(HEADER.size)
    length = HEADER.unpack(header)[3]
    return header + await reader.readexactly(min(length, MAX_PAYLOAD))


async def _ask_for_keys_on_link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse every signature and ignore a public key, as a phone does while its dialog is open."""
    kind = SIGNATURE
    while True:
        if kind == SIGNATURE:
            writer.write(_link_auth_token())
            await writer.drain()
        kind = HEADER.unpack((await _link_message(reader))[: HEADER.size])[1]


def _link_auth_token() -> bytes:
    token = os.urandom(20)
    return HEADER.pack(AUTH, TOKEN, 0, len(token), sum(token), AUTH ^ 0xFFFFFFFF) + token
