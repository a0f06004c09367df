"""Compare the contract of the service with the committed copy, and report the changes that break clients.

`python -m chassis.dev.contract` prints the result and renews the copy in `docs/openapi.json`.
"""

import functools
import importlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from chassis.dev.variables import examples

COPY = Path("docs/openapi.json")
Node = dict[str, Any]

LEAST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
MOST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
SHAPES = {"type", "enum", "const", "required", "properties", "additionalProperties", "items", "anyOf", "oneOf"}
WORDS = {"title", "description", "default", "example", "examples", "deprecated"}
"""They promise nothing."""


def now(package: str = "service") -> Node:
    """Return the contract of a service as it is served with the defaults, whatever the environment says."""
    environment = {**examples(), "DATABASE_URL": "postgresql://nobody@nowhere/nothing"}
    with mock.patch.dict("os.environ", environment, clear=True):
        app = importlib.import_module(f"{package}.app").create_app()
    return dict(json.loads(json.dumps(app.extensions["contract"])))


def committed() -> Node:
    """Return the contract that clients know: as of the last commit; where there is none, as in the file."""
    command = ["git", "show", f"HEAD:./{COPY}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout if done.returncode == 0 else COPY.read_text(encoding="utf-8")))


def verdict(old: Node, new: Node) -> str:
    """In one line: whether the contract has changed, and whether that breaks clients."""
    if old == new:
        return "The contract has not changed."
    if found := list(Comparison(old, new).breaks()):
        return f"The contract has changed and BREAKS CLIENTS: {'; '.join(found)}."
    return "The contract has changed and breaks no client."


class Comparison:
    """A comparison: `new` must accept all requests valid in `old`, and `old` must describe all responses of `new`."""

    def __init__(self, old: Node, new: Node) -> None:
        self.old, self.new = old, new
        self._compared: set[tuple[str, str, bool]] = set()

    def breaks(self) -> Iterator[str]:
        """Return what breaks clients, operation by operation; what several share is said once."""
        for path, item in self.old["paths"].items():
            for method, was in item.items():
                where = f"{method.upper()} {path}"
                now = self.new["paths"].get(path, {}).get(method)
                if now is None:
                    yield f"{where} is gone"
                else:
                    yield from self._of_operation(was, now, where)

    def _is_compared(self, one: Node, other: Node, *, asked: bool) -> bool:
        """Whether two references were met before, and are now: also where a schema contains itself."""
        pair = one.get("$ref", ""), other.get("$ref", ""), asked
        met = all(pair[:2]) and pair in self._compared
        self._compared.add(pair)
        return met

    def _of_operation(self, was: Node, now: Node, where: str) -> Iterator[str]:
        if was["operationId"] != now["operationId"]:
            yield f"{where}: {was['operationId']} is called {now['operationId']}"
        had, wanted = was.get("security", self.old.get("security")), now.get("security", self.new.get("security"))
        if wanted and wanted != had:
            yield f"{where} wants other credentials"
        yield from self._of_parameters(was, now, where)
        bodies = was.get("requestBody", {}), now.get("requestBody", {})
        if bodies[1].get("required") and not bodies[0].get("required"):
            yield f"{where}: a body is required"
        yield from self._of_content(*bodies, f"{where}: body", asked=True)
        yield from (f"{where} {status} is new" for status in missing(now, was, "responses") if status < "300")
        yield from (f"{where} {status} is gone" for status in missing(was, now, "responses"))
        for status in sorted(was["responses"].keys() & now["responses"].keys()):
            answers = was["responses"][status], now["responses"][status]
            if not self._is_compared(*answers, asked=False):
                answers = resolve(self.old, answers[0]), resolve(self.new, answers[1])
                yield from (f"{where} {status}: header {name} is gone" for name in missing(*answers, "headers"))
                yield from self._of_content(*answers, f"{where} {status}", asked=False)

    def _of_parameters(self, was: Node, now: Node, where: str) -> Iterator[str]:
        olds, news = ({(each["in"], each["name"]): each for each in op.get("parameters", [])} for op in (was, now))
        for (place, name), new in news.items():
            if new.get("required") and not olds.get((place, name), {}).get("required"):
                yield f"{where}: parameter {name} is required"
        for (place, name), old in olds.items():
            if (place, name) not in news:
                yield f"{where}: parameter {name} is gone"
            else:
                yield from self._fits(old["schema"], news[place, name]["schema"], f"{where}: {name}", asked=True)

    def _of_content(self, was: Node, now: Node, where: str, *, asked: bool) -> Iterator[str]:
        yield from (f"{where}: {kind} is gone" for kind in missing(was, now, "content"))
        for kind in sorted(was.get("content", {}).keys() & now.get("content", {}).keys()):
            schemas = was["content"][kind]["schema"], now["content"][kind]["schema"]
            yield from self._fits(*(schemas if asked else schemas[::-1]), where, asked=asked)

    def _fits(self, sent: Node, expected: Node, where: str, *, asked: bool) -> Iterator[str]:
        """Yield the reasons why a value that is valid against `sent` may be invalid against `expected`.

        With `asked`, `sent` is the old schema of a request; otherwise it is the new schema of a response.
        """
        if self._is_compared(sent, expected, asked=asked):
            return
        contracts = (self.old, self.new) if asked else (self.new, self.old)
        ours, theirs = resolve(contracts[0], sent), resolve(contracts[1], expected)
        if options := ours.get("anyOf") or ours.get("oneOf"):
            for option in options:
                yield from self._fits(option, expected, where, asked=asked)
        elif options := theirs.get("anyOf") or theirs.get("oneOf"):
            compared = set(self._compared)
            yield from min((list(self._fits(sent, each, where, asked=asked)) for each in options), key=len)
            self._compared = compared  # what does not fit here may matter elsewhere
        elif not kinds(ours) <= kinds(theirs):
            yield f"{where}: type {'is' if asked else 'was'} {theirs['type']}"
        else:
            yield from (f"{where}: {fault} {'now' if asked else 'before'}" for fault in narrower(ours, theirs))
            yield from self._of_fields(ours, theirs, where, asked=asked)
            if "items" in theirs:
                yield from self._fits(ours.get("items", {}), theirs["items"], f"{where}[]", asked=asked)

    def _of_fields(self, sent: Node, expected: Node, where: str, *, asked: bool) -> Iterator[str]:
        others = sent.get("additionalProperties", True), expected.get("additionalProperties", True)
        if others[1] is False:
            yield from (f"{where}: field {name} is refused" for name in missing(sent, expected, "properties"))
        if others[1] is False is not others[0]:
            yield f"{where}: other fields are refused"
        elif all(isinstance(other, dict) for other in others):
            yield from self._fits(*others, f"{where}.*", asked=asked)
        if not asked:
            yield from (f"{where}: field {name} is gone" for name in missing(expected, sent, "properties"))
        for name in sorted(set(expected.get("required", [])) - set(sent.get("required", []))):
            if asked or name in sent.get("properties", {}):
                yield f"{where}: field {name} {'is required' if asked else 'may be missing'}"
        for name, schema in sent.get("properties", {}).items():
            if name in expected.get("properties", {}):
                yield from self._fits(schema, expected["properties"][name], f"{where}.{name}", asked=asked)


def narrower(sent: Node, expected: Node) -> Iterator[str]:
    """Return the words of `expected`, other than those of its shape, that values of `sent` may offend."""
    values, allowed = choices(sent), choices(expected)
    if allowed is not None and (values is None or not set(values) <= set(allowed)):
        yield f"only {', '.join(allowed)}"
    for word in sorted(expected.keys() - SHAPES - WORDS - {"$ref"}):
        bound, own = expected[word], sent.get(word)
        kept = own is not None and (own >= bound if word in LEAST else own <= bound if word in MOST else own == bound)
        if not kept and values is None:
            yield f"{word} {bound}"


def resolve(contract: Node, node: Node) -> Node:
    """Return the node, or what it refers to."""
    while "$ref" in node:
        names = node["$ref"].removeprefix("#/").split("/")
        node = functools.reduce(lambda inner, name: inner[name], names, contract)
    return node


def missing(one: Node, other: Node, member: str) -> list[str]:
    """Return the names that a member has in `one` and lacks in `other`."""
    return sorted(one.get(member, {}).keys() - other.get(member, {}).keys())


def kinds(schema: Node) -> set[str]:
    """Return the types that a value may have; an integer is a number too."""
    named = schema.get("type", ["null", "boolean", "object", "array", "number", "string"])
    found = {named} if isinstance(named, str) else set(named)
    return found | {"integer"} if "number" in found else found


def choices(schema: Node) -> list[str] | None:
    """Return the only values that there are, as JSON, if they are listed."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else [json.dumps(value) for value in values]


if __name__ == "__main__":
    served = now()
    print(verdict(committed(), served))
    COPY.write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
