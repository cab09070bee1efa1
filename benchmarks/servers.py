"""Servers that a comparison runs side by side: each command on a free port, ready before it is measured."""

import contextlib
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(url, process, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} is not ready")


@contextlib.contextmanager
def running(commands, patience=120):
    """Starts `commands`, with {port} in the place of their port, one after the other; yields their ports; ends all."""
    processes = []
    ports = []
    try:
        for command in commands:
            ports.append(free_port())
            processes.append(subprocess.Popen(shlex.split(command.format(port=ports[-1])), stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL))
            wait_ready(f"http://127.0.0.1:{ports[-1]}", processes[-1], patience)
        yield ports
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
