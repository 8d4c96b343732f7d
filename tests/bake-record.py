#!/usr/bin/env python3
"""Records what `docker buildx bake` makes of the cases in testdata/bake.

RBUILD_DOCKER names the client, as in the suite; no engine is needed. Each case is a directory: the
definition files, `command` (arguments besides --print), `env` (NAME=value lines) and `stdin`. Its
result is written to `expected`; with `fails` in the directory, buildx must fail. A file `newer` says
which version has what the case is about; its `expected` is written by hand. `--check` compares instead
of writing. Names as arguments select cases.
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "testdata" / "bake"
# Files of a case that are not its input.
OWN = {"expected", "fails", "newer", "command", "env", "stdin", "message.snap"}


def environment(case):
    path = case / "env"
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if line)


def arguments(case):
    path = case / "command"
    words = shlex.split(path.read_text()) if path.exists() else []
    listed = any(word.startswith("--list") for word in words)
    return words if listed else ["--print", *words]


def run(client, case):
    """Runs buildx in a copy of the case, and returns its exit code and output."""
    with tempfile.TemporaryDirectory(prefix="bake-record-") as directory:
        for path in case.iterdir():
            if path.name not in OWN:
                subprocess.run(["cp", "-r", path, directory], check=True)
        variables = [f"{name}={value}" for name, value in environment(case).items()]
        command = ["env", "-C", directory, *variables, *client, "buildx", "bake", *arguments(case)]
        # A client in another root directory gets the command as a whole.
        chroot = os.environ.get("RBUILD_DOCKER_ROOT")
        if chroot:
            command = ["chroot", chroot, *command]
        stdin = case / "stdin"
        data = stdin.read_bytes() if stdin.exists() else b""
        done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    client = shlex.split(os.environ.get("RBUILD_DOCKER", "docker"))
    failed = 0
    for case in sorted(path for path in CASES.iterdir() if path.is_dir()):
        if options.cases and case.name not in options.cases:
            continue
        if (case / "newer").exists():
            print(f"{case.name}: skipped, {(case / 'newer').read_text().strip()}")
            continue
        code, out, err = run(client, case)
        expected = case / "expected"
        if (code != 0) != (case / "fails").exists():
            print(f"{case.name}: exit code {code}\n{err}", file=sys.stderr)
            failed += 1
        elif (case / "fails").exists():
            print(f"{case.name}: fails")
        elif options.check and expected.read_text() != out:
            print(f"{case.name}: differs from `expected`", file=sys.stderr)
            failed += 1
        elif not options.check:
            expected.write_text(out)
            print(f"{case.name}: {len(out)} bytes")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
