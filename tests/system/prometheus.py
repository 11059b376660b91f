"""A strict reader of Prometheus's text format, as much of it as Penstock writes.

https://prometheus.io/docs/instrumenting/exposition_formats/ and the naming rules of
https://prometheus.io/docs/practices/naming/.
"""
import math
import re

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
SAMPLE = re.compile(r'([a-z][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)\Z')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|\Z)')
NOT_BASE = re.compile(r"_(ms|us|milliseconds|microseconds|minutes|kb|mb|kilobytes|percent)(_|\Z)")
# a summary of ours has no quantiles
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def parse(text):
    """{family: (type, [(name, labels, value)])}; asserts what the format and its customs ask for."""
    assert text.endswith("\n")
    families, helped, series, current = {}, set(), set(), None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert words and name not in helped, line
            helped.add(name)
        elif line.startswith("# TYPE "):
            current, kind = line[7:].split(" ")
            assert current in helped and current not in families, line
            assert kind in SUFFIXES and NAME.match(current), line
            assert current.startswith("penstock_") and not NOT_BASE.search(current), line
            assert current.endswith("_total") == (kind == "counter"), line
            families[current] = (kind, [])
        else:
            found = SAMPLE.match(line)
            assert found, line
            name, labels, value = found[1], dict(LABEL.findall(found[2] or "")), float(found[3])
            kind, samples = families[current]
            assert name in {current + s for s in SUFFIXES[kind]}, line
            key = (name, tuple(sorted(labels.items())))
            assert key not in series, line
            series.add(key)
            assert kind == "gauge" or value >= 0, line
            samples.append((name, labels, value))
    for name, (kind, samples) in families.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    runs = {}
    for sample, labels, value in samples:
        labels = dict(labels)
        bound = labels.pop("le", None)
        runs.setdefault(tuple(sorted(labels.items())), []).append((sample, bound, value))
    for rows in runs.values():
        buckets = [(math.inf if b == "+Inf" else float(b), v) for s, b, v in rows if s == name + "_bucket"]
        assert buckets == sorted(buckets) and buckets[-1][0] == math.inf, name
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), name
        assert [v for s, _, v in rows if s == name + "_count"] == [buckets[-1][1]], name
        assert len([v for s, _, v in rows if s == name + "_sum"]) == 1, name
