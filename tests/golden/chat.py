"""Make the goldens of the chat templates: what transformers renders, text and token ids.

Purpose: tests/golden/chat/ says what transformers' apply_chat_template makes of conversations in
    templates that use what those of DeepSeek-R1, Qwen2.5, Qwen3, Llama-3, Llama-3.1, Mistral,
    Gemma-3 and gpt-oss use, so that the engine can be compared byte by byte with no Python at test
    time. The templates are written for this repository; published ones may be checked the same way.

Run:     python3 tests/golden/chat.py [DIR]
Reads:   DIR/*.jinja (tests/golden/chat if not said).
Writes:  DIR/inputs.jsonl       what apply_chat_template is given, a conversation with settings a line:
                                messages, add_generation_prompt, tools and other variables
         DIR/NAME.jsonl         of NAME.jinja, a line for each of those: {"text", "ids": [how many,
                                the FNV-1a hash of them as little-endian uint32]}; or {"error"} where
                                the reference refuses it
         DIR/expressions.jsonl  {"source", "text" or "error"}: short templates, each for a construct;
                                their variables stand in the first line. Not with DIR.
         DIR/tokenizer.json     of 256 bytes and the templates' special tokens

Made with Python 3.11, transformers 5.23, jinja2 3.1.6.
"""

import json
import pathlib
import struct
import sys
from datetime import datetime

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).resolve().parent
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<｜Ask｜>", "<｜Reply｜>", "<｜end▁of▁sentence｜>", "<turn>", "</turn>",
           "<|start|>", "<|end|>", "<|message|>", "[ASK]", "[/ASK]"]

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "the weather of a place, now",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "a city, \"Köln\" or 東京 say"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "default": 1.0},
        "tags": {"type": "array", "items": {"type": "string"}, "nullable": True},
        "near": {"oneOf": [{"type": "number", "description": "km"}, {"type": "object"}]},
        "more": {"type": "object", "properties": {"deep": {"type": "array"}}}}}}}
STOP = {"type": "function", "function": {"name": "stop_line", "description": "stops <the> line & waits",
                                         "parameters": {"type": "object", "properties": {}}}}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, ident="abc123def"):
    return {"type": "function", "id": ident, "function": {"name": name, "arguments": arguments}}


ASK = say("user", "The pump is loud. What is wrong?")
RULES = say("system", "  You know pumps.\nBe brief. ")
THOUGHT = say("assistant", "<think>\nA bearing, or air.\n\n</think>\n\nLook at the bearing.")
CONVERSATIONS = {
    "one question": [ASK],
    "rules": [RULES, ASK],
    "rules alone": [RULES],
    "empty question": [say("user", "")],
    "blanks": [say("user", "  \n\t two\n\nlines \u00a0\u3000 ")],
    "three turns": [ASK, say("assistant", "The bearing."), say("user", "Sure?")],
    "rules and five turns": [RULES, ASK, say("assistant", " Air? "), say("user", "No."),
                             say("assistant", "The bearing, then.\n"), say("user", "Thanks!")],
    "ends with the assistant": [ASK, say("assistant", "The bearing")],
    "two questions": [ASK, say("user", "And who repairs it?")],
    "thoughts": [ASK, THOUGHT, say("user", "How?")],
    "thoughts at the end": [ASK, THOUGHT],
    "thoughts beside": [ASK, say("assistant", "Look.", reasoning_content="\nAir?\n"), ASK],
    "thoughts by an old name": [ASK, say("assistant", "Look.", thinking="Air?")],
    "unicode": [say("system", "泵站 \U0001f527 Größe ß e\u0301"),
                say("user", "東京の天気は？ \u200d\u202e\ufeff \u2028 '\"\\ </s> <|im_end|> {{ x }} {% y %}")],
    "line ends": [say("user", "a\r\nb\rc\n\n"), say("assistant", "\n"), say("user", "\n")],
    "a role of its own": [say("critic", "No."), ASK],
    "rules in the middle": [ASK, say("assistant", "Yes?"), RULES, ASK],
    "parts": [say("user", [{"type": "text", "text": " What is this? "}, {"type": "image"},
                           {"type": "text", "text": "And this?"}])],
    "parts for rules": [say("system", [{"type": "text", "text": "Look well."}]), ASK],
    "no content": [{"role": "user"}],
    "content of none": [ASK, say("assistant", None), ASK],
    "a number for content": [say("user", 3.0)],
    "a call": [ASK, say("assistant", "", tool_calls=[call("get_weather", {"place": "東京", "unit": "<c>"})]),
               say("tool", "{\"t\": 21}"), say("assistant", "21 degrees."), ASK],
    "a call with text arguments": [
        ASK, say("assistant", None, tool_calls=[call("get_weather", "{\"place\": \"Bonn\"}")]),
        say("tool", "rain")],
    "two calls": [ASK, say("assistant", "I ask.", tool_calls=[
        call("get_weather", {"place": "Bonn", "n": [1, 2.5, None, True]}),
        call("stop_line", {}, "xyz456uvw")]), say("tool", "rain"), say("tool", "stopped"), ASK],
    "a call without function": [ASK, say("assistant", "", tool_calls=[
        {"name": "stop_line", "arguments": {"why": "it's \"hot\""}}]), say("tool", {"ok": True})],
    "a short id": [ASK, say("assistant", "", tool_calls=[call("stop_line", {}, "1")])],
    "an answer of many": [say("tool", [1, {"a": None}]), ASK],
    "nobody": [],
}
SETTINGS = [{}, {"add_generation_prompt": True},
            {"add_generation_prompt": True, "tools": [WEATHER, STOP]},
            {"tools": [STOP], "tools_in_user_message": False, "builtin_tools": ["get_weather", "code_interpreter"]},
            {"add_generation_prompt": True, "enable_thinking": False, "date_string": "24 Nov 2026"}]

VARIABLES = {
    "n": 7, "f": 0.1, "neg": -3, "yes": True, "no": False, "none": None, "big": 9007199254740993,
    "s": "Hello, World", "u": "Grüße 東京 \U0001f600", "empty": "", "blank": " \t x y \n", "lines": "a\nb\r\n\nc",
    "quotes": "it's", "both": "'\"\\\n\u00a0\u2028\u0007", "csv": "a,b,,c", "markup": "<a href='x'>&\"</a>",
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "two", 3.5, None, True, [], {}],
    "d": {"b": 1, "a": {"x": [1, 2]}, "items": "shadow", "\u00fc": None}, "nested": [[1, [2]], [3]],
    "people": [{"name": "Bo", "age": 3, "job": {"at": "x"}}, {"name": "Al", "age": 9}, {"name": "cy", "age": 3}],
    "reals": [1.0, 1e16, 1e15, 1.5e-5, 0.0001, 1e100, 123456789.125, -0.0, 1e22, 5e-324, 3.141592653589793]}

EXPRESSIONS = r"""
{{ 1 }}{{ 1.0 }}{{ 1e3 }}{{ 1_000 }}{{ 0x1f }}{{ 0b11 }}{{ 0o17 }}{{ 1.5e-3 }}
{{ true }}{{ True }}{{ false }}{{ none }}{{ None }}{{ nothing }}
{{ reals }}{% for r in reals %}{{ r }} {% endfor %}
{{ l }}{{ mixed }}{{ d }}{{ nested }}{{ (1,) }}{{ () }}{{ (1, 2) }}{{ {1: 2, 'a': none, 1.5: true} }}
{{ [quotes, both, u, markup] }}
{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 7 / 2 }}{{ 6 / 2 }}{{ 2 ** 10 }}{{ 2 ** -1 }}
{{ 7.5 // 2 }}{{ -7.5 // 2 }}{{ -7.5 % 2 }}{{ 7.5 % -2 }}{{ 0.1 + 0.2 }}{{ 1 / 3 }}{{ 2 ** 0.5 }}
{{ 1 + 2 * 3 - 4 }}{{ (1 + 2) * 3 }}{{ -2 ** 2 }}{{ 2 ** 3 ** 2 }}{{ - n }}{{ +n }}{{ - - n }}{{ 1 - -1 }}
{{ true + true }}{{ 'ab' * 3 }}{{ 2 * 'ab' }}{{ 'ab' * -1 }}{{ [1] * 2 + [3] }}{{ (1,) + (2,) }}
{{ 1 ~ 'a' ~ none ~ 1.50 ~ l ~ nothing }}{{ 1 ~ 1 + 'x' }}{{ (1 + 1) ~ 2 }}
{{ 'a' 'b' "c" }}{{ 'it''s' }}
{{ "a\nb\t\\\"\'\x41\u00e9\U0001f600\101\q" }}
{{ 1 < 2 }}{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' < 'b' }}{{ 'a' == 1 }}{{ [1, 2] < [1, 3] }}
{{ 1 in l }}{{ 9 in l }}{{ 9 not in l }}{{ 'ell' in s }}{{ 'b' in d }}{{ 'z' not in d }}{{ '' in '' }}{{ 1 in nothing }}
{{ not true }}{{ not not 1 }}{{ 1 and 2 }}{{ 0 and 2 }}{{ 0 or 'x' }}{{ '' or [] or 0 }}{{ not 1 == 2 }}{{ not 'a' in 'b' }}
{{ 'y' if yes else 'n' }}{{ 'y' if no }}{{ 'a' if no else 'b' if no else 'c' }}{{ ('x' if yes) ~ 'z' }}
{{ d.b }}{{ d['b'] }}{{ d.a.x[0] }}{{ d['a']['x'][-1] }}{{ d.nope }}{{ d['nope'] }}{{ d['items'] }}
{{ l[0] }}{{ l[-1] }}{{ l[9] }}|{{ s[0] }}{{ s[-1] }}{{ u[6] }}{{ u[99] }}{{ l['a'] }}{{ none.x }}{{ l.0 }}{{ nested.0.1.0 }}
{{ l[1:] }}{{ l[:-1] }}{{ l[::-1] }}{{ l[::2] }}{{ s[:5] }}{{ s[7:] }}{{ s[::-1] }}{{ u[2:8] }}{{ u[::3] }}{{ l[5:1] }}{{ l[-99:99] }}{{ s[-5:-1:2] }}
{{ nothing is defined }}{{ n is defined }}{{ d.nope is defined }}{{ none is defined }}{{ nothing is undefined }}
{{ none is none }}{{ n is not none }}{{ s is string }}{{ n is string }}{{ d is mapping }}{{ l is mapping }}{{ l is iterable }}{{ n is iterable }}{{ s is iterable }}{{ nothing is iterable }}
{{ n is number }}{{ f is number }}{{ yes is number }}{{ yes is integer }}{{ n is integer }}{{ f is float }}{{ s is sequence }}{{ d is sequence }}{{ n is sequence }}{{ l is sequence }}
{{ yes is true }}{{ 1 is true }}{{ no is false }}{{ yes is boolean }}{{ none is sameas none }}{{ yes is sameas true }}{{ 1 is sameas true }}{{ no is sameas(false) }}
{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ n is eq 7 }}{{ n is gt(6) }}{{ n is in [7] }}{{ n is not in [7] }}{{ s is callable }}{{ range is callable }}
{{ n is defined and n > 3 }}{{ n is not none or no }}{{ (n is string) if yes else 2 }}{{ not n is string }}
{{ blank.strip() }}|{{ blank.lstrip() }}|{{ blank.rstrip() }}|{{ 'xxaxx'.strip('x') }}{{ 'abcba'.lstrip('ab') }}{{ 'abc'.rstrip('cb') }}
{{ csv.split(',') }}{{ csv.split(',', 1) }}{{ blank.split() }}{{ csv.split('zz') }}{{ '  a  b  c '.split(none, 1) }}{{ csv.rsplit(',', 1) }}{{ ' a b  c '.rsplit(maxsplit=1) }}{{ ''.split() }}{{ ''.split(',') }}
{{ lines.splitlines() }}{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.partition('x') }}{{ 'abc'.rpartition('x') }}
{{ s.startswith('Hello') }}{{ s.endswith('x') }}{{ s.startswith(('x', 'He')) }}{{ s.endswith(()) }}{{ s.startswith('') }}
{{ s.replace('l', 'L') }}{{ s.replace('l', 'L', 1) }}{{ 'abc'.replace('', '-') }}{{ 'aaa'.replace('aa', 'b') }}{{ 'abc'.replace('', '-', 2) }}
{{ s.upper() }}{{ s.lower() }}{{ s.title() }}{{ "they're x-ray 3d".title() }}{{ s.capitalize() }}{{ 'éÀ ёЖ'.upper() }}{{ 'éÀ ёЖ'.lower() }}{{ 'ǆ x'.title() }}
{{ s.find('o') }}{{ s.rfind('o') }}{{ s.find('zz') }}{{ u.find('東') }}{{ s.count('l') }}{{ 'aaa'.count('aa') }}{{ ''.count('') }}{{ s.index('W') }}
{{ '12'.isdigit() }}{{ ''.isdigit() }}{{ 'ab'.isalpha() }}{{ ' \t'.isspace() }}{{ 'abcd'.removeprefix('ab') }}{{ 'abcd'.removesuffix('cd') }}{{ 'abcd'.removeprefix('x') }}
{{ ', '.join(words) }}{{ ''.join([]) }}{{ '-'.join('abc') }}
{{ d.get('b') }}{{ d.get('zz') }}{{ d.get('zz', 5) }}{{ d.keys() | list }}{{ d.values() | list }}{{ d.a.items() | list }}{{ d.keys() | length }}
{{ l.index(2) }}{{ l.count(3) }}{{ d.a.copy() }}
{{ s | upper }}{{ s | lower }}{{ s | title }}{{ 'foo-bar (baz) {qux} foo_bar' | title }}{{ 'fOO bAR' | capitalize }}{{ n | upper }}{{ blank | trim }}{{ 'xxaxx' | trim('x') }}
{{ s | length }}{{ u | length }}{{ l | count }}{{ d | length }}{{ nothing | length }}{{ 'x' | string | length }}{{ 12 | string }}
{{ nothing | default('x') }}{{ '' | default('x') }}{{ '' | default('x', true) }}{{ none | d('x') }}{{ none | d('x', boolean=true) }}{{ nothing | default }}{{ d.nope | default(1) + 1 }}
{{ l | first }}{{ l | last }}{{ s | first }}{{ [] | first }}{{ d | first }}{{ '' | last }}{{ d | list }}{{ s | list }}
{{ l | join }}{{ l | join('-') }}{{ people | join(', ', attribute='name') }}{{ l | join(1) }}{{ 'abc' | join('.') }}
{{ l | sort }}{{ words | sort }}{{ words | sort(case_sensitive=true) }}{{ l | sort(reverse=true) }}{{ people | sort(attribute='age') | map(attribute='name') | list }}
{{ d | dictsort }}{{ {'b': 1, 'A': 3, 'c': 2} | dictsort }}{{ {'b': 1, 'A': 3, 'c': 2} | dictsort(by='value', reverse=true) }}
{{ l | min }}{{ l | max }}{{ words | max }}{{ people | max(attribute='age') }}{{ l | sum }}{{ people | sum(attribute='age') }}{{ l | sum(start=10) }}
{{ [1, 1, 2, 'a', 'A'] | unique | list }}{{ l | reverse | list }}{{ 'abc' | reverse }}{{ words | unique(true) | list }}
{{ people | map(attribute='name') | list }}{{ people | map(attribute='job.at', default='-') | list }}{{ words | map('upper') | list }}{{ words | map('replace', 'a', 'z') | join }}{{ l | map('string') | list }}
{{ mixed | select('string') | list }}{{ mixed | reject('string') | list }}{{ l | select | list }}{{ l | select('gt', 1) | list }}{{ mixed | reject('none') | list }}
{{ people | selectattr('age', 'equalto', 3) | map(attribute='name') | list }}{{ people | rejectattr('job') | list | length }}{{ people | selectattr('job', 'defined') | list | length }}{{ people | selectattr('name', 'in', ['Bo', 'cy']) | map(attribute='age') | list }}
{% if people | selectattr('age', 'gt', 100) %}always{% endif %}{{ people | selectattr('age', 'gt', 100) | list }}
{% set it = l | map('string') %}{{ it | join }}|{{ it | join }}|{{ it | list }}
{{ none | selectattr('x') | list }}{{ 0 | map('upper') | list }}{{ false | reject | list }}
{{ l | map('string') | first }}{{ d.items() | list | first }}{{ d | items | list | last }}{{ nothing | items | list }}
{{ d | tojson }}{{ mixed | tojson }}{{ both | tojson }}{{ u | tojson }}{{ u | tojson(ensure_ascii=true) }}{{ reals | tojson }}{{ markup | tojson }}
{{ d | tojson(indent=2) }}{{ d | tojson(indent=0) }}{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=4) }}{{ nested | tojson(indent='\t') }}
{{ d | tojson(separators=(',', ':')) }}{{ d | tojson(indent=1, separators=(' ,', ' : ')) }}{{ d | tojson(sort_keys=true) }}{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}{{ (1, 2) | tojson }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}|{{ '' | indent }}|{{ 'a\n' | indent('> ') }}
{{ '42' | int }}{{ '4.7' | int }}{{ 'x' | int }}{{ 'x' | int(5) }}{{ 3.9 | int }}{{ -3.9 | int }}{{ none | int }}{{ ' 12 ' | int }}{{ '1.5' | float }}{{ 3 | float }}{{ 'y' | float }}{{ true | int }}
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 3.14159 | round(3) }}{{ 5 | round }}{{ -3 | abs }}{{ -0.5 | abs }}
{{ markup | e }}{{ markup | safe }}{{ markup | escape | safe }}{{ 'a' | safe ~ '<' }}{{ '<' | e ~ '<' }}
{{ 'a b a' | replace('a', 'c') }}{{ 'aaa' | replace('a', 'b', 2) }}{{ 12321 | replace(2, 5) }}
{{ l | tojson | length }}{{ l | map('int') | sum }}{{ -1 | abs }}{{ (s | upper).lower() }}{{ s | upper | lower | title }}
{% if 0 %}a{% elif '' %}b{% elif [0] %}c{% else %}d{% endif %}{% if none %}{% else %}e{% endif %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in [] %}a{% else %}none{% endfor %}{% for x in nothing %}a{% else %}b{% endfor %}{% for c in 'aé' %}{{ c }},{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% else %}no{% endfor %}{% for x in l if x > 5 %}{{ x }}{% else %}no{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}{% for x in range(5) %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% for y in l %}{{ loop.depth }}{{ y }}{% endfor %}{{ loop.index }} {% endfor %}{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}
{% for x in 1, 2 %}{{ x }}{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5, 0, -2) | list }}{{ range(3)[1] }}{{ range(2, 4) | list }}
{% set x = 1 %}{% for i in l %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if yes %}{% set x = 3 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b='x') %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{% set ns.c = [1] %}{{ ns.c }}{{ ns['a'] }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set (c, e) = 'xy' %}{{ c }}{{ e }}{% set g = (1) %}{{ g }}
{% set x %}a{{ n }}b{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]{% set x %}{% set inner = 1 %}{% endset %}{{ inner }}{{ x | length }}
{% macro m(a, b=2, c=n) %}({{ a }}{{ b }}{{ c }}){% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(c=5, a=1) }}{{ m() }}{{ m(1, b=none) }}{{ m(1) | upper }}
{% macro f(x) %}{{ x }}{% if x %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{% macro g() %}{% set n = 1 %}{{ n }}{% endmacro %}{{ g() }}{{ n }}
{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}x{{ n }}{% endcall %}{% macro each(v) %}{% for i in v %}{{ caller(i, loop.index) }}{% endfor %}{% endmacro %}{% call(a, b) each(l) %}{{ a }}.{{ b }} {% endcall %}
{% with a = 1, b = n %}{{ a }}{{ b }}{% set c = 1 %}{% endwith %}{{ a }}{{ c }}{% filter upper %}abc{{ s }}{% endfilter %}
{% generation %}a{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}{% raw %}{{ x }}{% if %}{% endraw %}|{%- raw -%}  a  {%- endraw -%}|
a {# comment #} b{#- c -#} d {#+ e +#} f
{{ '{{' }}{{ "%}" }}{{ {'a': {'b': 1}}.a.b }}{{ {'a': {}} }}{{ [[1], [2]][1][0] }}
{{ [1, 2, ] }}{{ {'a': 1, } }}{{ (1, 2, ) }}{{ n, s }}{{ l [ 0 ] }}{{ d . b }}
{{ dict(a=1, b=2) }}{{ dict({'x': 1}, y=2) }}{{ namespace({'p': 4}).p }}{{ strftime_now is defined }}{{ raise_exception is defined }}{{ foo is defined }}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now("%A, %B %-d, %y %H:%M:%S %j %m %% %p %I") }}|{{ strftime_now('') }}
{{ loop is defined }}{{ d.get.x is defined }}{{ d['keys'].x }}
{{ 'é' < 'z' }}{{ [1, [2]] == [1, [2]] }}{{ {'a': 1} == {'a': 1.0} }}{{ (1, 2) == [1, 2] }}{{ none == false }}{{ '' == none }}{{ nothing == nope }}{{ nothing == none }}
{{ l is sameas l }}{{ l[:] is sameas l }}{{ big }}{{ big + 1 }}{{ big == 9007199254740992.0 }}
{{ "x" if d.get("a", {}).get("x") is not none and not no else "y" }}{{ (d.a or {}).x }}{{ (nothing or {}).x }}
{{ 1 if }}
{{ nothing.x }}
{{ nothing + 1 }}
{{ 'a' + 1 }}
{{ 1 + none }}
{{ none | length }}
{{ d.a.b.c }}
{{ 1 < 'a' }}
{{ 1 in 2 }}
{{ 1 in 'a' }}
{{ 1 // 0 }}
{{ 1.5 % 0 }}
{{ 'x'() }}
{{ nope() }}
{{ d.pop('b') }}
{{ l.append(1) }}
{{ raise_exception('no') }}
{% set s.x = 1 %}
{% set nope.x = 1 %}
{% set a, b = 1 %}
{% set a, b = [1, 2, 3] %}
{% for a, b in l %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% if %}a{% endif %}
{% if yes %}a
{% else %}
{{ n
{% set x = %}
{# open
{% raw %}
{#
{% raw %} x
{{ 'open }}
{{ [1, 2 }}
{{ (1] }}
{{ 1 2 }}
{{ n is }}
{{ n | }}
{{ n is string is string }}
{{ $ }}
{{ nothing | tojson }}
{{ (l | map('string')) | tojson }}
{{ '' .split('') }}
{{ l | sort(attribute='x.y') }}
{{ [1, 'a'] | sort }}
{{ 'abc'.index('z') }}
{% break %}
{% macro m() %}{% break %}{% endmacro %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{{ l | join(attribute='a.b') }}
{{ nothing[1:] }}
{{ l['a':] }}
{{ l[::0] }}
{{ range() }}
{{ ', '.join(l) }}
{{ l | indent }}
{{ nothing | indent }}
{{ nested | unique | list }}
{{ nothing | dictsort }}
"""


def tokenizer(out):
    """A byte-level tokenizer with the special tokens, as a Hugging Face directory."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    t.save(str(out))
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>")


class ADay(datetime):
    """What strftime_now tells here, so that a golden is the same on every day."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 24, 9, 5, 7)


def fnv1a(data):
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def case(model, template, messages, **settings):
    """What the reference makes of a conversation: {"text", "ids"} or {"error"}."""
    def render(tokenize):
        return model.apply_chat_template(messages, chat_template=template, tokenize=tokenize,
                                         return_dict=False, **settings)
    try:
        text, ids = render(False), render(True)
        return {"text": text, "ids": [len(ids), fnv1a(struct.pack(f"<{len(ids)}I", *ids))]}
    except Exception as error:  # whatever the reference raises, the engine must refuse
        return {"error": f"{type(error).__name__}: {error}"}


def expressions(model):
    yield {"variables": VARIABLES}
    sources = EXPRESSIONS.strip("\n").split("\n")
    several = [
        "{# only #}\n  {% if yes %}\n    x\n  {% endif %}\ny\n",
               "a\n  {%- if yes -%}\n    x  \n  {%- endif %}  \n  y{{ n -}}   z\n  {{- n }}\n",
               "{% if yes %}\n\ntwo{% endif +%}\nkept{% if yes +%}\nkept{% endif %}\n  {%+ if yes %}kept{% endif %}\n",
               "{{ n }}\nafter a print\n  {# a comment #}\n  next\n\n",
               "x{% for i in l %}\r\n {{ i }}\r\n{% endfor %}\rend\r\n", "\n", "", "\n\n", " {% raw %}\n a\n{% endraw %}\n b",
               "  {%- raw -%}\n a {%- endraw +%}\n b", "{{ '\\\nx' }}", "{{ 'a\r\nb' }}", "{#-#}a{#--#}b", "a\n {#- x -#} \n b",
               "{{-1}}{{ -1 -}} {{- 1 }}", "\u00a0{% if yes %}\u00a0{%- endif -%}\u3000x", "{{ '}}' }}{% set x = '%}' %}{{ x }}"]
    for source in sources + several:
        row = case(model, source, [{"role": "user", "content": "x"}], **VARIABLES)
        row.pop("ids", None)
        yield {"source": source, **row}


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(path.name, len(rows), "lines,", sum("error" in row for row in rows), "refused by the reference")


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "chat"
    model = tokenizer(out / "tokenizer.json")
    chat_template_utils.datetime = ADay
    inputs = [{"messages": messages, **settings}
              for messages in CONVERSATIONS.values() for settings in SETTINGS]
    write(out / "inputs.jsonl", inputs)
    for path in sorted(out.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        write(path.with_suffix(".jsonl"), [case(model, template, **given) for given in inputs])
    if len(sys.argv) == 1:
        write(out / "expressions.jsonl", list(expressions(model)))


if __name__ == "__main__":
    main()
