#!/usr/bin/python3
"""Validate the texts that build/test/schema wrote (SCHEMA_TEXTS=FILE) by python3-jsonschema."""
import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as lines:
    texts = [json.loads(line) for line in lines]
bad = 0
for schema, text in texts:
    try:
        jsonschema.Draft202012Validator(json.loads(schema)).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as why:
        bad += 1
        print(schema, text, str(why).splitlines()[0], sep="\n  ")
print(f"{len(texts)} texts, {len({s for s, _ in texts})} schemas, {bad} not valid")
sys.exit(bad > 0)
