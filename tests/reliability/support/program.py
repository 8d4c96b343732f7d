"""Runs commands with a time limit and bounded output."""

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

# Rust's panic, and SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV as Python and shells report them.
CRASHES = {101} | {-number for number in (4, 6, 7, 8, 11)} | {128 + number for number in (4, 6, 7, 8, 11)}
# The exit statuses that `rbuild --help` documents.
KNOWN = {0, 1, 2, 3, 130}
# Runs are much slower under strace or beside fifteen others.
PATIENCE = 60
KEPT = 1 << 20


@dataclass
class Ended:
    """A command that has ended, and what it printed."""

    command: list
    status: int
    out: bytes
    err: bytes
    seconds: float
    timed_out: bool = False
    notes: list = field(default_factory=list)

    @property
    def text(self):
        return (self.out + b"\n" + self.err).decode("utf-8", "replace")

    @property
    def is_crash(self):
        return self.status in CRASHES or b"panicked at" in self.out + self.err

    def image_id(self):
        """Returns the image id that `-q` printed."""
        lines = self.out.decode("utf-8", "replace").split()
        return lines[-1] if lines else ""

    def tail(self, lines=16):
        return "\n".join(line[:400] for line in self.text.strip().splitlines()[-lines:])


class _Drain(threading.Thread):
    """Reads a pipe to its end and keeps its last megabyte."""

    def __init__(self, descriptor):
        super().__init__(daemon=True)
        self.descriptor, self.data = descriptor, bytearray()
        self.start()

    def run(self):
        try:
            while piece := os.read(self.descriptor, 1 << 16):
                self.data += piece
                if len(self.data) > 2 * KEPT:
                    del self.data[:-KEPT]
        finally:
            os.close(self.descriptor)


class Running:
    """A command that runs, in a session of its own."""

    def __init__(self, command, owner=0, env=None, cwd="/", stdout=None, stdin=subprocess.DEVNULL):
        self.command = [str(part) for part in command]
        self.started = time.monotonic()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            self.process = subprocess.Popen(
                self.command, stdin=stdin, stdout=out_write if stdout is None else stdout, stderr=err_write,
                env=env, cwd=cwd, user=owner, group=owner, extra_groups=[], start_new_session=True)
        finally:
            os.close(out_write)
            os.close(err_write)
        self.drains = (_Drain(out_read), _Drain(err_read))

    def signal(self, number, group=False):
        """Sends a signal to the process or its group; does nothing once it has ended."""
        try:
            if group:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)
        except ProcessLookupError:
            pass

    def wait(self, seconds=PATIENCE):
        """Waits for the end, and kills the process when the time is over."""
        timed_out = False
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            self.signal(signal.SIGKILL, group=True)
            self.process.kill()
            self.process.wait()
        took = time.monotonic() - self.started
        for drain in self.drains:
            # A process that was left behind may hold the pipe open.
            drain.join(2)
        out, err = (bytes(drain.data[-KEPT:]) for drain in self.drains)
        return Ended(self.command, self.process.returncode, out, err, took, timed_out)
