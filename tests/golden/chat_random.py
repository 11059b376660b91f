"""Make the goldens of random chat templates: what transformers renders of them.

Purpose: tests/golden/chat/random.jsonl says what templates give that nobody would write: operators,
    filters, tests and methods on values of every kind, statements in each other, white space and
    its control around them. Hand-written cases hold what their author thought of.

Run:     python3 tests/golden/chat_random.py [SEED]
Writes:  chat/random.jsonl  {"source", "text" or "error"}; variables are those of expressions.jsonl.
    Left out: what prints an address, and what the reference needs a second for.

Made with Python 3.11, transformers 5.23, jinja2 3.1.6.
"""

import pathlib
import random
import signal
import sys

from chat import VARIABLES, write
from transformers.utils import chat_template_utils

OUT = pathlib.Path(__file__).resolve().parent / "chat" / "random.jsonl"
TEMPLATES = 2500

LITERALS = ["1", "0", "-1", "2", "3.5", "0.0", "'a'", "''", "'ab'", "'l'", r"'\n'", "' '", "none", "true", "false",
            "[]", "{}", "[1, 2]", "['b', 'a']", "{'a': 1, 'b': 2}", "(1, 'x')", "7", "'1'", "'2.5'", "'\u00e9'"]
FILTERS = """upper lower title capitalize trim trim('a') length count first last list join join('-') sort
    sort(reverse=true) unique|list reverse|list string int float tojson tojson(indent=2) default('q') default('q',true)
    abs round round(1) min max sum items|list dictsort map('upper')|list map('string')|join(',') select|list
    reject|list select('string')|list reject('number')|list map(attribute='name')|list indent indent(2,true)
    selectattr('age','gt',3)|list rejectattr('name','equalto','Bo')|list replace('a','b') e safe map('length')|list
    map('first')|list map('default','z')|list""".split()
TESTS = """defined undefined none string number integer float mapping sequence iterable boolean true false odd even
    callable divisibleby(2) in([1,2]) eq(1) gt(0) sameas(none) in('abc') lt('b')""".split()
METHODS = """strip() lstrip() rstrip() strip('Hd') lstrip('H') split() split(',') split('l',1) rsplit(',',1) upper()
    lower() title() capitalize() startswith('H') endswith('d') replace('l','LL') replace('','.') replace('l','',1)
    find('o') rfind('l') count('l') splitlines() partition(',') rpartition(',') isdigit() isalpha() isspace()
    removeprefix('He') removesuffix('ld') join(words) join(['x','y']) items()|list keys()|list values()|list get('a')
    get('zz',3) index(1) count(1) copy()""".split()
OPERATORS = "+ - * / // % ~ == != < <= > >= in and or **".split() + ["not in"]
ITEMS = "0 -1 1: ::-1 :2 1:-1 ::2 -2: 9 'a' 'name' true none 1.0 :none -3:-1:1 5:0:-2".split()
MEMBERS = "a name x b items k".split()
GAPS = ["", "\n", "  \n", " ", "\n\n", "\n  ", "\t", "x", "x\n", "\u00a0\n", "\r\n"]
IN_LOOPS = ["{{ i }}", "{{ loop.index }}{{ loop.last }}", "{% if loop.first %}{% continue %}{% endif %}",
            "{% if loop.index == 2 %}{% break %}{% endif %}", "{% set n = i %}{{ n }}",
            "{{ loop.previtem }}/{{ loop.nextitem }}"]


class Author:
    """Writes templates from a seed."""

    def __init__(self, seed):
        self.any = random.Random(seed)

    def expression(self, depth):
        pick, roll = self.any.choice, self.any.random()
        if depth <= 0:
            return pick([pick(LITERALS), pick([*VARIABLES, "nothing"])])
        one, two, three = (self.expression(depth - 1) for _ in range(3))
        forms = [(.22, lambda: f"({one}) {pick(OPERATORS)} ({two})"), (.30, lambda: f"{one} {pick(OPERATORS)} {two}"),
                 (.50, lambda: f"({one})|{pick(FILTERS)}"), (.58, lambda: f"({one}) is {pick(['', 'not '])}{pick(TESTS)}"),
                 (.70, lambda: f"({one}).{pick(METHODS)}"), (.78, lambda: f"({one})[{pick(ITEMS)}]"),
                 (.84, lambda: f"({one} if {two} else {three})"), (.88, lambda: f"[{one}, {two}]"),
                 (.92, lambda: "{'k': " + one + ", 'b': " + two + "}"), (.95, lambda: f"not ({one})"),
                 (.97, lambda: f"(-({one}))"), (1, lambda: f"({one}).{pick(MEMBERS)}")]
        return next(form() for share, form in forms if roll < share)

    def tag(self, words):
        signs = ["", "", "", "-", "+"]
        return "{%" + self.any.choice(signs) + f" {words} " + self.any.choice(signs) + "%}"

    def statement(self, depth):
        roll, gap = self.any.random(), lambda: self.any.choice(GAPS)
        value = self.expression(self.any.randint(0, 2))
        if depth <= 0 or roll < .35:
            return gap() + "{{" + self.any.choice(["", "-"]) + f" {value} " + self.any.choice(["", "-"]) + "}}" + gap()
        body = self.statement(depth - 1)
        if roll < .5:
            return (gap() + self.tag(f"if {value}") + body + self.tag("else") + self.statement(depth - 1)
                    + self.tag("endif") + gap())
        if roll < .7:
            only = self.any.choice(["", " if i", " if loop is defined"])
            return (gap() + self.tag(f"for i in {value}{only}") + body + self.any.choice(IN_LOOPS)
                    + self.tag("endfor") + gap())
        if roll < .8:
            return self.tag(f"set {self.any.choice(['n', 'zz', 'l'])} = {value}") + body
        if roll < .86:
            return self.tag("set q") + body + "{% endset %}{{ q }}"
        if roll < .92:
            return self.tag(f"macro m(a, b={value})") + body + "{{ a }}{{ b }}" + self.tag("endmacro") + "{{ m(s) }}{{ m() }}"
        return gap() + "{#" + self.any.choice(["", "-"]) + " c " + self.any.choice(["", "-"]) + "#}" + body

    def template(self):
        if self.any.random() < .5:
            return "{{ " + self.expression(self.any.randint(1, 3)) + " }}"
        return self.statement(self.any.randint(1, 3))


class TooLong(Exception):
    pass


def on_alarm(*_):
    raise TooLong()


def render(source):
    """None: to be left out."""
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        texts, _ = chat_template_utils.render_jinja_template([[{"role": "user", "content": "x"}]],
                                                             chat_template=source, **VARIABLES)
        return None if " at 0x" in texts[0] or len(texts[0]) > 2000 else {"source": source, "text": texts[0]}
    except (TooLong, MemoryError):
        return None
    except Exception as error:  # whatever the reference raises, the engine must refuse
        return {"source": source, "error": type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    author = Author(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    write(OUT, [row for row in (render(author.template()) for _ in range(TEMPLATES)) if row])


if __name__ == "__main__":
    main()
