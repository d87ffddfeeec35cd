"""A replica's process by itself, without a server around it."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import uvloop

from tests.serve.serving import packaged
from tuner.artifact import read_manifest
from tuner.errors import CandidateError
from tuner.serve.replica import Replica, whole


def test_a_pipe_is_not_watched_after_it_was_closed(tmp_path: Path) -> None:
    folder = packaged(tmp_path / "artifact")
    layout = whole(read_manifest(folder).inputs, 1)
    replica = Replica(folder, 1, tmp_path / "log")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        writer.close()

    async def dying() -> None:
        await replica.start(60)
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        for _ in range(3):
            assert replica.pid is not None
            process = psutil.Process(replica.pid)
            os.kill(replica.pid, signal.SIGKILL)
            with contextlib.suppress(psutil.NoSuchProcess):  # it may be reaped between the two questions
                while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(0.01)  # the event loop stands still
            with pytest.raises(CandidateError):
                await replica.call(layout, 60)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"!")  # through the descriptor that was the replica's
            assert await reader.read() == b"!"
            await replica.start(60)
            assert await replica.call(layout, 60)
            writer.close()

    async def ended() -> None:
        try:
            async with asyncio.timeout(60):
                await dying()
        finally:
            replica.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ended())
