"""The command line: help, version, options from every source, nonsense."""

import os
import re
import shutil
import tempfile
import unittest

import server


def subcommands():
    """Those that --help lists."""
    text = server.run("--help").stdout
    return re.findall(r"^  ([a-z]+)  ", text.split("Subcommands:")[1].split("Options:")[0], re.M)


class CommandLine(unittest.TestCase):
    def test_every_subcommand_has_help(self):
        names = subcommands()
        self.assertLessEqual({"serve", "inspect", "trace"}, set(names))
        for name in names:
            with self.subTest(name=name):
                got = server.run(name, "--help")
                self.assertEqual(got.returncode, 0, got)
                self.assertIn("--help", got.stdout)
                self.assertEqual(got.stderr, "")

    def test_every_subcommand_refuses_an_unknown_option_and_starts_nothing(self):
        for name in subcommands():
            with self.subTest(name=name):
                words = [name, "serve"] if name == "bench" else [name]
                got = server.run(*words, "--no-such-option")
                self.assertEqual(got.returncode, 2, got)
                self.assertIn("--no-such-option", got.stderr)
                self.assertEqual(got.stdout, "")

    def test_bench_says_what_it_can_measure(self):
        got = server.run("bench", "--help")
        for kind in ("serve", "decode", "prefill"):
            self.assertRegex(got.stdout, rf"(?m)^  {kind} ")
            self.assertEqual(server.run("bench", kind, "--help").returncode, 0)
        self.assertEqual(server.run("bench", "frobnicate").returncode, 2)

    def test_help_and_version(self):
        self.assertEqual(server.run("--help").returncode, 0)
        version = server.run("--version")
        self.assertEqual(version.returncode, 0)
        self.assertRegex(version.stdout, r"^tessera \d+\.\d+\.\d+")

    def test_nonsense_is_a_usage_error(self):
        for arguments in ([], ["frobnicate"], ["--frobnicate"]):
            with self.subTest(arguments=arguments):
                got = server.run(*arguments)
                self.assertEqual(got.returncode, 2)
                self.assertIn("Usage", got.stderr)

    def test_serve_names_what_is_wrong(self):
        for arguments, word in (
                (["--port", "x"], "--port"),
                (["--port", "70000"], "--port"),
                (["--port"], "--port"),
                (["-tp", "3"], "tensor parallel size 3"),
                (["--backend", "abacus"], "--backend"),
                (["--dtype", "float8"], "--dtype"),
                (["--max-num-seqs", "0"], "--max-num-seqs"),
                (["--max-num-seqs", "4097"], "--max-num-seqs"),
                (["--request-timeout", "soon"], "--request-timeout"),
                (["--workers", "3", "-tp", "2", "--comm", "mpi"], "--workers 3"),
                (["--workers", "2", "--comm", "in-process"], "mpi"),
                (["--comm", "mpi"], "--workers"),
                (["--engram-shards", "2"], "--engram-shards 2"),
                (["--numa", "mirror"], "--numa"),
                (["-dp", "2", "--numa", "bind"], "--workers 2"),
                (["--backend", "reference", "--numa", "interleave"], "--backend cpu"),
                (["--workers", "2", "--comm", "mpi", "--pin-threads", "--threads-per-rank", "1024"],
                 "--pin-threads of 1024 threads"),
                (["two", "models"], "models")):
            with self.subTest(arguments=arguments):
                got = server.run("serve", "--port", "0", "--grpc-port", "0", *arguments)
                self.assertEqual(got.returncode, 2, got)
                self.assertIn(word, got.stderr)
                self.assertEqual(got.stdout, "")

    def test_options_of_other_servers_are_ignored_or_refused_with_a_reason(self):
        for arguments, word in (
                (["--chat-template", "x"], "chat encoding"),
                (["--pipeline-parallel-size", "2"], "layers"),
                (["--quantization", "fp8"], "formats")):
            with self.subTest(arguments=arguments):
                got = server.run("serve", "--port", "0", *arguments)
                self.assertIn(got.returncode, (1, 2), got)
                self.assertIn(word, got.stderr)
        got = server.run("serve", "--trust-remote-code", "--enforce-eager", "--print-config")
        self.assertEqual(got.returncode, 0, got)
        self.assertIn("no remote code", got.stderr)
        self.assertIn("enforce-eager: true", got.stdout)

    def test_what_this_machine_lacks_ends_it_at_once(self):
        # A group that can never be formed is not worth trying again and again.
        cases = [(["--workers", "2", "--comm", "mpi"], {"PATH": "/no/such/folder"}, "mpirun")]
        with open("/proc/cpuinfo") as info:
            if "amx_tile" not in info.read():
                cases.append((["--cpu-isa", "amx"], {}, "amx"))
        for arguments, environment, word in cases:
            with self.subTest(arguments=arguments):
                got = server.run("serve", "--port", "0", "--grpc-port", "0", *arguments,
                                 environment=environment)
                self.assertIn(got.returncode, (1, 2), got)
                self.assertIn(word, got.stderr)

    def test_a_missing_or_broken_model_is_an_error_with_its_path(self):
        with tempfile.TemporaryDirectory() as folder:
            for model in ("no/such/model", folder):
                got = server.run("serve", model, "--port", "0", "--grpc-port", "0")
                self.assertNotEqual(got.returncode, 0)
                self.assertIn(model, got.stderr)

    def test_a_model_without_tokenizer_is_inspected_and_traced_but_not_served(self):
        for model in ("tests/data/v3", "tests/data/v32", "tests/data/v4", "tests/data/v4_0731", "tests/data/v41"):
            with self.subTest(model=model), tempfile.TemporaryDirectory() as folder:
                got = server.run("inspect", model)
                self.assertEqual(got.returncode, 0, got)
                out = os.path.join(folder, "trace.safetensors")
                got = server.run("trace", model, "--ids", "[1, 2, 3]", "--out", out, "--max-model-len", "64")
                self.assertEqual(got.returncode, 0, got)
                self.assertTrue(os.path.exists(out))
                serve = ["--port", "0", "--grpc-port", "0", "--max-model-len", "64"]
                got = server.run("serve", model, *serve)
                self.assertEqual(got.returncode, 1, got)
                self.assertIn("tokenizer.json", got.stderr)

    def test_a_model_is_tried_from_its_config_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy("tests/data/v4/config.json", folder)
            out = os.path.join(folder, "out.safetensors")
            words = ["trace", folder, "--ids", "[1, 2, 3]", "--out", out, "--max-model-len", "256"]
            got = server.run(*words)
            self.assertNotEqual(got.returncode, 0)
            self.assertIn("model.safetensors", got.stderr)
            cut = ["--override", "num_hidden_layers=3", "--override", "num_nextn_predict_layers=0"]
            got = server.run(*words, "--load-format", "dummy", *cut)
            self.assertEqual(got.returncode, 0, got)
            self.assertTrue(os.path.exists(out))
            got = server.run("inspect", folder, *cut)
            self.assertIn("3 layers", got.stdout)
            self.assertIn("draft       none", got.stdout)
            got = server.run("inspect", folder, "--override", "num_hidden_layers=6")
            self.assertEqual(got.returncode, 2, got)
            self.assertIn("num_hidden_layers is 6, expected at most 5", got.stderr)

    def test_flags_win_over_the_environment_over_the_file(self):
        with tempfile.TemporaryDirectory() as folder:
            config = os.path.join(folder, "config.yaml")
            with open(config, "w") as file:
                file.write("max-num-seqs: 3\nmax-waiting: 4\nblock-size: 8\n"
                           "served-model-name: [one, two]\napi-key: hidden-in-the-file\n")
            environment = {"TESSERA_MAX_WAITING": "5", "TESSERA_BLOCK_SIZE": "32"}
            got = server.run("serve", "--config", config, "--block-size", "16", "--print-config",
                             environment=environment)
            self.assertEqual(got.returncode, 0, got.stderr)
            values = dict(re.findall(r"^([a-z-]+): (.*?)  #", got.stdout, re.M))
            self.assertEqual(values["max-num-seqs"], "3")
            self.assertEqual(values["max-waiting"], "5")
            self.assertEqual(values["block-size"], "16")
            self.assertNotIn("hidden-in-the-file", got.stdout)
            origins = dict(re.findall(r"^([a-z-]+):.*?  # (.*)$", got.stdout, re.M))
            self.assertIn("flag", origins["block-size"])
            self.assertIn("TESSERA_MAX_WAITING", origins["max-waiting"])
            self.assertIn("config.yaml", origins["max-num-seqs"])
            running = server.start(self, "--config", config)
            headers = {"x-api-key": "hidden-in-the-file"}
            models = running.get("/v1/models", headers=headers).json["data"]
            self.assertEqual([model["id"] for model in models], ["one", "two"])

    def test_mistakes_in_the_file_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            config = os.path.join(folder, "config.yaml")
            for text in ("no-such-key: 1\n", "port: 1\nport: 2\n", "port: [1\n", "port: x\n", "- 1\n"):
                with open(config, "w") as file:
                    file.write(text)
                with self.subTest(text=text):
                    got = server.run("serve", "--config", config, "--print-config")
                    self.assertEqual(got.returncode, 2, got)
            got = server.run("serve", "--config", config + ".none", "--print-config")
            self.assertNotEqual(got.returncode, 0, got)
            self.assertIn(".none", got.stderr)

    def test_a_port_in_use_is_an_error_with_its_number(self):
        running = server.start(self)
        got = server.run("serve", server.MODEL, "--port", running.port, "--grpc-port", "0")
        self.assertEqual(got.returncode, 1, got)
        self.assertIn(str(running.port), got.stderr)

    def test_inspect_describes_the_model(self):
        got = server.run("inspect", server.MODEL)
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertIn("deepseek_v4_mla", got.stdout)
        self.assertIn("engram", got.stdout)


if __name__ == "__main__":
    server.main()
