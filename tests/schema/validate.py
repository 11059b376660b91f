#!/usr/bin/python3
"""Validate texts by python3-jsonschema.

usage: tests/schema/validate.py FILE       a line a text: [schema, text], both JSON texts

Exits 1 when one does not validate, and 77 when the package is missing.
"""
import json
import sys

try:
    import jsonschema
except ImportError:
    sys.exit(77)


def main():
    validators, texts, bad = {}, 0, 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            schema, text = json.loads(line)
            if schema not in validators:
                draft = jsonschema.Draft202012Validator
                draft.check_schema(json.loads(schema))
                validators[schema] = draft(json.loads(schema),
                                           format_checker=draft.FORMAT_CHECKER)
            texts += 1
            try:
                validators[schema].validate(json.loads(text))
            except (ValueError, jsonschema.ValidationError) as why:
                bad += 1
                print(schema, text, str(why).splitlines()[0], sep="\n  ")
    print(f"{texts} texts, {len(validators)} schemas, {bad} not valid")
    sys.exit(bad > 0)


main()
