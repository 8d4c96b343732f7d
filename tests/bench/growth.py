#!/usr/bin/env python3
"""Draws what rbuild's work costs against its size: time has to grow in a line, memory hardly at all.

    tests/bench/growth.py PATH/TO/rbuild [--only files,steps,bytes,stages,builds] [--large] [--svg FILE]

Contexts and stores lie in /dev/shm: making files on a disk would be most of what is measured. The
base image is made on the spot from busybox-static. --large adds a million files and a layer of
4 GiB, which need 8 GiB of memory. The exit status is 1 if something grows that must not.
"""
import argparse, os, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

WORK = Path(tempfile.mkdtemp(prefix="rbuild-growth.", dir="/dev/shm"))
ROOT = WORK / "store"


def rbuild(args, *more):
    """Seconds and the peak of resident memory in MiB."""
    start = time.perf_counter()
    child = subprocess.Popen([args.rbuild, "--root", str(ROOT), "-q", *map(str, more)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"failed: rbuild {' '.join(map(str, more))}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def context(name, dockerfile):
    directory = WORK / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


def base(args):
    directory = context("base", "FROM scratch\nCOPY busybox /bin/\nCOPY busybox /bin/sh\nENV PATH=/bin\n")
    shutil.copy("/bin/busybox", directory / "busybox")
    rbuild(args, "-t", "base", directory)


def fresh(args):
    shutil.rmtree(ROOT, ignore_errors=True)
    base(args)


def files(args):
    """COPY of so many files of 30 bytes, and the same again with nothing changed."""
    for n in [1_000, 10_000, 100_000] + [1_000_000] * args.large:
        directory = context(f"files-{n}", "FROM scratch\nCOPY src /src\n")
        for i in range(n):
            if i % 100 == 0:
                inner = directory / "src" / f"d{i // 10_000}" / f"e{i // 100}"
                inner.mkdir(parents=True)
            with open(f"{inner}/f{i}.txt", "w") as out:
                out.write(f"file {i}\n" * 3)
        fresh(args)
        yield n, "copied", *rbuild(args, directory)
        yield n, "unchanged", *rbuild(args, directory)
        shutil.rmtree(directory)


def steps(args):
    """So many RUN steps; and what each of the first and of the last thirty took."""
    for n in [1, 10, 30, 100, 300]:
        lines = "".join(f"RUN echo {i} > /f{i}\n" for i in range(n))
        fresh(args)
        yield n, "steps", *rbuild(args, context("steps", "FROM base\n" + lines))
    # When each step wrote its file.
    found = {}
    for path in (ROOT / "layers").glob("*/fs/f*"):
        found[int(path.name[1:])] = path.stat().st_mtime_ns / 1e9
    gaps = [found[i + 1] - found[i] for i in range(len(found) - 1)]
    first, last = statistics.median(gaps[:30]), statistics.median(gaps[-30:])
    print(f"  a step at the start {first * 1000:.2f} ms, at the end {last * 1000:.2f} ms")
    check(last <= 1.5 * first, "a late step is slower than an early one")


def layer_bytes(args):
    """A RUN that writes so many MiB in one file, then the same image as a gzip archive."""
    for n in [10, 100, 1_000] + [4_096] * args.large:
        fresh(args)
        directory = context("bytes", f"FROM base\nRUN dd if=/dev/urandom of=/d bs=1M count={min(n, 64)} 2>/dev/null && "
                                  f"i=64; while [ $i -lt {n} ]; do cat /d; i=$((i+64)); done > /e\n")
        yield n, "written", *rbuild(args, directory)
        yield n, "packed", *rbuild(args, "-o", f"type=oci,dest={WORK}/out.tar", directory)
        os.unlink(WORK / "out.tar")


def stages(args):
    """Stages without dependencies, and a COPY from each."""
    for n in [1, 4, 16, 64]:
        parts = [f"FROM base AS s{i}\nRUN echo {i} > /o{i}\n" for i in range(n)]
        copies = "".join(f"COPY --from=s{i} /o{i} /\n" for i in range(n))
        fresh(args)
        yield n, "stages", *rbuild(args, context("stages", "".join(parts) + "FROM base\n" + copies))


def builds(args):
    """So many processes at once on one store, which share the first half of their steps."""
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; "
    shared = "".join(f"RUN {burn}cat /proc/sys/kernel/random/uuid > /s{i}\n" for i in range(4))
    for n in [1, 2, 4, 8]:
        fresh(args)
        directories = [context(f"build-{k}", "FROM base\n" + shared + "".join(f"RUN {burn}echo {k} > /o{i}\n" for i in range(4)))
                   for k in range(n)]
        start = time.perf_counter()
        running = [subprocess.Popen([args.rbuild, "--root", str(ROOT), "-q", "-o", f"type=local,dest={WORK}/out-{k}", str(directory)],
                                    stdout=subprocess.DEVNULL) for k, directory in enumerate(directories)]
        peaks = [os.wait4(child.pid, 0) for child in running]
        took = time.perf_counter() - start
        check(all(status == 0 for _, status, _ in peaks), f"one of {n} builds failed")
        ids = {(WORK / f"out-{k}" / "s3").read_text() for k in range(n)}
        check(len(ids) == 1, f"{n} builds made their shared step {len(ids)} times")
        yield n, "builds", took, max(usage.ru_maxrss for _, _, usage in peaks) / 1024


GRAPHS = {"files": files, "steps": steps, "bytes": layer_bytes, "stages": stages, "builds": builds}
FAILED = []


def check(holds, complaint):
    if not holds:
        print(f"  FAILED: {complaint}")
        FAILED.append(complaint)


def is_flat_and_linear(name, rows):
    """From the second size on: time per unit at most doubles, and memory grows by less than a MiB for 1,000 files."""
    for what in dict.fromkeys(row[1] for row in rows):
        own = [row for row in rows if row[1] == what][1:]
        for (n, _, s, mib), (m, _, t, more) in zip(own, own[1:]):
            check(t <= 2 * s * m / n + 0.05, f"{name}: {what}: {n} took {s:.2f} s, {m} took {t:.2f} s")
            allowed = 0.3 * (m - n) / 1000 if name == "files" else 0
            check(more <= mib + allowed + 24, f"{name}: {what}: {n} took {mib:.0f} MiB, {m} took {more:.0f} MiB")


def svg(path, graphs):
    """Every graph as lines of log(seconds) over log(size)."""
    from math import log10
    parts, at = [], 0
    for name, rows in graphs.items():
        xs, ys = [log10(r[0]) for r in rows], [log10(max(r[2], 1e-3)) for r in rows]
        x = lambda v: 60 + 300 * (v - min(xs)) / ((max(xs) - min(xs)) or 1)
        y = lambda v: at + 190 - 160 * (v - min(ys)) / ((max(ys) - min(ys)) or 1)
        parts.append(f'<text x="60" y="{at + 18}">{name}</text>')
        for what in dict.fromkeys(r[1] for r in rows):
            own = [r for r in rows if r[1] == what]
            points = " ".join(f"{x(log10(r[0])):.0f},{y(log10(max(r[2], 1e-3))):.0f}" for r in own)
            parts.append(f'<polyline points="{points}" fill="none" stroke="black"/>')
            parts += [f'<circle cx="{x(log10(r[0])):.0f}" cy="{y(log10(max(r[2], 1e-3))):.0f}" r="3"/>'
                      f'<text x="{x(log10(r[0])) + 6:.0f}" y="{y(log10(max(r[2], 1e-3))):.0f}" font-size="10">'
                      f'{r[0]:,} {what}: {r[2]:.2f} s, {r[3]:.0f} MiB</text>' for r in own]
        at += 220
    Path(path).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="560" height="{at}" font-family="sans-serif">'
                          + "".join(parts) + "</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rbuild")
    parser.add_argument("--only", default=",".join(GRAPHS))
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--svg")
    args = parser.parse_args()
    args.rbuild = os.path.abspath(args.rbuild)
    graphs = {}
    try:
        for name in args.only.split(","):
            print(f"{name}: {' '.join(GRAPHS[name].__doc__.split())}   (load {os.getloadavg()[0]:.1f})")
            graphs[name] = []
            for row in GRAPHS[name](args):
                graphs[name].append(row)
                size, what, seconds, mib = row
                print(f"  {size:>9,} {what:10} {seconds:8.3f} s {mib:7.0f} MiB  {'#' * round(4 * seconds)}"[:100], flush=True)
            is_flat_and_linear(name, graphs[name])
        if args.svg:
            svg(args.svg, graphs)
    finally:
        shutil.rmtree(WORK)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
