"""Boards that are reached over TVM's RPC tracker: what is compiled here is sent there, and timed by their clock."""

import json
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tuner.device import Device
from tuner.errors import RequestError
from tuner.system.energy import Reading

_MAGIC = struct.pack("<i", 0x2F271)  # of the tracker, and its code for a summary: tvm/rpc/base.py
_SUMMARY = 6
_LIMIT_S = 5.0


@dataclass(frozen=True)
class TvmBoard(Device):
    """`tracker` is HOST:PORT, `key` the name under which the board's servers are registered there.

    A server answers one process at a time, and a race has several: finalists, their rivals, the reference. So `least`
    are started on the board.
    """

    tracker: str | None = None
    key: str | None = None

    name: ClassVar[str] = "tvm_board"
    kind: ClassVar[str] = "a board that TVM's RPC tracker knows"
    far: ClassVar[bool] = True
    reference: ClassVar[str | None] = "tuner.plugins.backends.tvm.TVM"
    least: ClassVar[int] = 10

    def at(self, remote: Mapping[str, str | None]) -> Device:
        if unknown := remote.keys() - {"tracker", "key"}:
            raise RequestError(f"target.remote.{min(unknown)}: no such key; there are tracker and key")
        tracker = remote.get("tracker")
        if tracker is not None and not re.fullmatch(r".+:\d{1,5}", str(tracker)):
            raise RequestError(f"target.remote.tracker={tracker}: must be HOST:PORT, such as 192.168.1.5:9190")
        return TvmBoard(tracker, remote.get("key"))

    def found(self) -> tuple[str, ...]:
        """Those of a target's tracker and key, as many as there are servers."""
        if self.tracker is None or self.key is None:
            return ()
        return (self._name,) * self.servers().get(self.key, 0)

    def absence(self) -> str:
        return "none (target.remote says where: its tracker, and its key there)"

    def find(self, device_name: str | None) -> str:
        if self.tracker is None or self.key is None:
            raise RequestError(
                "say where the board is: target.remote.tracker=HOST:PORT target.remote.key=KEY, as given to "
                "python -m tvm.exec.rpc_server --tracker=HOST:PORT --key=KEY on the board"
            )
        servers = self.servers()
        count = servers.get(self.key, 0)
        if 0 < count < self.least:
            raise RequestError(
                f"{self.key!r} at {self.tracker} has {count} of the {self.least} servers that a race may need, one for "
                "each artifact in it: start more on the board, python -m tvm.exec.rpc_server …"
            )
        if not count:
            known = ", ".join(sorted(servers)) or "none"
            raise RequestError(
                f"the tracker at {self.tracker} knows no board {self.key!r}, but {known}; start on the board: "
                f"python -m tvm.exec.rpc_server --tracker={self.tracker} --key={self.key}"
            )
        return self._name

    def servers(self) -> dict[str, int]:
        """How many servers the tracker has of each key. Raises RequestError where no tracker answers."""
        listed = [str(server["key"]).partition(":")[2] for server in self._summary()["server_info"]]
        return {key: listed.count(key) for key in listed}

    def free(self) -> int:
        """How many of the board's servers wait for a process. Raises RequestError where no tracker answers."""
        queues = self._summary()["queue_info"]
        return int(queues[self.key]["free"]) if self.key in queues else 0

    @property
    def _name(self) -> str:
        return f"{self.key} at {self.tracker}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the tracker."""
        host, _, port = str(self.tracker).rpartition(":")
        return host, int(port)

    @property
    def lock(self) -> str:
        return re.sub(r"[^\w.-]", "_", f"{self.name}-{self.key}-{self.tracker}")

    def energy(self) -> Reading:
        return ()  # this machine's counters say nothing of the board

    def facts(self, device_name: str | None) -> Mapping[str, str | float]:
        return {"name": self.find(device_name), "servers": self.servers().get(str(self.key), 0)}

    def _summary(self) -> dict[str, Any]:
        """What TVM's `TrackerSession.summary` gives; that waits for a tracker that is not there, and loads TVM."""
        try:
            with socket.create_connection(self.address, _LIMIT_S) as connection:
                connection.sendall(_MAGIC)
                if _read(connection, 4) != _MAGIC:
                    raise RequestError(f"what answers at {self.tracker} is no tracker of TVM's RPC")
                asked = json.dumps([_SUMMARY]).encode()
                connection.sendall(struct.pack("<i", len(asked)) + asked)
                (size,) = struct.unpack("<i", _read(connection, 4))
                summary: dict[str, Any] = json.loads(_read(connection, size))[1]
                return summary
        except (OSError, OverflowError, ValueError, struct.error) as error:
            raise RequestError(
                f"no tracker of TVM's RPC answers at {self.tracker} ({error}); start one: python -m "
                "tvm.exec.rpc_tracker --host=0.0.0.0 --port=9190"
            ) from error


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises OSError where the other side has ended before."""
    received = b""
    while len(received) < size:
        part = connection.recv(min(size - len(received), 65536))
        if not part:
            raise OSError("it hung up")
        received += part
    return received
