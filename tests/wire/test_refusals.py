"""Every code that the sources refuse with is in schemas/refusals.def, and so in the specification."""
import pathlib
import re

CALLS = [
    r'refusal_set\(\s*[&\w]+,\s*(?:e == -ENOENT \? "unknown_job" : )?"(\w+)"',
    r'refuse\(f, why, [\w-]+, "(\w+)"',        # schemas/field.c
    r'refuse\(fault, \w+, "(\w+)"',            # schemas/walk.c
]


def test_every_refusal_code_is_specified():
    table = pathlib.Path("schemas/refusals.def").read_text()
    known = set(re.findall(r"^REFUSAL\((\w+)", table, re.M))
    used = {}
    for directory in ("schemas", "broker"):
        for path in pathlib.Path(directory).glob("*.c"):
            for call in CALLS:
                for code in re.findall(call, path.read_text()):
                    used.setdefault(code, str(path))
    unknown = {code: path for code, path in used.items() if code not in known}
    assert len(used) > 8, f"too few found, has refusal_set another name? {used}"
    assert not unknown, f"not in schemas/refusals.def: {unknown}"
