#!/usr/bin/python3
"""Write schemas.jsonl: 200 schemas, a line each. Those by hand come first, then compositions.

usage: tests/schema/make_schemas.py >tests/schema/schemas.jsonl
"""
import json
import random

STRINGS = [
    {"type": "string"},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "maxLength": 0},
    {"type": "string", "minLength": 40},
    {"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"},
    {"type": "string", "pattern": "b+c?"},
    {"type": "string", "pattern": "^(foo|bar)+$", "maxLength": 9},
    {"type": "string", "pattern": '^[^"a-z]{2,4}$'},
    {"type": "string", "pattern": r"\D", "maxLength": 2},
    {"type": "string", "pattern": r"^[\u00e0-\u4e2d\t\\]{1,6}$"},
    {"type": "string", "pattern": r"^\w+@\w+\.(com|org)$", "maxLength": 24},
    {"type": "string", "pattern": r"^(\+\d{1,3} )?\d{3,4}( \d{2,4}){1,3}$"},
    {"type": "string", "pattern": r"^#[0-9a-fA-F]{6}$"},
    {"type": "string", "pattern": r"^\s*$", "maxLength": 3},
    {"type": "string", "pattern": "^(?:[^/]+/)*x$", "maxLength": 12},
    {"type": "string", "pattern": "a.c", "minLength": 4, "maxLength": 8},
    {"type": "string", "pattern": "^$"},
    {"type": "string", "pattern": "ab|cd$", "maxLength": 6},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
]
NUMBERS = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "integer", "minimum": -17, "maximum": 230},
    {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 3},
    {"type": "integer", "minimum": 9007199254740993},
    {"type": "integer", "maximum": -100},
    {"type": "integer", "minimum": 0, "maximum": 0},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01},
    {"type": "number", "minimum": -2.5, "maximum": -0.125},
    {"type": "number", "minimum": 99.5},
    {"type": "number", "exclusiveMaximum": 0},
    {"type": "number", "minimum": 3.14159, "maximum": 3.1416},
    {"type": "integer", "minimum": 1.5, "maximum": 9.5},
    {"type": "integer", "multipleOf": 7},
    {"type": "number", "multipleOf": 25, "exclusiveMinimum": -130, "maximum": 1000000},
]
VALUES = [
    {"type": "null"},
    {"type": "boolean"},
    {"const": 'a "quoted" text\n'},
    {"const": {"a": [1, 2.5, None]}},
    {"enum": [1, 12, 123, "x", "xy", None, False]},
    {"enum": ["合格", "不合格", "待定"]},
    {"type": "string", "enum": ["scratch", "void", 7]},
    {"enum": [{"k": 1}, {"k": 2}, []]},
]
BY_HAND = [
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "allOf": [{"$ref": "#/$defs/grade"}],
     "description": "a school's", "$defs": {"grade": {"enum": ["A", "B", "C"], "title": "Grade"}}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 5},
    {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False,
     "minItems": 2},
    {"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "null"}},
    {"type": "object", "properties": {
        "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
     "required": ["name"], "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "null"}, "ab": {"type": "null"},
                                      "b": {"type": "null"}}},
    {"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 4}, "b": {"type": "array", "items": {"enum": ["x", "y"]}},
        "c": {"type": "object", "properties": {"d": {"type": "number"}}, "required": ["d"]}},
     "required": ["a", "c"]},
    {"type": "object"},
    {"anyOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}},
         "required": ["kind", "r"]},
        {"type": "object", "properties": {"kind": {"const": "cube"}, "side": {"type": "integer"}},
         "required": ["kind", "side"]}]},
    {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}, {"type": "null"}]},
    {"type": ["string", "null"], "maxLength": 4},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {
        "type": "object", "properties": {
            "value": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "required": ["value", "kids"]}}},
    {"$ref": "#/$defs/list", "$defs": {"list": {"anyOf": [
        {"type": "null"},
        {"type": "object", "properties": {"head": {"type": "string"}, "tail": {"$ref": "#/$defs/list"}},
         "required": ["head", "tail"]}]}}},
    {"type": "array", "items": {"$ref": "#"}},
    {"$defs": {"even": {"type": "array", "items": {"$ref": "#/$defs/odd"}, "maxItems": 2},
               "odd": {"type": "object", "properties": {"e": {"$ref": "#/$defs/even"}}}},
     "$ref": "#/$defs/even"},
    {"title": "Invoice", "type": "object", "properties": {
        "number": {"type": "string", "pattern": "^INV-[0-9]{6}$"},
        "date": {"type": "string", "format": "date"},
        "currency": {"enum": ["EUR", "USD", "CNY"]},
        "lines": {"type": "array", "minItems": 1, "maxItems": 3, "items": {
            "type": "object", "properties": {
                "text": {"type": "string", "maxLength": 16},
                "quantity": {"type": "integer", "minimum": 1, "maximum": 999},
                "price": {"type": "number", "minimum": 0}},
            "required": ["text", "quantity", "price"], "additionalProperties": False}}},
     "required": ["number", "date", "currency", "lines"], "additionalProperties": False},
    {"title": "Inspection", "type": "object", "properties": {
        "part": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3,5}$"},
        "verdict": {"enum": ["pass", "fail", "review"]},
        "defects": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/defect"}},
        "operator": {"type": ["string", "null"], "maxLength": 8}},
     "required": ["part", "verdict", "defects"],
     "$defs": {"defect": {"type": "object", "properties": {
         "kind": {"enum": ["scratch", "void", "stain"]},
         "box": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 4095},
                 "minItems": 4, "maxItems": 4},
         "score": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["kind", "box"]}}},
    {"title": "Call", "oneOf": [
        {"type": "object", "properties": {
            "tool": {"const": "search"},
            "arguments": {"type": "object", "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": 20},
                "limit": {"type": "integer", "minimum": 1, "maximum": 50}}, "required": ["query"]}},
         "required": ["tool", "arguments"]},
        {"type": "string", "maxLength": 12}]},
]


def composed(draw, depth, refs):
    """A random schema: leaves at depth 0."""
    pick = draw.random()
    if refs and pick < 0.12:
        return {"$ref": "#/$defs/" + draw.choice(refs)}
    if depth == 0 or pick < 0.3:
        return draw.choice(draw.choice([STRINGS, NUMBERS, VALUES]))
    if pick < 0.5:
        least = draw.randrange(3)
        schema = {"type": "array", "items": composed(draw, depth - 1, refs), "minItems": least,
                  "maxItems": least + draw.randrange(3)}
        if draw.random() < 0.3:
            schema["prefixItems"] = [composed(draw, depth - 1, refs)]
        return schema
    if pick < 0.65:
        return {"anyOf": [composed(draw, depth - 1, refs) for _ in range(draw.randrange(2, 4))]}
    names = draw.sample(["id", "idx", "name", "größe", "数量", "a b", 'q"', "items", "next"],
                        draw.randrange(1, 5))
    schema = {"type": "object", "properties": {n: composed(draw, depth - 1, refs) for n in names},
              "required": draw.sample(names, draw.randrange(len(names) + 1))}
    if draw.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def whole(draw):
    names = draw.choice([[], [], ["part"], ["part", "node"]])
    schema = composed(draw, 3, names)
    if names:
        schema = {"$ref": "#/$defs/top", "$defs": {"top": schema}}
        for name in names:  # only optional members and items lead back, so that each can end
            schema["$defs"][name] = {"type": "object", "properties": {
                "value": composed(draw, 1, []), "more": {"$ref": "#/$defs/" + draw.choice(names)}},
                "required": ["value"]}
    return schema


def main():
    draw = random.Random(4)
    lines = [json.dumps(s) for s in STRINGS + NUMBERS + VALUES + BY_HAND]
    while len(lines) < 200:
        line = json.dumps(whole(draw), ensure_ascii=draw.random() < 0.5)
        if len(line) > 100 and line not in lines:
            lines.append(line)
    print("\n".join(lines))


main()
