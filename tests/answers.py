"""Answers to each question: those that are accepted, and those that are refused."""

import ast
import re

from tests.conftest import SOURCE

# Each would leave a file named `marker` if anything ran it.
CODE = [
    "$(touch marker)",
    "`touch marker`",
    "; touch marker",
    "& touch marker",
    "| touch marker",
    "> marker",
    "x && touch marker",
    "';touch marker;'",
    '";touch marker;"',
    "\n touch marker\n",
    "__import__('os').system('touch marker')",
    '"""; __import__("os").system("touch marker"); """',
    "'''; __import__('os').system('touch marker'); '''",
    '\\"""; __import__("os").system("touch marker") #',
    "f{open(chr(109)+'arker', 'w')}",
    "${IFS}touch${IFS}marker",
    "$(shell touch marker)",
    "!!python/object/apply:os.system [touch marker]",
    "%(touch marker)s",
    "<script>touch marker</script>",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch marker') }}",
    "<< self.__init__.__globals__.__builtins__.__import__('os').system('touch marker') >>",
    "<% set x = self.__init__.__globals__.__builtins__.__import__('os').system('touch marker') %>",
    "<# touch marker #>",
    "{% include marker %}",
    "{# touch marker #}",
    "${{ github.token }}",
]
# What no name may hold, whatever the name is of.
ODD = [
    *CODE,
    "",
    " ",
    "\t",
    "a\nb",
    "a\r\nb",
    "a\x00b",
    "a\x1b[31mb",
    "a\x7fb",
    "a b",
    " ab",
    "ab ",
    "ab\n",
    "a'b",
    'a"b',
    "a\\b",
    "a/b",
    "/a",
    "../a",
    "..",
    ".",
    "~",
    "a:b",
    "a@b",
    "a,b",
    "a*",
    "a?",
    "a%b",
    "a#b",
    "a=b",
    "a+b",
    "[a]",
    "(a)",
    "{a}",
    "<a>",
    "$a",
    "a_b",
    "Ab",
    "AB",
    "äb",
    "straße",
    "日本",
    "заказы",
    "ab\u0430",
    "😀",
    "a\u200bb",
    "a\u202eb",
    "a\u00adb",
    "a\u00a0b",
    "ﬁ",
    "١٢",
    "None",
    "-",
    "--help",
    "-rf",
]
NAMES = ["a1", "ab", "z9", "orders", "user-profiles", "x" * 24, "a" + "-b" * 11, "test", "tests", "service"]
NAMES += [
    "docker",
    "compose",
    "web",
    "release",
    "python",
    "main",
    "null",
    "true",
    "no",
    "nan",
    "inf",
    "con",
]
NAMES += ["aux", "root", "admin", "http", "localhost", "e5", "x1e3", "xn-a", "aws", "con1", "class", "import", "json"]
NO_NAMES = ["a", "x" * 25, "x" * 200, "1st", "9", "0x1", "1e3", "-ab", "ab-", "a--b", "a.b", "ab.", "xn--a", "a-b-"]
NO_NAMES += ["orders-", "my service", "My-Service", "aB", "a1_", "a" + "-b" * 12]
[_taken] = re.findall(r"^TAKEN = (\(.*\))$", (SOURCE / "deploy" / "rules.py").read_text(encoding="utf-8"), re.MULTILINE)
TAKEN: tuple[str, ...] = ast.literal_eval(_taken)

LINES = ["x", "7", "x" * 200, "😀" * 200, "Keeps orders, 100 % reliably", "Größe: 5 € & more", "costs $5 or ${HOME}"]
LINES += [
    "$",
    "$$",
    "$(touch marker)",
    "$HOME",
    "${PORT:-8000}",
    "%d %s %(x)s",
    "; touch marker",
    "| a | b |",
    "|",
    ">",
]
LINES += [
    "# no comment: *a*",
    "#",
    "a # b",
    "a: b",
    "- a",
    "* a",
    "? a",
    "! a",
    "!!str a",
    "@a",
    "[a]",
    "{a}",
    "{a: b}",
]
LINES += ["&a *a", "---", "...", "~", "null", "true", "no", "0", "1e3", "0x1F", "2026-01-01", "<b>bold</b>", "&amp;"]
LINES += ["</p><script>alert(1)</script>", "http://a.b/c?d=e&f=g", "[a](b)", "<!-- a -->", "a < b > c", "=", "==", "^"]
LINES += [
    "日本語",
    "заказы",
    "طلبات",
    "e\u0301",
    "❤️",
    "🇩🇪",
    "½ ² ™",
    "(a)",
    "a;b",
    "a,b",
    "a/b",
    "100%",
    "{",
    "}",
    "<",
    "make tea",
]
LINES += [
    "make",
    "| I Codebase | x | y |",
    "test",
    "service",
    "docker",
    "FROM scratch",
    "RUN x",
    "$(shell touch marker)",
]
LINES += ["None", " padded ", "  x", "x  ", "ﬁ", "C++", "R&D", "-", "+", "_", ",", ".", ":", "import os"]
LINES += ["& touch marker", "> marker", "x && touch marker", "!!python/object/apply:os.system [touch marker]"]
NO_LINES = ["", " ", "   ", "x" * 201, "é" * 201, "\t", "\n", "a\nb", "a\r\nb", "a\rb", "a\tb", "a\x00b", "a\x07b"]
NO_LINES += ["a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b", "a\u00a0b", "a\u00adb", "a\u061cb", "a\u200bb"]
NO_LINES += [
    "a\u200db",
    "a\u200eb",
    "a\u200fb",
    "\u202eltr",
    "a\u202ab",
    "a\u202bb",
    "a\u202db",
    "a\u2066b",
    "a\u2067b",
]
NO_LINES += ["a\u2068b", "a\u2069b", "\ufeffa", "a\ue000b", "a\u3000b", "\U000e0041", "\ud800", "\uffff"]
NO_LINES += [
    "it's",
    'a "quoted" word',
    '"',
    "'",
    '"""',
    "'''",
    "`",
    "`touch marker`",
    "```",
    "\\",
    "a\\",
    "a\\nb",
    "\\x41",
]
NO_LINES += [
    "{{",
    "}}",
    "{{ a }}",
    "a {{ b",
    "{%",
    "%}",
    "{% a %}",
    "{#",
    "#}",
    "<<",
    ">>",
    "<< a >>",
    "a >> b",
    "a << b",
]
NO_LINES += ["<%", "%>", "<% a %>", "<#", "#>", "a #> b", "${{ a }}", "<<<<", "{{{", "end\n", "\nbegin"]

DOMAINS = [
    "mycompany.com",
    "a.b",
    "internal.example",
    "xn--bcher-kva.example",
    "1.a2",
    "a.b.c.d.e.f.g",
    "x" * 63 + ".y",
]
DOMAINS += [".".join(["x" * 61] * 3 + ["y" * 58]), "a-b.c-d", "0.0.a", "test.test", "service.local", "docker.internal"]
DOMAINS += ["co.uk", "localhost.localdomain", "prod.eu-west-1.mycompany.com", "a1.b2", "9.z", "null.true", "no.yes"]
NO_DOMAINS = ["localhost", "a", "com", "test", "service", "docker", "1.2.3.4", "127.0.0.1", "a.1", "a.b.9", "::1"]
NO_DOMAINS += [
    "My.com",
    "a..b",
    ".a.b",
    "a.b.",
    ".",
    "-a.b",
    "a-.b",
    "a.-b",
    "a.b-",
    "a_b.c",
    "a b.c",
    "a.b c",
    "a.b/c",
]
NO_DOMAINS += [
    "bücher.example",
    "例え.jp",
    "\u0430.com",
    "a.b:80",
    "http://a.b",
    "a@b.c",
    "*.a.b",
    "a.b?",
    "a.b#",
    "$a.b",
]
NO_DOMAINS += [
    "x" * 64 + ".y",
    ".".join(["x" * 61] * 3 + ["y" * 59]),
    "a." * 200 + "b",
    "a.b\n",
    "a\n.b",
    " a.b",
    "a.b ",
]
NO_DOMAINS += ["a\u200b.b", "a。b", "a.b\u202e", "a'.b", 'a".b', "a\\.b", "<<.>>", "{{a}}.b", "%.b", "a,b.c", "a;b.c"]

ACCEPTED = {"service": NAMES, "description": LINES, "domain": DOMAINS}
REFUSED = {"service": [*NO_NAMES, *ODD, *TAKEN], "description": NO_LINES, "domain": NO_DOMAINS + ODD}
