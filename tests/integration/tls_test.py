"""`tessera serve` inside TLS: the real `openai` client, certificates that change while it runs, mistakes in the files."""

import json
import pathlib
import ssl
import subprocess
import tempfile
import unittest

import httpx
import openai

import server

PROMPT = "def add(a, b):"


def make_certificate(folder, name):
    """A self-signed certificate for 127.0.0.1 and its key, written into `folder`."""
    certificate, key = pathlib.Path(folder, name + ".pem"), pathlib.Path(folder, name + ".key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class Tls(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.certificate, self.key = make_certificate(self.folder, "server")

    def serve(self, *arguments, **options):
        running = server.start(self, "--ssl-certfile", self.certificate, "--ssl-keyfile", self.key,
                               *arguments, **options)
        self.assertTrue(running.url.startswith("https://"), running.url)
        return running

    def client(self, running, authority=None, **options):
        context = ssl.create_default_context(cafile=authority or self.certificate)
        transport = httpx.Client(verify=context, timeout=server.PATIENCE)
        self.addCleanup(transport.close)
        return openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0,
                             http_client=transport, **options)

    def test_the_openai_client_that_trusts_the_certificate_is_served_and_others_turn_away(self):
        running = self.serve()
        client = self.client(running)
        request = {"model": "demo", "prompt": PROMPT, "temperature": 0, "max_tokens": 16}
        whole = client.completions.create(**request)
        pieces = client.completions.create(**request, stream=True)
        self.assertEqual("".join(piece.choices[0].text for piece in pieces), whole.choices[0].text)
        with self.assertRaises(openai.BadRequestError):
            client.completions.create(**{**request, "temperature": -1})
        with self.assertRaises(openai.APIConnectionError) as caught:
            self.client(running, make_certificate(self.folder, "other")[0]).models.list()
        self.assertIn("CERTIFICATE_VERIFY_FAILED", repr(caught.exception.__cause__))
        # Plain HTTP is told what is wrong; the server is none the worse for it.
        answer = httpx.get(running.url.replace("https", "http") + "/livez")
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (400, "https_required"))
        self.assertEqual([model.id for model in client.models.list()], ["demo"])
        running.stop()

    def test_a_client_that_leaves_stops_its_request(self):
        running = self.serve()
        stream = self.client(running).completions.create(
            model="demo", prompt=PROMPT, max_tokens=400, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()

        def idle():
            load = httpx.get(running.url + "/load", verify=ssl.create_default_context(cafile=self.certificate))
            return load.json()["running"] == 0
        server.wait_until(idle, "the request ended")

    def test_a_renewed_certificate_is_taken_while_a_stream_runs(self):
        running = self.serve()
        stream = self.client(running).completions.create(
            model="demo", prompt=PROMPT, max_tokens=400, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        self.certificate.write_text("no certificate")
        server.wait_until(lambda: "certificates stay as they are" in running.logs(), "the mistake is told")
        self.client(running, self.renew(running)).models.list()
        self.assertEqual([chunk for chunk in stream][-1].choices[0].finish_reason, "length")

    def renew(self, running):
        """Replaces certificate and key by new ones and waits until the server read them."""
        certificate, key = make_certificate(self.folder, "renewed")
        key.replace(self.key)
        self.certificate.write_text(certificate.read_text())
        context = ssl.create_default_context(cafile=certificate)

        def taken():
            try:
                return httpx.get(running.url + "/livez", verify=context).status_code == 200
            except httpx.ConnectError:
                return False
        server.wait_until(taken, "the new certificate is in use")
        return certificate

    def test_files_that_cannot_serve_are_named_before_a_model_is_loaded(self):
        other = make_certificate(self.folder, "other")[1]
        missing = pathlib.Path(self.folder, "missing.pem")
        for arguments, named in ((("--ssl-certfile", missing, "--ssl-keyfile", self.key), missing),
                                 (("--ssl-certfile", self.certificate, "--ssl-keyfile", missing), missing),
                                 (("--ssl-certfile", self.key, "--ssl-keyfile", self.key), self.key),
                                 (("--ssl-certfile", self.certificate, "--ssl-keyfile", other), other),
                                 (("--ssl-certfile", self.certificate), "--ssl-keyfile")):
            ended = server.run("serve", "/no/model", "--port", "0", *arguments)
            self.assertEqual(ended.returncode, 2, ended)
            self.assertIn(str(named), ended.stderr)

    def test_the_own_clients_speak_to_whom_they_trust(self):
        running = self.serve()

        def chat(*arguments, url=running.url):
            return subprocess.run([server.binary(), "chat", "--url", url, "--temperature", "0", *arguments],
                                  input="Hello\n", capture_output=True, text=True, timeout=server.PATIENCE,
                                  check=False)
        trusting = chat("--ca-file", self.certificate)
        self.assertEqual(trusting.returncode, 0, trusting)
        self.assertIn("Hello!", trusting.stdout)
        for refused in (chat(), chat("--ca-file", make_certificate(self.folder, "other")[0]),
                        # The certificate is for the address alone.
                        chat("--ca-file", self.certificate, url=running.url.replace("127.0.0.1", "localhost"))):
            self.assertNotEqual(refused.returncode, 0, refused)
            self.assertIn("certificate verify failed", refused.stderr)
        result = pathlib.Path(self.folder, "result.json")
        bench = server.run("bench", "serve", "--base-url", running.url, "--ca-file", self.certificate,
                           "--num-prompts", 8, "--random-input-len", 8, "--random-output-len", 8,
                           "--result-filename", result)
        self.assertEqual(bench.returncode, 0, bench)
        self.assertEqual(json.loads(result.read_text())["completed"], 8)


if __name__ == "__main__":
    server.main()
