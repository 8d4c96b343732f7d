#!/usr/bin/env python3
"""Runs the hostile suite: one attack a row, against an rbuild on a throw-away host.

    RBUILD=/path/to/rbuild tests/hostile/run.py [--filter PATTERN] [--mode root|user|both] [--jobs N]

It needs root, busybox-static, gcc, git, and newuidmap (Debian's uidmap). README.md says how it works.
"""

import argparse
import atexit
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, "/suite"]  # The second is where workers find it.
sys.dont_write_bytecode = True

from lib import suite  # noqa: E402
from lib.worker import receive, send  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description="Runs attacks against rbuild on a throw-away host.")
    parser.add_argument("--filter", default="", metavar="PATTERN",
                        help="rows whose name, class or CVE holds PATTERN, or matches it as a glob")
    parser.add_argument("--mode", choices=("root", "user", "both"), default="both")
    # More workers than processors: many rows wait for a server that stalls.
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), metavar="N")
    parser.add_argument("--brief", action="store_true",
                        help="as one user only where it makes no difference who runs rbuild: "
                        + ", ".join(sorted(suite.SAME_FOR_ALL_USERS)))
    parser.add_argument("--list", action="store_true", help="print the rows and run nothing")
    parser.add_argument("--json", metavar="FILE", help="write what came of each row")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each row")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    # The throw-away host has this machine's /usr, and nothing else of it.
    if not os.path.realpath(sys.executable).startswith("/usr/"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    options = arguments()
    if options.worker:
        return worker()
    rows = [row for row in suite.load().values() if suite.matches(row, options.filter)]
    if options.list:
        for row in rows:
            for name in row.names():
                print(f"{row.cls:12} {'+'.join(row.modes):10} {name}  {row.cve}")
        print(f"{sum(len(row.names()) for row in rows)} rows")
        return 0
    program = os.environ.get("RBUILD")
    if not program or not os.path.isfile(program):
        sys.exit("error: set RBUILD to the static rbuild program that is to be attacked")
    if os.geteuid() != 0:
        sys.exit("error: the suite needs root: it makes namespaces, devices and users of its own")
    missing = [name for name in ("/bin/busybox", "/usr/bin/newuidmap", "/usr/bin/gcc")
               if not os.path.exists(name)]
    if missing:
        sys.exit(f"error: missing {' '.join(missing)}; install busybox-static uidmap gcc libc6-dev git")
    # Whoever ends the suite ends its hosts, and leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    work = tempfile.mkdtemp(prefix="hostile-")
    try:
        probe = f"{work}/probe"
        subprocess.run(["gcc", "-static", "-O1", "-w", "-o", probe, f"{HERE}/probe.c"], check=True)
        subprocess.run(["gcc", "-static", "-nostdlib", "-fno-stack-protector", "-ffreestanding", "-O1", "-w",
                        "-Wl,-Ttext-segment=0x50000000", "-o", f"{work}/loader", f"{HERE}/loader.c"], check=True)
        return attack(options, rows, work, os.path.realpath(program), probe)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def attack(options, rows, work, program, probe):
    modes = ("root", "user") if options.mode == "both" else (options.mode,)
    # Long rows first: the workers then end together.
    tasks = [(row, mode) for mode in modes for row in rows
             if mode in row.modes and not (options.brief and is_repetition(row, mode))]
    tasks.sort(key=lambda task: -task[0].seconds)
    results, lock, started = [], threading.Lock(), time.monotonic()

    def take():
        with lock:
            return tasks.pop(0) if tasks else None

    def drive(number):
        process = None
        while (task := take()) is not None:
            row, mode = task
            if process is None:
                process = start_worker(f"{work}/root-{number}", program, probe)
            answer = ask(process, row, mode)
            if answer is None:
                # Whatever ended process 1 of the host from inside has got out.
                process.kill()
                process = None
                answer = {"row": row.name, "mode": mode, "seconds": row.seconds, "failures": [],
                          "counted": {"W": ["the host itself ended or hung"]}, "tail": "",
                          "command": "", "parts": {}, "rss": 0}
            elif answer["is_host_changed"]:
                # Later rows get a host that is whole.
                process.stdin.close()
                process.wait()
                process = None
            with lock:
                results.append(answer)
                report(options, row, answer)
        if process is not None:
            process.stdin.close()
            process.wait()

    threads = [threading.Thread(target=drive, args=(number,), daemon=True) for number in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return closing(options, rows, results, time.monotonic() - started)


def is_repetition(row, mode):
    same = row.same_for_all_users or row.cls in suite.SAME_FOR_ALL_USERS
    return mode == "user" and "root" in row.modes and same


def start_worker(root, program, probe):
    os.makedirs(root, exist_ok=True)
    command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child",
               sys.executable, "-B", os.path.join(HERE, "run.py"), "--worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    atexit.register(process.kill)
    send(process, {"root": root, "program": program, "probe": probe})
    if receive(process, 60) is None:
        print("error: the throw-away host could not be made", file=sys.stderr, flush=True)
        os._exit(3)
    return process


def ask(process, row, mode):
    try:
        send(process, {"row": row.name, "mode": mode})
    except OSError:
        return None
    return receive(process, 6 * suite.PATIENCE * row.seconds + 60)


def worker():
    """Process 1 of a throw-away host: enters it, then runs rows until its input ends."""
    from lib.world import World
    import resource

    # Rows print nothing: what is written to the real output is an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    rows = suite.load()
    world = World("CNRY" + secrets.token_hex(8))
    world.enter(first["root"], HERE, first["program"], first["probe"])
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from lib import oci

    oci.Image([suite.base_layer()]).write_layout("/arena/base")
    world.ready()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        answer = suite.perform(world, rows[task["row"]], task["mode"])
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def failed_parts(row, answer):
    """The failed attacks of one run, by name, with what happened."""
    failed = {}
    whole = [f"{key}: {text}" for key, texts in answer["counted"].items() for text in texts]
    whole += answer["failures"]
    if row.parts:
        failed.update({name: [text] for name, text in answer["parts"].items()})
        if whole:
            failed.setdefault(row.parts[0] if row.parts else row.name, []).extend(whole)
    elif whole:
        failed[row.name] = whole
    return failed


def report(options, row, answer):
    failed = failed_parts(row, answer)
    if not failed:
        if options.verbose:
            print(f"ok    {row.name} ({answer['mode']}, {answer['seconds']} s, {answer['rss']} MiB)",
                  flush=True)
        return
    for name, texts in failed.items():
        cve = f" [{row.cve}]" if row.cve else ""
        print(f"FAIL  {row.cls}/{name} ({answer['mode']}, {answer['seconds']} s){cve}")
        for text in texts[:8]:
            print("        " + text.replace("\n", "\n        "))
    if not row.parts or answer["failures"] or answer["counted"]:
        print("        $ " + answer["command"])
        for line in answer["tail"].splitlines():
            print("        | " + printable(line))
    sys.stdout.flush()


def printable(text):
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def closing(options, rows, results, seconds):
    by_name = {row.name: row for row in rows}
    totals = {counter: 0 for counter in suite.COUNTERS}
    attacks = failed = 0
    for answer in results:
        row = by_name[answer["row"]]
        attacks += len(row.names()) if not row.detects else 0
        failed += len(failed_parts(row, answer))
        for counter in answer["counted"]:
            totals[counter] += 1
        # A probe that got through is a hole, whatever it was used for.
        totals["W"] += sum(1 for _ in answer["parts"])
    passed = sum(len(by_name[answer["row"]].names()) for answer in results) - failed
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    print(f"\n{len(results)} runs of {sum(len(row.names()) for row in rows)} rows in {seconds:.0f} s")
    print(f"{attacks} attacks: {totals['R']} canaries read, {totals['W']} written, "
          f"{totals['X']} exhausted, {totals['P']} panics")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or any(totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
