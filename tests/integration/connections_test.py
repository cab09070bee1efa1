"""Thousands of idle connections and hundreds of streams at once: all streams finish, counters are right, memory is bounded.

With TESSERA_LONG_TESTS set: 10,000 idle connections and 1,000 streams, instead of 2,000 and 200.
"""

import json
import os
import pathlib
import resource
import selectors
import socket
import time
import unittest

import server

LONG = bool(os.environ.get("TESSERA_LONG_TESTS"))
IDLE, STREAMS, TOKENS = (10000, 1000, 32) if LONG else (2000, 200, 16)
# What the server may keep for a connection between two requests, the allocator's slack included.
IDLE_BYTES_MAX = 8 << 10


def request_text(method, path, body=None):
    data = json.dumps(body).encode() if body is not None else b""
    return (f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def is_whole(answer):
    """Whether `answer` is one complete answer, by its length or by its last chunk."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"\r\n0\r\n\r\n")


def exchange(connections, requests, patience=server.PATIENCE * 4):
    """Sends each connection its request and returns the answers, read from all of them at once."""
    answers = [b""] * len(connections)
    left = len(connections)
    deadline = time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        for index, connection in enumerate(connections):
            selector.register(connection, selectors.EVENT_READ, index)
            connection.sendall(requests[index])
        while left:
            if time.monotonic() > deadline:
                raise AssertionError(f"{left} of {len(connections)} answers are not whole after {patience} s")
            for key, _ in selector.select(1.0):
                data = key.fileobj.recv(1 << 16)
                answers[key.data] += data
                if not data or is_whole(answers[key.data]):
                    selector.unregister(key.fileobj)
                    left -= 1
    return answers


def events(answer):
    """The JSON of each event of a stream, and whether it ended with [DONE]."""
    lines = [line for line in answer.split(b"\n") if line.startswith(b"data: ")]
    done = bool(lines) and lines[-1] == b"data: [DONE]"
    return [json.loads(line[6:]) for line in lines if line != b"data: [DONE]"], done


def resident_bytes(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class ConnectionsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < IDLE + STREAMS + 600:
            raise unittest.SkipTest(f"the limit of open files is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
        cls.server = server.start(cls, "--max-num-seqs", STREAMS, "--max-waiting", STREAMS, "--log-level", "warning",
                                  "--max-model-len", "64", "--num-kv-blocks", 4 * STREAMS + 64)

    def connect(self, count):
        connections = []
        for _ in range(count):
            connection = socket.create_connection((self.server.host, self.server.port), server.PATIENCE)
            self.addCleanup(connection.close)
            connections.append(connection)
        return connections

    def test_streams_finish_beside_idle_connections(self):
        probe = request_text("GET", "/livez")
        # A first round warms the allocator, so that what is measured is what connections keep.
        warm = self.connect(100)
        exchange(warm, [probe] * len(warm))
        before = resident_bytes(self.server.process.pid)
        idle = self.connect(IDLE)
        answers = exchange(idle, [probe] * IDLE)
        self.assertTrue(all(answer.startswith(b"HTTP/1.1 200") for answer in answers))
        each = (resident_bytes(self.server.process.pid) - before) / IDLE
        print(f"{each:.0f} bytes for an idle connection")
        self.assertLess(each, IDLE_BYTES_MAX)

        counters = self.server.metrics()
        streams = self.connect(STREAMS)
        bodies = [request_text("POST", "/v1/completions", {
            "prompt": f"def f{i}(x):", "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}) for i in range(STREAMS)]
        for answer in exchange(streams, bodies):
            chunks, done = events(answer)
            self.assertTrue(done, answer[-200:])
            self.assertEqual(chunks[-1]["usage"]["completion_tokens"], TOKENS)

        # Keep-alive survives a stream, and the idle connections were not forgotten.
        for connections in (streams, idle):
            for answer in exchange(connections, [probe] * len(connections)):
                self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer[:100])
        self.server.wait_idle()
        after = self.server.metrics()

        def grown(name):
            return after[name] - counters.get(name, 0)
        self.assertEqual(after["tessera_http_streams_open"], 0)
        answered = [name for name in after if name.startswith("tessera_http_requests_total")
                    and 'route="/v1/completions"' in name and 'code="200"' in name]
        self.assertEqual(sum(map(grown, answered)), STREAMS)
        self.assertEqual(grown("tessera_generation_tokens_total"), STREAMS * TOKENS)
        self.assertEqual(grown("tessera_http_client_disconnects_total"), 0)


if __name__ == "__main__":
    server.main()
