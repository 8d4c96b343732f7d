#!/usr/bin/env python3
"""Runs the reliability campaigns: counts what rbuild does when it is killed, damaged, starved or deceived.

    RBUILD=/path/to/rbuild tests/reliability/run.py [--seconds N] [--campaign NAME] [--seed N] [--jobs N]

It needs root, Python 3.11, strace, busybox-static, uidmap and e2fsprogs. README.md says how it works.
"""

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
# The image writer, the web server and the mount calls are those of the hostile suite.
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "hostile")]
sys.dont_write_bytecode = True

import campaigns  # noqa: E402
from lib.worker import receive, send  # noqa: E402
from support.campaign import COUNTERS  # noqa: E402

# The time that CI gives the suite.
DEFAULT_SECONDS = 300
# Longer than any try with all the time limits of its commands; a worker that takes longer is killed.
MAX_TRY_S = 900
# Number of failures of one kind that are shown in full without -v.
SHOWN = 2
# Exit status of a worker when rbuild fails in the absence of trouble: there is nothing to measure then.
BROKEN = 3


def arguments():
    parser = argparse.ArgumentParser(description="Runs rbuild while things go wrong, and counts what it does.")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, metavar="N",
                        help="time for all campaigns together; each gets its share (default %(default)s)")
    parser.add_argument("--campaign", action="append", choices=campaigns.NAMES, metavar="NAME",
                        help="only this one, with all the time; may be repeated: " + ", ".join(campaigns.NAMES))
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="what all random choices follow from (default %(default)s)")
    parser.add_argument("--tries", type=int, metavar="N", help="at most so many tries of each campaign")
    parser.add_argument("--try", type=int, metavar="N", dest="only", help="only the try with this number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="tries at the same time (default: one a processor)")
    parser.add_argument("--json", metavar="FILE", help="write figures and failures")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each try, and every failure whole")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.worker:
        return worker()
    program = os.environ.get("RBUILD")
    if not program or not os.path.isfile(program):
        sys.exit("error: set RBUILD to the static rbuild program that is to be tried")
    if os.geteuid() != 0:
        sys.exit("error: the campaigns need root: they make namespaces, file systems and users of their own")
    missing = [f"{name} ({package})" for name, package in
               (("strace", "strace"), ("/bin/busybox", "busybox-static"), ("/usr/bin/newuidmap", "uidmap"),
                ("mkfs.ext4", "e2fsprogs"), ("unshare", "util-linux"), ("/etc/subuid", "uidmap"))
               if not _is_there(name)]
    if missing:
        sys.exit(f"error: missing {', '.join(missing)}")
    chosen = [campaign for name, campaign in campaigns.load().items()
              if not options.campaign or name in options.campaign]
    started = time.monotonic()
    pool = Pool(os.path.realpath(program), options.jobs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: pool.interrupt())
    results = run_all(options, chosen, pool, started)
    pool.end()
    return closing(options, results, time.monotonic() - started)


def _is_there(name):
    places = [""] if name.startswith("/") else ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"]
    return any(os.path.exists(place + name) for place in places)


# Campaigns, seen from outside --------------------------------------------------------------


def run_all(options, chosen, pool, started):
    """Gives each campaign its share of the time that is left."""
    results = []
    left = sum(campaign.weight for campaign in chosen)
    for campaign in chosen:
        now = time.monotonic()
        share = (started + options.seconds - now) * campaign.weight / left
        left -= campaign.weight
        results.append(run_one(options, campaign, pool, now + share))
    return results


class Result:
    """The result of one campaign."""

    def __init__(self, campaign):
        self.campaign = campaign
        self.tried = self.failed = 0
        self.seconds = 0.0
        self.failures = []
        self.kinds = collections.Counter()
        self.examples = {}
        # Errors that rbuild ended with, whether right or wrong.
        self.said = collections.Counter()

    def counted(self, counter):
        """Returns the number of tries that failed in this way."""
        return sum(1 for number, counters in self.failures if counter in counters)


def run_one(options, campaign, pool, deadline):
    """Runs tries until the time is over, the number is reached, or everything was tried."""
    result, lock, started = Result(campaign), threading.Lock(), time.monotonic()
    print(f"{campaign.name}: {campaign.about}", flush=True)
    if options.only is not None:
        numbers = iter([options.only])
    else:
        numbers = iter(range(options.tries if options.tries is not None else 1 << 30))

    def take():
        with lock:
            # The first try is made even if the time is over.
            is_late = time.monotonic() > deadline and result.tried > 0
            return None if is_late and options.only is None else next(numbers, None)

    def drive(worker_number):
        while (number := take()) is not None:
            answer = pool.ask(worker_number, {"campaign": campaign.name, "try": number, "seed": options.seed})
            with lock:
                record(options, result, number, answer)

    pool.start()
    threads = [threading.Thread(target=drive, args=(number,), daemon=True)
               for number in range(1 if campaign.is_alone else pool.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.monotonic() - started
    summary(options, result)
    return result


def record(options, result, number, answer):
    failures = answer["failures"]
    result.tried += answer["units"]
    result.said.update(answer["said"])
    result.failed += min(len(failures), max(answer["units"], 1))
    if failures:
        result.failures.append((number, sorted({failure["counter"] for failure in failures})))
    if options.verbose and not failures:
        print(f"  ok    {result.campaign.name} {number} ({answer['seconds']:.1f} s)", flush=True)
    for failure in failures:
        kind = (failure["counter"], failure["kind"])
        result.kinds[kind] += 1
        result.examples.setdefault(kind, []).append(number)
        if options.verbose or result.kinds[kind] <= SHOWN:
            show(options, result.campaign, number, failure)


def show(options, campaign, number, failure):
    print(f"  FAIL  {campaign.name} {number}: {COUNTERS[failure['counter']]}: {failure['kind']}")
    print("        " + printable(failure["text"]))
    for line in failure["story"]:
        print("        " + printable(line))
    for line in failure["tail"].splitlines():
        print("        | " + printable(line))
    print(f"        again: tests/reliability/run.py --campaign {campaign.name} --seed {options.seed} --try {number}",
          flush=True)


def printable(text):
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def summary(options, result):
    counts = ", ".join(f"{result.counted(counter)} {name}" for counter, name in COUNTERS.items())
    print(f"  {result.tried} tries, {result.failed} failed in {result.seconds:.0f} s: {counts}", flush=True)
    for (counter, kind), count in sorted(result.kinds.items(), key=lambda item: ("WSPLF".index(item[0][0]), -item[1])):
        tries = " ".join(map(str, result.examples[counter, kind][:4]))
        print(f"    {count:5} {counter} {kind} (try {tries})", flush=True)
    if options.verbose and result.said:
        print("  Errors that rbuild ended with:")
        for text, count in result.said.most_common():
            print(f"    {count:5} {printable(text)}", flush=True)


def closing(options, results, seconds):
    tried, failed = (sum(getattr(result, name) for result in results) for name in ("tried", "failed"))
    totals = {counter: sum(result.counted(counter) for result in results) for counter in COUNTERS}
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"seconds": round(seconds), "seed": options.seed, "tries": tried, "failed": failed,
                       "counters": totals, "campaigns": [as_json(result) for result in results]}, file, indent=1)
    print(f"\n{tried} tries in {seconds:.0f} s with seed {options.seed}: {totals['W']} wrong images, "
          f"{totals['S']} silent damage, {totals['P']} panics, {totals['L']} leftovers")
    print(f"{tried - failed} passed, {failed} failed")
    return 1 if failed else 0


def as_json(result):
    kinds = [{"counter": counter, "kind": kind, "count": count, "tries": result.examples[counter, kind][:20]}
             for (counter, kind), count in result.kinds.items()]
    return {"campaign": result.campaign.name, "tries": result.tried, "failed": result.failed,
            "seconds": round(result.seconds), "counters": {name: result.counted(name) for name in COUNTERS},
            "kinds": kinds, "errors": dict(result.said.most_common())}


# Workers -----------------------------------------------------------------------------------


class Pool:
    """Workers, each process 1 of namespaces of its own; one that ends or hangs is replaced."""

    def __init__(self, program, size):
        self.program, self.size = program, size
        self.workers = {}

    def start(self):
        """Starts those that are not there, all at once: each prepares for some seconds."""
        missing = [number for number in range(self.size) if number not in self.workers]
        threads = [threading.Thread(target=self._start, args=(number,)) for number in missing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _start(self, number):
        command = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child", "--mount-proc",
                   sys.executable, "-B", os.path.join(HERE, "run.py"), "--worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   start_new_session=True)
        self.workers[number] = process
        send(process, {"program": self.program})
        if receive(process, 300) is None:
            print("error: a worker could not be made ready", file=sys.stderr, flush=True)
            os._exit(BROKEN)

    def ask(self, number, task):
        process = self.workers.get(number)
        if process is None:
            self._start(number)
            process = self.workers[number]
        started = time.monotonic()
        try:
            send(process, task)
            answer = receive(process, MAX_TRY_S)
        except OSError:
            answer = None
        if answer is not None:
            return answer
        process.kill()
        if process.wait() == BROKEN:
            os._exit(BROKEN)
        del self.workers[number]
        return {"units": 1, "said": [], "seconds": time.monotonic() - started, "failures": [
            {"counter": "F", "kind": "the worker itself ended", "text": "it ended, or hung", "story": [], "tail": ""}]}

    def interrupt(self):
        """Ends the suite at once; the workers' namespaces end with them."""
        for process in list(self.workers.values()):
            process.kill()
        os._exit(130)

    def end(self):
        """Lets the workers end."""
        for process in self.workers.values():
            process.stdin.close()
        for process in self.workers.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def worker():
    """Process 1 of its namespaces: makes the arena, then runs tries until its input ends."""
    import resource

    from support import arena
    from support.campaign import Try
    from support.world import Broken, World

    # Standard output carries only the answers; whatever else is printed goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Children inherit ignored signals, and Python changes this one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = f"{arena.ROOT}/rbuild"
    with open(json.loads(sys.stdin.readline())["program"], "rb") as file:
        data = file.read()
    arena.enter()
    with open(program, "wb") as file:
        file.write(data)
    os.chmod(program, 0o755)
    try:
        world, known = World(program), campaigns.load()
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            task = json.loads(line)
            attempt = Try(world, known[task["campaign"]], task["try"], task["seed"])
            print(json.dumps(perform(attempt)), file=answers, flush=True)
    except Broken as error:
        print(f"error: without any trouble, this fails: {error}", file=sys.stderr, flush=True)
        return BROKEN
    return 0


def perform(attempt):
    from support.world import Broken

    started = time.monotonic()
    try:
        attempt.campaign.run(attempt)
    except Broken:
        raise
    except Exception as error:  # A try that is itself broken fails; it does not end the campaign.
        import traceback

        attempt.fail("F", "the try itself failed", f"{error!r}\n{traceback.format_exc(limit=-3)}")
    attempt.finish()
    return {"failures": attempt.failures, "units": attempt.units, "said": attempt.said,
            "seconds": time.monotonic() - started}


if __name__ == "__main__":
    sys.exit(main())
