#!/usr/bin/env python3
"""Counts how the comments of the sources are written, and fails outside the bounds.

    tests/prose.py [-v] [PATH...]

-v names each doc block that counts against a bound. With paths, only those are counted, without bounds.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

# Doc blocks begin with what an item is or does, not with a question.
QUESTION = re.compile(r"(What|Whether|Who|Whose|Whom|Where|Which|Why)\b")
MAX_QUESTIONS = 0.03
# So short a block repeats the name.
SHORT_WORDS = 3
MAX_SHORT = 0.05
# Functions say what they do: "Returns", "Reads".
VERB = re.compile(r"([A-Z][a-z]+s)\b(?!')")
MIN_VERBS = 0.30
NO_VERBS = """
    Access Across Addresses Always Arguments As Attributes Bits Blobs Bounds Bytes Caches Capabilities Certificates
    Changes Class Colours Columns Contexts Credentials Descriptors Details Digests Directories Does Entries Errors
    Facts Fields Files Flags Groups Has Headers His Hours Ids Inputs Is Its Keys Kinds Layers Less Limits Lines Links
    Members Milliseconds Minutes Modes Mounts Names Namespaces Notes Numbers Options Others Outputs Parts Paths
    Permissions Pieces Platforms Plus Positions Process Ranges Records Registries Results Rules Seconds Secrets
    Settings Signals Sizes Sockets Sources Spans Stages Statistics Status Steps Streams Tags Tests Texts This Thus
    Totals Types Units Us Users Values Variables Was Ways Words""".split()
MAX_IS_NO = 20
MAX_FOLDERS = 0.05                               # of the times that "directory" stands there
# Addresses, sections of the manual, and specifications.
REFERENCE = re.compile(r"https?://|\b[a-z_0-9]+`?\([1-9][a-z]?\)|\b(?:image|runtime|distribution)-spec\b|\bRFC \d+")
MIN_REFERENCES = 250


class Counts:
    def __init__(self):
        self.blocks = self.questions = self.short = self.verbs = 0
        self.is_no = self.folders = self.directories = self.rooms = self.references = 0
        self.offenders = []

    def add(self, path):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        self.is_no += len(re.findall(r"\bis no ", text))
        self.folders += len(re.findall(r"folder", text, re.I))
        self.directories += len(re.findall(r"directory|directories", text, re.I))
        self.rooms += len(re.findall(r"\brooms?\b", text, re.I))
        for comment in re.findall(r"//.*", text):
            self.references += len(REFERENCE.findall(comment))
        for line, block in doc_blocks(text):
            self.block(f"{path}:{line}", block)

    def block(self, where, text):
        if text.startswith("grammar: "):         # productions of grammar/, read by a test
            return
        self.blocks += 1
        if QUESTION.match(text):
            self.questions += 1
            self.offenders.append(f"{where}: a question: {text[:80]}")
        elif len(text.split()) <= SHORT_WORDS:
            self.short += 1
            self.offenders.append(f"{where}: short: {text}")
        else:
            verb = VERB.match(text)
            self.verbs += bool(verb) and verb[1] not in NO_VERBS


def doc_blocks(text):
    """The doc comments of a file: number of the first line, and all lines as one."""
    block, first, kind = [], 0, None
    for number, line in enumerate([*text.split("\n"), ""], 1):
        found = re.match(r"\s*(//[/!])(?!/) ?(.*)", line)
        if block and (not found or found[1] != kind):
            yield first, " ".join(block).strip()
            block = []
        if found:
            if not block:
                first, kind = number, found[1]
            block.append(found[2])


def sources(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        for directory, _, names in os.walk(path):
            yield from (os.path.join(directory, n) for n in sorted(names) if n.endswith(".rs"))


def main():
    paths = [p for p in sys.argv[1:] if p != "-v"]
    os.chdir(ROOT)
    counts = Counts()
    for path in sources(paths or ["src"]):
        counts.add(path)
    if "-v" in sys.argv[1:]:
        print("\n".join(counts.offenders))
    blocks = max(counts.blocks, 1)
    bounds = [
        ("doc blocks that begin with a question", counts.questions / blocks, "<=", MAX_QUESTIONS),
        (f"doc blocks of at most {SHORT_WORDS} words", counts.short / blocks, "<=", MAX_SHORT),
        ("doc blocks that begin with a verb", counts.verbs / blocks, ">=", MIN_VERBS),
        ('"is no "', counts.is_no, "<=", MAX_IS_NO),
        ("folders among directories", counts.folders / max(counts.directories, 1), "<=", MAX_FOLDERS),
        ("rooms", counts.rooms, "<=", 0),
        ("references to what lies outside", counts.references, ">=", MIN_REFERENCES),
    ]
    print(f"{counts.blocks} doc blocks")
    failed = False
    for what, value, relation, bound in bounds:
        good = value <= bound if relation == "<=" else value >= bound
        failed |= not good and not paths
        shown = f"{value:.1%} {relation} {bound:.0%}" if isinstance(value, float) else f"{value} {relation} {bound}"
        print(f"{'ok  ' if good else 'FAIL'} {what}: {shown}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
