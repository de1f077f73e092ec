"""Keep-alive HTTP clients in one process. Each sends a request after each answer, or all together at a given rate.

What does not belong here: which server and path are measured (`serving`).
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import time
from collections import deque

import msgspec
import numpy as np

MAX_HEADER_BYTES = 65_536


class Load(msgspec.Struct, frozen=True):
    """What the clients measured."""

    seconds: float
    latencies_ms: list[float]
    failed: int
    """Number of answers other than 200 and of connections that broke."""

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the time from a request to its complete answer."""
        return float(np.percentile(self.latencies_ms, percent))


def in_background(address: tuple[str, int], path: str, clients: int, seconds: float, per_s: float = 0.0) -> Running:
    """Start clients in a separate process, so that they do not share an interpreter with the benchmark.

    `per_s` is the rate of all clients together; 0 means as fast as the server answers.
    """
    return Running(address, path, clients, seconds, per_s)


class Running:
    """Clients that are running."""

    def __init__(self, address: tuple[str, int], path: str, clients: int, seconds: float, per_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(sender, address, path, clients, seconds, per_s))
        self._process.start()

    def result(self) -> Load:
        """Wait for the end of the clients and return what they measured."""
        found = msgspec.msgpack.decode(self._receiver.recv_bytes(), type=Load)
        self._process.join()
        return found


def _run(sender, address, path, clients, seconds, per_s) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, PLR0913, PLR0917 - the entry point of a process, whose arguments are pickled
    sender.send_bytes(msgspec.msgpack.encode(_clients(address, path, clients, seconds, per_s)))


def _clients(address: tuple[str, int], path: str, clients: int, seconds: float, per_s: float) -> Load:
    request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection(address, timeout=10) for _ in range(clients)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(each, selectors.EVENT_READ)
    sent_s: dict[socket.socket, float] = {}
    idle = deque(sockets)
    latencies_ms: list[float] = []
    failed, asked = 0, 0
    begin_s = time.perf_counter()
    while (now_s := time.perf_counter()) < begin_s + seconds:
        while idle and (not per_s or asked < (now_s - begin_s) * per_s):
            client = idle.popleft()  # in turn, because a server closes a connection that is not used
            client.sendall(request)
            sent_s[client] = (
                now_s if not per_s else begin_s + asked / per_s
            )  # the latency of a late request counts from when it was due
            asked += 1
        wait_s = begin_s + asked / per_s - now_s if per_s and idle else 0.1
        for key, _ in selector.select(max(0.0, wait_s)):
            client = key.fileobj  # type: ignore[assignment]
            if _answered(client):
                idle.append(client)
            else:
                failed += 1
                selector.unregister(client)
            latencies_ms.append((time.perf_counter() - sent_s.pop(client)) * 1e3)
    took_s = time.perf_counter() - begin_s
    for each in sockets:
        each.close()
    return Load(took_s, latencies_ms, failed)


def _answered(client: socket.socket) -> bool:
    """Read a complete answer and return whether it is a 200. The caller stops using a connection that fails."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := client.recv(MAX_HEADER_BYTES)):
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        if not (more := client.recv(MAX_HEADER_BYTES)):
            return False
        body += more
    return head.startswith(b"HTTP/1.1 200 ")
