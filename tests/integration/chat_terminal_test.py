"""`tessera chat` in a terminal: editing, history, several lines, commands, and what Ctrl-C and Ctrl-D do."""

import errno
import json
import os
import pty
import re
import select
import signal
import tempfile
import unittest

import server

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROMPT = "\n\r> "  # drawn from the first column on
QUESTION = "Write a function that adds two numbers."


class Terminal:
    """`tessera chat` on a pseudoterminal."""

    def __init__(self, *arguments, environment=None):
        environment = {**os.environ, "TERM": "xterm", **(environment or {})}
        environment.setdefault("NO_COLOR", "")
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(server.binary(), [server.binary(), "chat", *arguments], environment)
        self.screen = ""
        self.status = None

    def type(self, keys):
        os.write(self.master, keys.encode())

    def read(self, seconds=0.05):
        """Takes in what came; false when the program is gone."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        self.screen += data.decode(errors="replace")
        return data != b""

    def wait_for(self, text, begin=0):
        """Until the screen shows `text` after `begin`; returns where it ends."""
        def shown():
            self.read()
            found = self.plain.find(text, begin)
            return found + len(text) if found >= 0 else None
        try:
            return server.wait_until(shown, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.plain[begin:]!r}") from None

    @property
    def plain(self):
        """The screen without escape sequences, rows that were drawn anew several times over."""
        return ESCAPES.sub("", self.screen)

    def wait_exit(self):
        def ended():
            while self.read() and self.status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.status = os.waitstatus_to_exitcode(status)
            if self.status is None:
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            return True
        server.wait_until(ended, "the program ends")
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


class ChatTerminal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, "--max-num-seqs", "4")

    def chat(self, *arguments, **options):
        terminal = Terminal("--url", self.server.url, "--temperature", "0", *arguments, **options)
        self.addCleanup(terminal.close)
        terminal.wait_for("/help lists the commands")
        terminal.wait_for("> ")
        return terminal

    def ask(self, terminal, keys):
        """Types and waits for the next prompt; returns what was shown for it."""
        begin = len(terminal.plain)
        terminal.type(keys)
        terminal.wait_for("\r\n", begin)
        end = terminal.wait_for(PROMPT, begin)
        return terminal.plain[begin:end]

    def test_a_reply_is_styled_and_ctrl_d_leaves(self):
        terminal = self.chat()
        shown = self.ask(terminal, QUESTION + "\r")
        self.assertIn("def add(a, b):", shown)
        self.assertNotIn("```", shown)
        self.assertIn("\x1b[36m", terminal.screen)
        terminal.type("\x04")
        self.assertEqual(terminal.wait_exit(), 0)

    def test_without_colour_nothing_is_styled(self):
        terminal = self.chat(environment={"NO_COLOR": "1"})
        self.assertIn("```python", self.ask(terminal, QUESTION + "\r"))
        self.assertNotRegex(terminal.screen, r"\x1b\[[0-9;]*m")

    def test_ctrl_c_stops_a_reply_and_not_the_program(self):
        terminal = self.chat()
        # Nonsense has no early end, and the server's other slots keep it slow enough to be stopped in the middle.
        self.ask(terminal, "/set temperature 2\r")
        others = [self.server.stream(server.endless()) for _ in range(3)]
        for stream in others:
            self.addCleanup(stream.close)
        server.wait_until(lambda: self.server.load()["running"] == 3, "the others run")
        begin = len(terminal.plain)
        terminal.type(QUESTION + "\r")
        server.wait_until(lambda: self.server.load()["running"] == 4, "the reply streams")
        terminal.type("\x03")
        terminal.wait_for("(stopped)", begin)
        terminal.wait_for(PROMPT, begin)
        server.wait_until(lambda: self.server.load()["running"] == 3, "the request is gone")
        self.assertIn("thinking is off", self.ask(terminal, "/think off\r"))

    def test_history_editing_and_several_lines(self):
        terminal = self.chat("--max-tokens", "8")
        self.ask(terminal, "/set seed 1\r")
        self.assertIn("seed is 1", terminal.plain)
        begin = len(terminal.plain)
        self.ask(terminal, "\x1b[A\x7f2\r")  # the entry before, its last character replaced
        self.assertIn("seed is 2", terminal.plain[begin:])
        self.ask(terminal, "one\\\rtwo\r")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "chat.json")
            self.ask(terminal, f"/save {path}\r")
            with open(path, encoding="utf-8") as file:
                messages = json.load(file)["messages"]
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertEqual(messages[0], {"role": "user", "content": "one\ntwo"})
        self.assertRegex(self.ask(terminal, "/stats\r"), r"prompt \d+ \(0 cached\), generated [1-8]; \w+")

    def test_ctrl_c_twice_at_the_prompt_leaves(self):
        terminal = self.chat()
        begin = len(terminal.plain)
        terminal.type("half a line\x03")
        terminal.wait_for("Ctrl-C again", begin)
        terminal.wait_for(PROMPT, begin)
        terminal.type("\x03")
        self.assertEqual(terminal.wait_exit(), 0)

    def test_errors_are_clear_and_the_question_can_be_asked_again(self):
        terminal = self.chat()
        self.ask(terminal, "/model nope\r")
        self.assertIn("error: the server answered 404: the model `nope` does not exist",
                      self.ask(terminal, "Hello\r"))
        self.ask(terminal, "/model demo\r")
        self.assertGreater(len(self.ask(terminal, "/retry\r")), 15)


if __name__ == "__main__":
    server.main()
