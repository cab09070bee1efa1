"""Keys in a file: `tessera key` makes them, a running server reads them again, streams go on."""

import pathlib
import signal
import tempfile
import unittest

import openai
import server


def new_key(*arguments):
    made = server.run("key", *arguments)
    assert made.returncode == 0, made
    return made.stdout.split("\n", 1)[0]


class KeyCommand(unittest.TestCase):
    def test_the_line_holds_the_hash_and_not_the_key(self):
        made = server.run("key", "--tenant", "team-a", "--name", "laptop", "--days", "30")
        self.assertEqual(made.returncode, 0, made)
        key, line = made.stdout.splitlines()
        self.assertRegex(key, r"^sk-[0-9a-f]{64}$")
        self.assertRegex(line, r"^key sha256:[0-9a-f]{64} tenant=team-a name=laptop expires=\S+Z$")
        self.assertNotIn(key[3:], line)

    def test_a_name_that_no_line_can_hold_is_refused(self):
        for arguments in (["--tenant", "a b"], ["--name", "a b"], ["--name", "#x"], ["--days", "0"]):
            self.assertEqual(server.run("key", *arguments).returncode, 2, arguments)


class KeyFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "keys")
        self.key = new_key("--tenant", "team-a", "--append", self.path)

    def status(self, running, key):
        return running.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status

    def test_new_keys_are_taken_while_a_stream_runs_and_old_ones_end(self):
        running = server.start(self, "--api-key-file", self.path)
        self.assertEqual(self.status(running, self.key), 200)
        self.assertEqual(running.get("/v1/models").status, 401)
        client = openai.OpenAI(base_url=running.url + "/v1", api_key=self.key, max_retries=0)
        stream = client.completions.create(model="demo", prompt="a", max_tokens=400, stream=True,
                                           extra_body={"ignore_eos": True})
        first = next(iter(stream))
        self.assertIsNone(first.choices[0].finish_reason)
        old = self.path.read_text()
        other = new_key("--tenant", "team-b", "--append", self.path)
        self.path.write_text(self.path.read_text().replace(old, ""))
        server.wait_until(lambda: self.status(running, other) == 200, "the new key is accepted")
        self.assertEqual(self.status(running, self.key), 401)
        self.assertEqual([chunk for chunk in stream][-1].choices[0].finish_reason, "length")
        for secret in (self.key, other):
            self.assertNotIn(secret, running.logs())

    def test_a_mistake_leaves_the_old_keys_and_names_the_line(self):
        running = server.start(self, "--api-key-file", self.path)
        good = self.path.read_text()
        self.path.write_text(good + "tenant team-a weight=heavy\n")
        running.send(signal.SIGHUP)
        server.wait_until(lambda: "line 2" in running.logs(), "the mistake is logged")
        self.assertEqual(self.status(running, self.key), 200)
        self.path.write_text("# nobody\n")
        server.wait_until(lambda: "no keys are left" in running.logs(), "the empty file is refused")
        self.assertEqual(self.status(running, self.key), 200)

    def test_a_mistake_at_the_start_ends_it(self):
        self.path.write_text("tenant team-a\ntenant team-a\n")
        refused = server.run("serve", server.MODEL, "--port", "0", "--api-key-file", self.path)
        self.assertEqual(refused.returncode, 2, refused)
        self.assertIn("line 2: tenant team-a has two lines", refused.stderr)


if __name__ == "__main__":
    server.main()
