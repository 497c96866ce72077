"""Strict JSON: every refusal has its own message and names the place; what is allowed passes up to the limit."""

from __future__ import annotations

import json

import pytest

from searchkit import strict_json
from searchkit.errors import InputFileError


def refusal(data: bytes) -> str:
    with pytest.raises(InputFileError) as caught:
        strict_json.loads(data, where="a.json")
    message = str(caught.value)
    assert message.startswith("a.json: ")
    assert len(message) < 600
    assert message.isprintable(), "a hostile file must not steer the terminal"
    return message


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


INTEGERS = "allowed: integers from -2147483648 to 2147483648"

# What a value inside a document is refused for: the JSON text and the whole message behind the path.
VALUES = {
    "NaN": ("NaN", "NaN is not JSON (got NaN; allowed: finite numbers). Write a finite number, or null."),
    "Infinity": (
        "Infinity",
        "Infinity is not JSON (got Infinity; allowed: finite numbers). Write a finite number, or null.",
    ),
    "-Infinity": (
        "-Infinity",
        "-Infinity is not JSON (got -Infinity; allowed: finite numbers). Write a finite number, or null.",
    ),
    "1e999": (
        "1e999",
        "number overflows to infinity (got 1e999; allowed: finite numbers). Use a smaller number.",
    ),
    "-1e999": (
        "-1e999",
        "number overflows to infinity (got -1e999; allowed: finite numbers). Use a smaller number.",
    ),
    "-0": ("-0", f"negative zero (got -0; {INTEGERS}). Write 0."),
    "2^31 + 1": ("2147483649", f"integer out of range (got 2147483649; {INTEGERS}). Use a smaller number."),
    "-2^31 - 1": ("-2147483649", f"integer out of range (got -2147483649; {INTEGERS}). Use a smaller number."),
    "2^63": (
        str(2**63),
        f"integer out of range (got 9223372036854775808; {INTEGERS}). Use a smaller number.",
    ),
    # Python's own limit for the conversion is 4,300 digits.
    "4301 digits": (
        "1" * 4301,
        f"integer out of range (got {'1' * 77}...; {INTEGERS}). Use a smaller number.",
    ),
    "257 bytes": (
        json.dumps("x" * 257),
        "string too long (got 257 bytes; allowed: at most 256 bytes of UTF-8). Shorten it.",
    ),
    "129 characters of 2 bytes": (
        json.dumps("é" * 129),
        "string too long (got 258 bytes; allowed: at most 256 bytes of UTF-8). Shorten it.",
    ),
    "lone surrogate": (
        '"a\\ud800"',
        'string holds a lone surrogate (got "a\\ud800"). Remove the escape \\ud800 to \\udfff.',
    ),
    "NUL": ('"a\\u0000b"', 'string holds a control character (got "a\\u0000b"). Remove the character.'),
    "escape": ('"\\u001b[2J"', 'string holds a control character (got "\\u001b[2J"). Remove the character.'),
    "newline": ('"a\\nb"', 'string holds a control character (got "a\\nb"). Remove the character.'),
    "DEL": ('"\\u007f"', 'string holds a control character (got "\\u007f"). Remove the character.'),
    "right-to-left mark": (
        '"a\\u200f"',
        'string holds a control character (got "a\\u200f"). Remove the character.',
    ),
    "right-to-left override": (
        '"a\\u202eb"',
        'string holds a control character (got "a\\u202eb"). Remove the character.',
    ),
    "Arabic letter mark": (
        '"\\u061c"',
        'string holds a control character (got "\\u061c"). Remove the character.',
    ),
    "line separator": (
        '"\\u2028"',
        'string holds a control character (got "\\u2028"). Remove the character.',
    ),
    "byte-order mark": (
        '"\\ufeff"',
        'string holds a control character (got "\\ufeff"). Remove the character.',
    ),
    "not NFC": (
        '"e\\u0301"',
        'string is not in Unicode normal form NFC (got "e\\u0301"). Save it in form NFC.',
    ),
}


@pytest.mark.parametrize(("text", "message"), VALUES.values(), ids=VALUES.keys())
def test_values_are_refused_with_their_path(text, message):
    document = f'{{"stages": [0, {{"layer": {text}}}]}}'.encode()
    assert refusal(document) == f"a.json: stages[1].layer: {message}"
    assert refusal(text.encode()) == f"a.json: {message}"


@pytest.mark.parametrize("key", ["257 bytes", "lone surrogate", "NUL", "right-to-left mark", "not NFC"])
def test_keys_are_held_to_the_same_rules(key):
    text, message = VALUES[key]
    assert refusal(f'{{"a": {{{text}: 1}}}}'.encode()) == f"a.json: a.<key>: {message}"
    assert refusal(f"{{{text}: 1}}".encode()) == f"a.json: <key>: {message}"


@pytest.mark.parametrize("times", [2, 3])
def test_duplicate_key_is_refused_with_its_path(times):
    document = '{"stages": [0, {"width": 1, ' + '"mid": 2, ' * times + '"out": 3}]}'
    assert refusal(document.encode()) == (
        'a.json: stages[1].mid: duplicate key (got "mid"; allowed: each key once in an object). '
        "Delete all but one of them."
    )


def test_duplicate_key_is_found_under_another_spelling():
    assert "stem: duplicate key" in refusal(b'{"stem": 1, "st\\u0065m": 2}')


def test_equal_keys_in_different_objects_are_no_duplicates():
    assert strict_json.loads(b'{"a": {"x": 1}, "b": {"x": 1}}', where="") == {"a": {"x": 1}, "b": {"x": 1}}


# What the file as a whole is refused for: its bytes and the whole message.
FILES = {
    "empty": (b"", "file is empty. Check that this is the file you meant."),
    "byte-order mark": (
        b"\xef\xbb\xbf{}",
        "starts with a byte-order mark. Save the file as UTF-8 without BOM.",
    ),
    "UTF-16 with BOM": ("{}".encode("utf-16"), "not UTF-8: invalid start byte at byte 0. Save the file as UTF-8."),
    "UTF-16 without BOM": (
        "{}".encode("utf-16-le"),
        "holds a NUL byte at byte 1, as UTF-16 and binary files do. Save the file as UTF-8.",
    ),
    "Latin-1": ('["é"]'.encode("latin-1"), "not UTF-8: invalid continuation byte at byte 2. Save the file as UTF-8."),
    "surrogate in UTF-8": (
        b'["\xed\xa0\x80"]',
        "not UTF-8: invalid continuation byte at byte 2. Save the file as UTF-8.",
    ),
    "overlong": (b'["\xc0\xaf"]', "not UTF-8: invalid start byte at byte 2. Save the file as UTF-8."),
    "too long": (
        b" " * 2**20 + b"1",
        "file too long (got 1048577 bytes; allowed: at most 1048576 bytes). Check that this is the file you meant.",
    ),
    "too many values": (
        b"[" + b",".join([b"0"] * 100_000) + b"]",
        "too many values (got more than 100000; allowed: at most 100000). Check that this is the file you meant.",
    ),
    "depth 33": (
        nested(33),
        "nested too deeply (got more than 32 levels at character 32; allowed: at most 32 levels). "
        "Flatten the document.",
    ),
    "depth 33 of objects": (
        b'{"a":' * 33 + b"1" + b"}" * 33,
        "nested too deeply (got more than 32 levels at character 160; allowed: at most 32 levels). "
        "Flatten the document.",
    ),
    "100,000 brackets": (
        b"[" * 100_000,
        "nested too deeply (got more than 32 levels at character 32; allowed: at most 32 levels). "
        "Flatten the document.",
    ),
}


@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES.keys())
def test_files_are_refused(data, message):
    assert refusal(data) == f"a.json: {message}"


SYNTAX = {
    "trailing garbage": (b"{} x", "Extra data at line 1, column 4"),
    "two documents": (b"{}\n{}", "Extra data at line 2, column 1"),
    "single quotes": (b"{'a': 1}", "Expecting property name enclosed in double quotes at line 1, column 2"),
    "comment": (b"[1] // one", "Extra data at line 1, column 5"),
    "comment inside": (b"[\n# one\n1]", "Expecting value at line 2, column 1"),
    "blank": (b" \n", "Expecting value at line 2, column 1"),
    "unquoted": (b"{a: 1}", "Expecting property name enclosed in double quotes at line 1, column 2"),
    "hexadecimal": (b"[0x10]", "Expecting ',' delimiter at line 1, column 3"),
    "leading zero": (b"[01]", "Expecting ',' delimiter at line 1, column 3"),
    "plus": (b"[+1]", "Expecting value at line 1, column 2"),
    "word": (b"[True]", "Expecting value at line 1, column 2"),
    "bare newline": (b'["a\nb"]', "Invalid control character at line 1, column 4"),
    "no end of string": (b'["a', "Unterminated string starting at line 1, column 2"),
    "unknown escape": (b'["\\x"]', "Invalid \\escape"),
    "cut": (b'{"a": [1, 2', "Expecting ',' delimiter at line 1, column 12"),
}


@pytest.mark.parametrize(("data", "message"), SYNTAX.values(), ids=SYNTAX.keys())
def test_syntax_errors_say_where(data, message):
    assert refusal(data).startswith(f"a.json: not valid JSON: {message}")


def test_brackets_inside_strings_are_not_depth():
    texts = ["[" * 200, "{" * 200, '\\"[' * 50, '"' + "[" * 100, "\\", "\\\\["]
    document = json.dumps({"[" * 100: texts}).encode()
    assert strict_json.loads(document, where="a.json") == {"[" * 100: texts}


def test_depth_is_counted_behind_strings_with_escapes():
    assert "nested too deeply" in refusal(b'["\\\\", "\\"", ' + nested(32) + b"]")


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 500_000, b'"' + b'\\"' * 500_000 + b"\\", b'["' + b"\\" * 999_999])
def test_a_string_without_an_end_takes_no_longer_than_its_length(data):
    """Trying each quote as the start of a string took 4 seconds for 40 kB, so a quarter of an hour for these."""
    assert "not valid JSON" in refusal(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[" * 32 + b"1" + b"]" * 32, None),
        (json.dumps("x" * 256).encode(), "x" * 256),
        (json.dumps("é" * 128).encode(), "é" * 128),
        (b"1" + b" " * (2**20 - 1), 1),
        (str(2**31).encode(), 2**31),
        (str(-(2**31)).encode(), -(2**31)),
        (b"[" + b",".join([b"0"] * 99_999) + b"]", [0] * 99_999),
        (b"[0, 0.5, -1.5, 1e3, true, false, null]", [0, 0.5, -1.5, 1000.0, True, False, None]),
        ('["é", "\\u00e9", "\\ud83d\\ude97"]'.encode(), ["é", "é", "\N{AUTOMOBILE}"]),
        (b"[] \r\n\t", []),
    ],
    ids=["depth", "256 bytes", "128 two-byte", "1 MiB", "2^31", "-2^31", "values", "plain", "unicode", "white space"],
)
def test_what_is_allowed_passes_at_the_limit(data, expected):
    tree = strict_json.loads(data, where="a.json")
    if expected is not None:
        assert tree == expected
    else:
        assert json.dumps(tree).count("[") == 32


def test_types_are_kept_apart():
    tree = strict_json.loads(b'[1, 1.0, true, "1"]', where="a.json")
    assert [type(item) for item in tree] == [int, float, bool, str]


def test_a_path_of_hostile_keys_stays_short_and_printable():
    document = '{"%s": ' % ("k" * 256) * 31 + "NaN" + "}" * 31
    message = refusal(document.encode())
    assert message.startswith('a.json: ["kkk')
    assert "]: NaN is not JSON" in message
    assert "..." in message


def test_keys_that_are_no_plain_names_are_quoted_in_the_path():
    assert refusal(b'{"a b": {"c.d": [NaN]}}').startswith('a.json: ["a b"]["c.d"][0]: NaN')
    assert refusal(b'{"": NaN}').startswith('a.json: [""]: NaN')


def test_canonical_is_one_spelling():
    assert strict_json.canonical({"b": [1, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,null]}'
    assert strict_json.canonical({"a": "é", "b": [1, None]}) == strict_json.canonical({"b": [1, None], "a": "é"})
    with pytest.raises(ValueError, match="Out of range"):
        strict_json.canonical(float("nan"))
