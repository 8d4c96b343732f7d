"""The line of JSON that a suite sends to a worker process, and the one that it gets back."""

import json
import threading


def send(process, value):
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def receive(process, seconds):
    """Returns the worker's next answer; None if it has ended, or needs longer and so is ended."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
        return json.loads(line) if line else None
    finally:
        timer.cancel()
