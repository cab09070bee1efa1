#!/usr/bin/env python3
"""What a JSON schema compiles to yields only values that the schema allows.

Schemas of the public JSON-Schema test suite (tests/data/json_schema) are compiled, texts are sampled from random
logits at temperature 2 through the mask and the sampler that serve, and a validator that is not ours judges them.
`format` is an annotation here. What does not compile must be refused with a reason. TESSERA_LONG_TESTS=1 takes every schema and more samples.
"""

import json
import os
import random
import subprocess
import sys

import jsonschema_rs

VALIDATORS = {
    "draft4": jsonschema_rs.Draft4Validator,
    "draft6": jsonschema_rs.Draft6Validator,
    "draft7": jsonschema_rs.Draft7Validator,
    "draft2019-09": jsonschema_rs.Draft201909Validator,
    "draft2020-12": jsonschema_rs.Draft202012Validator,
}
SCHEMAS = "tests/data/json_schema/schemas.jsonl"


def within_double(text):
    """The number of `text`; where it is beyond every double, which no validator judges, the last one of its sign."""
    return min(max(float(text), -sys.float_info.max), sys.float_info.max)


def main():
    sampler = sys.argv[1]
    long_run = os.environ.get("TESSERA_LONG_TESTS") == "1"
    seed = random.SystemRandom().randrange(1 << 30)
    stride, samples = (1, 20) if long_run else (5, 4)
    print(f"seed {seed}, every {stride}. schema, {samples} samples")
    schemas = [json.loads(line) for line in open(SCHEMAS, encoding="utf-8")]
    output = subprocess.run(
        [sampler, "models/demo", SCHEMAS, str(stride), str(samples), str(seed)],
        check=True, stdout=subprocess.PIPE, text=True, timeout=3000).stdout
    results = [json.loads(line) for line in output.splitlines()]
    assert len(results) == (len(schemas) + stride - 1) // stride, len(results)
    compiled = refused = texts = cut = 0
    wrong = []
    for result in results:
        draft, schema = schemas[result["line"]]
        if "error" in result:
            assert result["error"], result
            refused += 1
            continue
        compiled += 1
        cut += result["num_cut"]
        validator = VALIDATORS[draft](schema, validate_formats=False)
        for text in result["texts"]:
            texts += 1
            try:
                valid = validator.is_valid(json.loads(text, parse_float=within_double))
            except ValueError:
                valid = False
            if not valid:
                wrong.append((draft, schema, text))
    print(f"{compiled} compiled, {refused} refused, {texts} texts valid or not, {cut} cut at their length")
    for draft, schema, text in wrong[:20]:
        print(f"invalid by {draft} {json.dumps(schema)}: {text!r}")
    assert not wrong, f"{len(wrong)} invalid texts"
    assert compiled >= len(results) // 10 and texts > 0, "too few schemas compile to say anything"


if __name__ == "__main__":
    main()
