"""Engram tables on disk, behind a cache of a fraction of them: the same tokens, within the memory allowed.

Made-up tables of 48 MB are served through a cache of 1 MiB, by one process with threads as ranks, and by
shard processes. A file that is cut while it is served is an error with a name.
"""

import glob
import os
import re
import tempfile
import unittest

import server

TABLES = ("--load-format", "dummy", "--override", "engram_vocab_size=60000",
          "--max-num-batched-tokens", "64")
CACHE_MIB = 1
SHARDS = ("--workers", "2", "--comm", "mpi", "--engram-shards", "2", "--engram-source", "remote")


def bodies():
    prompts = ["".join(f"def f{number}_{line}(a, b):\n    return a + {line}\n"
                       for line in range(6 + 4 * number)) for number in range(4)]
    made = [server.endless(prompt=text, max_tokens=16) for text in prompts]
    made[1].update(temperature=0.9, seed=1)
    return made


def on_disk(folder):
    return ("--engram-table-folder", folder, "--engram-row-cache-mib", CACHE_MIB,
            "--engram-io-threads", 4)


def private_mib(pid):
    """Of one process, without pages of files."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        kib = dict(re.findall(r"(Rss\w+):\s+(\d+) kB", status.read()))
    return (int(kib["RssAnon"]) + int(kib["RssShmem"])) / 1024


class TablesOnDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        plain = server.start(cls, *TABLES)
        cls.expected = [answer.tokens for answer in plain.generate_all(bodies())]
        cls.plain_mib = private_mib(plain.process.pid)
        plain.stop()
        folder = tempfile.TemporaryDirectory(prefix="tessera-tables-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name

    def files(self, shards):
        return sorted(glob.glob(f"{self.folder}/*_of_{shards}.tsrengt"))

    def test_one_process_gives_the_same_tokens_in_less_memory(self):
        disk = server.start(self, *TABLES, *on_disk(self.folder))
        for _ in range(2):
            self.assertEqual([answer.tokens for answer in disk.generate_all(bodies())], self.expected)
        sizes = [os.path.getsize(path) for path in self.files(1)]
        self.assertEqual(len(sizes), 2)
        self.assertGreater(sum(sizes), 40 * CACHE_MIB << 20)
        self.assertLess(private_mib(disk.process.pid), self.plain_mib - sum(sizes) / 2 / (1 << 20))

    def test_rows_that_are_gone_are_an_error_with_a_name(self):
        disk = server.start(self, *TABLES, *on_disk(self.folder))
        for path in self.files(1):
            os.truncate(path, 1 << 20)
        # The step fails, and its streams with it; none ends as if it were whole.
        answers = disk.generate_all(bodies())
        self.assertTrue(all(answer.error is not None for answer in answers), answers)
        self.assertIn("DATA_LOSS", disk.logs())
        disk.destroy()

    @unittest.skipUnless(server.has_mpi(), "needs mpirun")
    def test_shards_give_the_same_tokens_over_grpc(self):
        disk = server.start(self, *TABLES, *SHARDS, *on_disk(self.folder))
        self.assertEqual([answer.tokens for answer in disk.generate_all(bodies())], self.expected)
        self.assertEqual(len(self.files(2)), 4)

    def test_shards_on_disk_cannot_be_mapped(self):
        done = server.run("serve", server.MODEL, "--workers", "2", "--comm", "mpi", "--engram-shards", "2",
                          "--engram-table-folder", self.folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--engram-source remote", done.stderr)


if __name__ == "__main__":
    server.main()
