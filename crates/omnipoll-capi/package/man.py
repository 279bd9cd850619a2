#!/usr/bin/env python3
"""Makes the manual from the comments of omnipoll.h: man.py HEADER FOLDER.

Writes omni_NAME.3 for each function and each type, and omnipoll.3 with the rest: the conventions and,
by chapter, the constants and the functions. The pages are in mdoc(7). Their date is that of
SOURCE_DATE_EPOCH, or else today.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHAPTER = re.compile(r"^/\* ---- (.*?) -+ \*/$", re.M)
ITEM = re.compile(
    r"/\*\*\n(?P<comment>(?: \*.*\n)*?) \*/\n"
    r"(?P<declared>#define .*|typedef struct \w+ (?:\{\n(?:.*\n)*?\} )?\w+;|OMNI_API [^;]*;)$",
    re.M,
)
ATTRIBUTES = re.compile(r"OMNI_API |OMNI_MUST_USE | ?OMNI_NONNULL\([\d,]*\)")
STARTS_A_LIST = re.compile(r" {2,3}\S")


@dataclass
class Item:
    """A function, a type or a constant: what is said of it, and its declaration."""

    chapter: str
    lines: list[str]
    declared: str

    @property
    def is_constant(self) -> bool:
        return self.declared.startswith("#define")

    @property
    def is_function(self) -> bool:
        return self.declared.startswith("OMNI_API")

    @property
    def name(self) -> str:
        if self.is_constant:
            return self.declared.split()[1]
        declared = self.declared if not self.is_function else self.declared.partition("(")[0]
        return str(re.findall(r"\w+", declared)[-1])

    @property
    def summary(self) -> str:
        """The first sentence."""
        text = " ".join(line.strip() for line in "\n".join(self.lines).partition("\n\n")[0].splitlines())
        return re.split(r"(?<=[^.])[.:](?: |$)", text)[0].replace("`", "").replace('"', "")


def unstarred(comment: str, margin: str) -> list[str]:
    """The lines of a comment without the stars."""
    return [re.sub(rf"^{margin} \* ?", "", line) for line in comment.strip("\n").splitlines()]


def items(header: str) -> list[Item]:
    chapters = CHAPTER.split(header)
    return [
        Item(name, unstarred(found["comment"], ""), found["declared"])
        for name, text in zip(chapters[1::2], chapters[2::2])
        for found in ITEM.finditer(text)
    ]


def escaped(text: str) -> str:
    """A line as roff has it: a minus that is copied stays one, names are bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\\&" + text if text.startswith((".", "'")) else text


def prose(lines: list[str]) -> list[str]:
    """Text with each sentence on a line of its own, after which roff leaves more room."""
    text = " ".join(line.strip() for line in lines)
    return [escaped(sentence) for sentence in re.split(r"(?<=[.?])(?<!e\.g\.) +(?=\S)", text)]


def literal(lines: list[str]) -> list[str]:
    """Lines that are shown as they are, without the indentation that they share."""
    margin = min(len(line) - len(line.lstrip()) for line in lines if line)
    shown = [escaped(line[margin:]) for line in lines]
    return [".Bd -literal -offset indent -compact", *shown, ".Ed"]


def listed(lines: list[str]) -> list[str]:
    """`  -EINVAL: the reason`, with its further lines indented by more."""
    entries: list[str] = []
    for line in lines:
        if STARTS_A_LIST.match(line):
            entries.append(line.strip())
        else:
            entries[-1] += " " + line.strip()
    output = [".Bl -tag -width Ds -compact"]
    for entry in entries:
        tag, colon, reason = entry.partition(": ")
        if not colon:
            tag, reason = entry.split(None, 1)
            tag, reason = ("", reason) if tag in "-*" else (tag, reason)
        output += [f".It {escaped(tag)}" if tag else ".It \\(bu", *prose([reason])]
    return [*output, ".El"]


def block(lines: list[str]) -> list[str]:
    """A paragraph: text, and what follows it indented."""
    start = next((i for i, line in enumerate(lines) if line.startswith("  ")), len(lines))
    output = prose(lines[:start]) if start else []
    if rest := lines[start:]:
        output += (listed if STARTS_A_LIST.match(rest[0]) else literal)(rest)
    return output


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Divided at empty lines. What is indented by four and more is one paragraph throughout."""
    result: list[list[str]] = [[]]
    for line in lines:
        if line:
            result[-1].append(line)
        elif result[-1]:
            result.append([])
    merged: list[list[str]] = []
    for lines in filter(None, result):
        if merged and all(part[0].startswith("    ") for part in (merged[-1], lines)):
            merged[-1] += ["", *lines]
        else:
            merged.append(lines)
    return merged


def described(parts: list[list[str]]) -> list[str]:
    """Paragraphs, one after another."""
    output: list[str] = []
    for part in parts:
        output += ([".Pp"] if output else []) + block(part)
    return output


def arguments(text: str) -> list[str]:
    """Divided at the commas that no parenthesis surrounds."""
    result, depth = [""], 0
    for character in re.sub(r"\s+", " ", text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            result.append("")
        else:
            result[-1] += character
    return [argument.strip() for argument in result]


def synopsis(item: Item) -> list[str]:
    if not item.is_function:
        return [".Bd -literal", *map(escaped, without_comments(item.declared).splitlines()), ".Ed"]
    declared = ATTRIBUTES.sub("", item.declared)
    before, _, rest = declared.partition("(")
    kind = before.strip()[: -len(item.name)].strip()
    parameters = arguments(rest.rpartition(")")[0])
    quoted = [f'.Fa "{escaped(parameter)}"' for parameter in parameters]
    return [f'.Ft "{escaped(kind)}"', f".Fo {item.name}", *quoted, ".Fc"]


def without_comments(declared: str) -> str:
    return re.sub(r" *\*?/\*\*\n(?: +\*.*\n)*? +\*/\n", "", declared)


def fields(item: Item) -> list[str]:
    """The fields of a struct, with what is said of each."""
    field = re.compile(r"    /\*\*\n(?P<comment>(?:     \*.*\n)*?)     \*/\n(?P<field>[^;]*;)$", re.M)
    found = list(field.finditer(item.declared))
    output = [".Bl -tag -width Ds"] if found else []
    for one in found:
        declared = re.sub(r"\s+", " ", one["field"]).strip().rstrip(";")
        output += [f".It Vt {escaped(declared)}", *described(paragraphs(unstarred(one["comment"], "    ")))]
    return [*output, ".El"] if found else []


def page(name: str, summary: str, sections: list[tuple[str, list[str]]]) -> str:
    date = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    head = [f".Dd {time.strftime('%B', date)} {date.tm_mday}, {date.tm_year}", f".Dt {name.upper()} 3", ".Os"]
    head += [".Sh NAME", f".Nm {name}", f".Nd {escaped(summary)}", ".Sh LIBRARY", "omnipoll (\\-lomnipoll)"]
    lines = head + [line for title, body in sections if body for line in (f".Sh {title}", *body)]
    return "\n".join(lines) + "\n"


def page_of(item: Item, names: set[str]) -> str:
    parts = paragraphs(item.lines)
    returns = [part for part in parts if part[0].startswith("Returns ")] if len(parts) > 1 else []
    description = [part for part in parts if part not in returns]
    mentioned = set(re.findall(r"\bomni_\w+", "\n".join(item.lines) + item.declared)) & names - {item.name}
    see = [f".Xr {name} 3 ," for name in sorted(mentioned)] + [".Xr omnipoll 3"]
    body = described(description)
    if of_fields := fields(item):
        body += [".Pp", "The fields:", *of_fields]
    sections = [
        ("SYNOPSIS", [".In omnipoll.h", *synopsis(item)]),
        ("DESCRIPTION", body),
        ("RETURN VALUES", described(returns)),
        ("SEE ALSO", see),
    ]
    return page(item.name, item.summary, sections)


def overview(header: str, everything: list[Item]) -> str:
    """The comment at the header's beginning, and what each chapter has."""
    comment = header.partition("*/")[0].removeprefix("/*\n")
    title, *rest = paragraphs(unstarred(comment, ""))
    parts = [part for part in rest if not part[0].startswith("This file is generated")]
    body = described([[line.removeprefix("omnipoll: ") for line in title], *parts])
    for chapter in dict.fromkeys(item.chapter for item in everything):
        entries = [item for item in everything if item.chapter == chapter]
        body += [f".Ss {escaped(chapter)}", ".Bl -tag -width Ds"]
        for item in entries:
            if item.is_constant:
                body += [f".It Dv {item.name}", *described(paragraphs(item.lines))]
            else:
                body += [f".It Xr {item.name} 3", *prose([item.summary])]
        body.append(".El")
    sections = [("SYNOPSIS", [".In omnipoll.h"]), ("DESCRIPTION", body)]
    return page("omnipoll", "one interface over select, poll, epoll and io_uring", sections)


def main(header: str, folder: str) -> None:
    text = Path(header).read_text()
    everything = items(text)
    pages = Path(folder)
    pages.mkdir(parents=True, exist_ok=True)
    for old in pages.glob("omni*.3"):
        old.unlink()
    described_alone = [item for item in everything if not item.is_constant]
    names = {item.name for item in described_alone}
    for item in described_alone:
        (pages / f"{item.name}.3").write_text(page_of(item, names))
    (pages / "omnipoll.3").write_text(overview(text, everything))


if __name__ == "__main__":
    main(*sys.argv[1:])
