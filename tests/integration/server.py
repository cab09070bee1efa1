"""Starts the binary `tessera` for a test, talks to it, and makes sure that nothing of it is left.

Every test of this folder that needs a running server goes through `Server`. It starts the binary on free
loopback ports, waits until it serves, keeps its logs for the failure message, and ends it: by `stop`, which
asserts a clean exit without leftovers, or at the end of the test, which kills whatever is there. Its
processes are found by a mark in their environment, which children inherit, so an orphan cannot hide.

Deadlines are generous: they bound a hung test and measure nothing.
"""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

MODEL = "models/demo"
CLUSTER = ("--workers", "4", "--comm", "mpi", "--engram-shards", "2")
MARK = "TESSERA_TEST_RUN"
PATIENCE = 60.0  # seconds until a wait is called a hang
PR_SET_PDEATHSIG = 1

_binary = "build/cpu/tessera"


def binary():
    return _binary


def main():
    """Runs the tests of the calling script, as `x_test.py BINARY [unittest arguments]`."""
    global _binary
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and os.path.isfile(arguments[0]):
        _binary = arguments.pop(0)
    unittest.main(argv=[sys.argv[0], *arguments], verbosity=2, failfast=False)


def has_mpi():
    return shutil.which("mpirun") is not None


def wait_until(condition, what, patience=PATIENCE):
    """Returns the first true value of `condition()`; fails with `what` when none comes."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(0.005)


def run(*arguments, environment=None, patience=PATIENCE):
    """Runs `tessera ARGUMENTS` to its end; returns the CompletedProcess with text output."""
    return subprocess.run(
        [_binary, *map(str, arguments)], capture_output=True, text=True, timeout=patience,
        env={**os.environ, **(environment or {})}, check=False)


def _end_with_parent():
    # A test that ctest kills takes the server with it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Reply:
    """A whole answer."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


class Stream:
    """A streamed answer: iterate over its events, or close it early, as a client that goes away."""

    def __init__(self, connection, response):
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.done = False  # [DONE] was seen

    def events(self):
        """Yields each event's JSON; returns at [DONE] and at the end of the connection."""
        for line in self._lines():
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]":
                self.done = True
                return
            yield json.loads(line[len(b"data: "):])

    def _lines(self):
        while True:
            try:
                line = self._response.readline()
            except (http.client.HTTPException, OSError):
                return
            if not line:
                return
            yield line.rstrip(b"\r\n")

    def close(self):
        self._response.close()
        self._connection.close()


class Generation:
    """What one streamed completion gave: its token ids, text, ending and error."""

    def __init__(self):
        self.tokens = []
        self.text = ""
        self.finish_reason = None
        self.error = None  # of an event, or of the answer that came instead of a stream
        self.status = None
        self.done = False
        self.seconds = 0.0

    def take(self, event):
        if "error" in event:
            self.error = event["error"]
            return
        for choice in event["choices"]:
            self.tokens += choice.get("token_ids") or []
            self.text += choice["text"]
            self.finish_reason = choice["finish_reason"] or self.finish_reason

    def __repr__(self):
        return (f"status {self.status}, {len(self.tokens)} tokens, {self.finish_reason}, "
                f"error {self.error}, done {self.done}, {self.seconds:.1f} s")


class Server:
    """One `tessera serve` with whatever it starts. Use it by `start`, which cleans up after the test."""

    def __init__(self, arguments, environment=None):
        self._folder = tempfile.mkdtemp(prefix="tessera-test-")
        self._mark = uuid.uuid4().hex
        self.scheme = "http"
        self.host = "127.0.0.1"
        self.port = None
        self._out = open(os.path.join(self._folder, "out"), "w+b")
        self._err = open(os.path.join(self._folder, "err"), "w+b")
        command = [_binary, "serve", MODEL, "--port", "0", "--grpc-port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
            env={**os.environ, **(environment or {}), MARK: self._mark},
            preexec_fn=_end_with_parent)

    @property
    def url(self):
        return f"{self.scheme}://{self.host}:{self.port}"

    def _log(self, name):
        return pathlib.Path(self._folder, name).read_text(errors="replace")

    def logs(self):
        """The end of what it wrote, for failure messages."""
        return self._log("out") + self._log("err")[-8000:]

    def wait_ready(self, patience=PATIENCE):
        """Until the banner names the URL, which is after the first step of every rank."""
        def banner():
            found = re.search(r" at (https?)://[^:\s]+:(\d+)", self._log("out"))
            if not found and self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.logs()}")
            return found
        try:
            found = wait_until(banner, "the server printed its URL", patience)
            self.scheme, self.port = found.group(1), int(found.group(2))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    # Talking to it.

    def connect(self, patience=PATIENCE):
        return http.client.HTTPConnection(self.host, self.port, timeout=patience)

    def request(self, method, path, body=None, headers=None, patience=PATIENCE):
        """`body` is sent as it is if it is bytes, else as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = self.connect(patience)
        try:
            connection.request(method, path, body,
                               {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, body, **options)

    def stream(self, body, path="/v1/completions", headers=None, patience=PATIENCE):
        connection = self.connect(patience)
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode(),
                           {"Content-Type": "application/json", **(headers or {})})
        return Stream(connection, connection.getresponse())

    def generate(self, body, headers=None, on_token=None):
        """Runs one streamed completion to its end, whatever that is."""
        generation = Generation()
        begin = time.monotonic()
        try:
            stream = self.stream({**body, "return_token_ids": True}, headers=headers)
            generation.status = stream.status
            if stream.status != 200:
                generation.error = json.loads(b"".join(stream._lines()))["error"]
            else:
                for event in stream.events():
                    generation.take(event)
                    if on_token:
                        on_token()
            generation.done = stream.done
            stream.close()
        except OSError as error:
            generation.error = {"code": "connection", "message": str(error)}
        generation.seconds = time.monotonic() - begin
        return generation

    def generate_all(self, bodies, on_token=None):
        """All of them at once, a thread each."""
        generations = [None] * len(bodies)

        def one(index):
            generations[index] = self.generate(bodies[index], on_token=on_token)
        threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return generations

    def load(self):
        return self.get("/load").json

    def metrics(self, names="native"):
        """{name with labels: value} of a scrape."""
        values = {}
        for line in self.get(f"/metrics?names={names}").body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def wait_idle(self):
        """Until nothing runs or waits and no KV block is in use."""
        def idle():
            load = self.load()
            return load["running"] == load["waiting"] == load["kv_blocks_used"] == 0
        wait_until(idle, "the server is idle")

    # Ending it.

    def processes(self):
        """{pid: words of its command line} of every live process that descends from this server."""
        mark = f"{MARK}={self._mark}".encode()
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                environment = pathlib.Path("/proc", entry, "environ").read_bytes()
                if mark in environment.split(b"\0"):
                    words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                    found[int(entry)] = [word.decode(errors="replace") for word in words]
            except OSError:
                continue  # it ended meanwhile, or is another user's
        return found

    def children(self, role):
        """Pids of its processes with that role, oldest first: worker, engram or mpirun."""
        def plays(words):
            if role == "mpirun":
                return os.path.basename(words[0]) == role
            return os.path.basename(words[0]) == os.path.basename(_binary) and words[1:2] == [role]
        return sorted(pid for pid, words in self.processes().items() if plays(words))

    def send(self, number):
        os.kill(self.process.pid, number)

    def wait_exit(self, patience=PATIENCE):
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience:.0f} s:\n{self.logs()}") from None

    def wait_gone(self, patience=PATIENCE):
        """Until no process is left; ends of children may trail the parent's a little."""
        try:
            wait_until(lambda: not self.processes(), "no process is left", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.processes()}\n{self.logs()}") from None

    def stop(self, number=signal.SIGTERM):
        """Ends it as an operator does; it must exit with 0 and leave nothing behind."""
        self.send(number)
        code = self.wait_exit()
        if code != 0:
            raise AssertionError(f"exit code {code}, expected 0:\n{self.logs()}")
        self.wait_gone()

    def destroy(self):
        """Kills whatever is left; for the end of every test."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def start(test, *arguments, environment=None, ready=True):
    """A server for `test`, a TestCase or one of its classes, ready to serve unless told otherwise."""
    server = Server(arguments, environment)
    add_cleanup = test.addClassCleanup if isinstance(test, type) else test.addCleanup
    add_cleanup(server.destroy)
    if ready:
        server.wait_ready()
    return server


def endless(max_tokens=4000, **fields):
    """The body of a completion that does not end by itself for a while."""
    return {"prompt": "def add(a, b):", "max_tokens": max_tokens, "ignore_eos": True,
            "temperature": 0, **fields}
