"""What another tenant has cached cannot be told from the time to the first token.

One tenant, "owner", sends a prompt of tokens drawn by chance. Then, in random order, "guesser" sends the same
prompt, which must be a miss for it, and a fresh one of the same length, which is one; and the owner sends its
prompt again, which is a hit. Each time is the client's, from the request to the whole answer of one token.

The pairs are compared by Wilcoxon's signed-rank test, which supposes no distribution: if a foreign prompt is
treated like a fresh one, their difference is as often above zero as below, size for size. A test at 0.05
fails one time in twenty where nothing is wrong, so that a significant result is repeated once with fresh
prompts, and counts only if that one is significant too and in the same direction: a false alarm in
0.05 * 0.025 = 1 of 800 runs. That the test sees what is there, its control shows: over the same rounds the
owner's hits must differ from the misses with p < 0.001.

The short version looks at what does not depend on time: cached_tokens. TESSERA_LONG_TESTS=1 has 1,000 rounds.
"""

import http.client
import itertools
import json
import math
import os
import pathlib
import random
import tempfile
import time
import unittest

import server

LONG = "TESSERA_LONG_TESTS" in os.environ
ROUNDS = 1000 if LONG else 12
PROMPT_TOKENS = 129  # eight blocks and a token to compute
CACHED_TOKENS = 128
TOKENS = range(300, 2000)  # of the demo model's vocabulary, no special ones


def rank_sum(differences):
    """The signed-rank sum and its variance when each sign is by chance; equal sizes share their ranks."""
    ordered = sorted((d for d in differences if d != 0), key=abs)
    total = variance = first = 0
    for _, group in itertools.groupby(ordered, key=abs):
        group = list(group)
        rank = first + (len(group) + 1) / 2
        first += len(group)
        total += sum(math.copysign(rank, d) for d in group)
        variance += len(group) * rank * rank
    return total, variance


def signed_rank_test(differences):
    """Two-sided p of Wilcoxon's test by its normal limit."""
    total, variance = rank_sum(differences)
    return math.erfc(abs(total) / math.sqrt(2 * variance)) if variance else 1.0


class SignedRankTest(unittest.TestCase):
    def test_it_is_near_the_share_of_all_signs_that_are_as_extreme(self):
        differences = [1, 2, -3, 4, 5, 5, -6, 7, 8, 9, 10, -11]
        seen = abs(rank_sum(differences)[0])
        sums = [abs(rank_sum([s * d for s, d in zip(signs, differences)])[0])
                for signs in itertools.product((1, -1), repeat=len(differences))]
        exact = sum(s >= seen for s in sums) / len(sums)
        self.assertAlmostEqual(signed_rank_test(differences), exact, delta=0.02)
        self.assertLess(signed_rank_test(range(1, 30)), 1e-5)
        self.assertEqual(signed_rank_test([0, 0]), 1.0)


class Client:
    """Prompts of one tenant over one connection."""

    def __init__(self, running, key):
        self._connection = http.client.HTTPConnection(running.host, running.port, timeout=server.PATIENCE)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def send(self, prompt):
        """Seconds until the first token, and how many of the prompt's tokens were cached."""
        body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0})
        begin = time.perf_counter()
        self._connection.request("POST", "/v1/completions", body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - begin
        assert response.status == 200, answer
        return seconds, json.loads(answer)["usage"]["prompt_tokens_details"]["cached_tokens"]

    def close(self):
        self._connection.close()


class TenantTiming(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name, "keys")
        keys = {}
        for tenant in ("owner", "guesser"):
            made = server.run("key", "--tenant", tenant, "--append", path)
            self.assertEqual(made.returncode, 0, made)
            keys[tenant] = made.stdout.split("\n", 1)[0]
        running = server.start(self, "--api-key-file", path)
        self.owner, self.guesser = (Client(running, keys[tenant]) for tenant in ("owner", "guesser"))
        self.addCleanup(self.owner.close)
        self.addCleanup(self.guesser.close)

    def play(self, chance):
        """Seconds of all rounds by what was sent."""
        seconds = {"foreign": [], "fresh": [], "own": []}
        for _ in range(ROUNDS):
            cached, fresh = (chance.choices(TOKENS, k=PROMPT_TOKENS) for _ in range(2))
            self.assertEqual(self.owner.send(cached)[1], 0)
            sends = [("foreign", self.guesser, cached, 0), ("fresh", self.guesser, fresh, 0),
                     ("own", self.owner, cached, CACHED_TOKENS)]
            chance.shuffle(sends)
            for kind, client, prompt, expected in sends:
                took, hit = client.send(prompt)
                self.assertEqual(hit, expected, f"cached tokens of the {kind} prompt")
                seconds[kind].append(took)
        return seconds

    def compare(self, chance):
        """p and direction of foreign prompts against fresh ones, and p of the control."""
        seconds = self.play(chance)
        def against_fresh(kind):
            differences = [a - b for a, b in zip(seconds[kind], seconds["fresh"])]
            return signed_rank_test(differences), rank_sum(differences)[0] > 0
        p, later = against_fresh("foreign")
        control, _ = against_fresh("own")
        medians = {kind: f"{sorted(times)[ROUNDS // 2] * 1e3:.2f} ms" for kind, times in seconds.items()}
        print(f"{ROUNDS} rounds, medians {medians}: foreign against fresh p = {p:.3f}, "
              f"own against fresh p = {control:.1e}", flush=True)
        return p, later, control

    def test_a_foreign_hit_cannot_be_told_from_a_miss(self):
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        p, later, control = self.compare(chance)
        if not LONG:
            return
        self.assertLess(control, 1e-3, "the control: hits and misses look the same")
        if p < 0.05:
            again, later_again, _ = self.compare(chance)
            self.assertFalse(again < 0.05 and later_again == later,
                             f"told apart twice: p = {p} and {again}")


if __name__ == "__main__":
    server.main()
