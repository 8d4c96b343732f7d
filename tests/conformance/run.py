#!/usr/bin/env python3
"""Run the conformance cases through an image builder and compare the images with BuildKit's.

Prints one line for each failing case (with the first difference) and at the end `N passed, N failed`.
"""
import argparse
import concurrent.futures
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import zlib

sys.dont_write_bytecode = True

import base
import compare
import imgdump

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = os.environ.get("CONFORMANCE_CASES", os.path.join(HERE, "cases"))
REGISTRY = "127.0.0.1:5000"                      # some cases name it in their Dockerfile
FILE_SERVER = ("127.0.0.1", 5080)                # so do those that download
FIXED_TIME = 1700000000                          # about the mtime of files in contexts
BASES = {"busybox": "library/busybox:latest", "debian": "library/debian:bookworm"}


class Failure(Exception):
    """The case fails; the arguments are the reasons, most important first."""


class Skip(Exception):
    pass


# ---------------------------------------------------------------- builders

def context_args(work, context):
    """The positional CONTEXT of a case, or its URL."""
    return context if "://" in context else os.path.join(work, context)


def context_value(work, value):
    """The value of a --build-context: paths are relative to the case."""
    scheme, sep, rest = value.partition("://")
    if sep and scheme != "oci-layout":
        return value
    return f"oci-layout://{os.path.join(work, rest)}" if sep else os.path.join(work, value)


def secret_value(work, s):
    return ",".join(f"{k}={os.path.join(work, v) if k == 'src' else v}" for k, v in s.items())


def ssh_value(work, s):
    name, sep, path = s.partition("=")
    return f"{name}={os.path.join(work, path)}" if sep else name


class Buildx:
    """A builder with the command line of `docker buildx build`; rbuild is one."""

    def __init__(self, command, registry):
        self.command, self.registry = command, registry
        if not shutil.which(command[0]):
            sys.exit(f"run.py: there is no program {command[0]!r}")

    def environment(self):
        """How the builder learns that the registry stands for docker.io."""
        return {"RBUILD_MIRROR_DOCKER_IO": f"http://{self.registry}"}

    def argv(self, work, a, dest):
        cmd = [*self.command, "--progress", "plain", "-t", "conf.example/" + a["name"],
               "--output", ",".join(["type=oci,dest=" + dest, *a.get("output", [])])]
        if "file" in a:
            cmd += ["-f", a["file"] if "://" in a["context"] else os.path.join(work, a["file"])]
        for k, v in a.get("build_args", {}).items():
            cmd += ["--build-arg", k if v is None else f"{k}={v}"]
        for k, v in a.get("labels", {}).items():
            cmd += ["--label", f"{k}={v}"]
        for k, v in a.get("build_contexts", {}).items():
            cmd += ["--build-context", f"{k}={context_value(work, v)}"]
        for s in a.get("secrets", []):
            cmd += ["--secret", secret_value(work, s)]
        for s in a.get("ssh", []):
            cmd += ["--ssh", ssh_value(work, s)]
        for k in ("target", "platform", "network"):
            if k in a:
                cmd += ["--" + k, a[k]]
        for h in a.get("add_hosts", []):
            cmd += ["--add-host", h]
        if a.get("no_cache"):
            cmd.append("--no-cache")
        return [*cmd, context_args(work, a["context"])]


class Buildctl(Buildx):
    """BuildKit through buildctl ($BUILDCTL, and the daemon that $BUILDKIT_HOST names)."""

    def environment(self):
        return {}

    def argv(self, work, a, dest):
        cmd = [*self.command, "build", "--frontend", "dockerfile.v0", "--progress", "plain",
               "--output", ",".join(["type=oci,dest=" + dest, *a.get("output", [])])]
        opts = {"cmdline": "builtin"}            # do not fetch the frontend that `# syntax=` names
        if "://" in a["context"]:
            opts["context"] = a["context"]
            if "file" in a:
                opts["filename"] = a["file"]
        else:
            f = os.path.join(work, a["file"])
            cmd += ["--local", "context=" + os.path.join(work, a["context"]),
                    "--local", "dockerfile=" + os.path.dirname(f)]
            opts["filename"] = os.path.basename(f)
        for k, v in a.get("build_args", {}).items():
            opts["build-arg:" + k] = a["env"][k] if v is None else v
        for k, v in a.get("labels", {}).items():
            opts["label:" + k] = v
        for i, (k, v) in enumerate(a.get("build_contexts", {}).items()):
            v = context_value(work, v)
            if v.startswith("oci-layout://"):
                path, _, tag = v[len("oci-layout://"):].partition(":")
                cmd += ["--oci-layout", f"layout{i}={path}"]
                v = f"oci-layout://layout{i}@{layout_digest(path, tag)}"
            elif "://" not in v:
                cmd += ["--local", f"local{i}={v}"]
                v = f"local:local{i}"
            opts["context:" + k] = v
        for s in a.get("secrets", []):
            cmd += ["--secret", secret_value(work, s)]
        for s in a.get("ssh", []):
            cmd += ["--ssh", ssh_value(work, s)]
        for k, opt in (("target", "target"), ("platform", "platform"), ("network", "force-network-mode")):
            if k in a:
                opts[opt] = a[k]
        if a.get("add_hosts"):
            opts["add-hosts"] = ",".join(h.replace(":", "=", 1) for h in a["add_hosts"])
        if a.get("no_cache"):
            cmd.append("--no-cache")
        for k, v in opts.items():
            cmd += ["--opt", f"{k}={v}"]
        return cmd


def layout_digest(path, tag):
    with open(os.path.join(path, "index.json")) as f:
        found = json.load(f)["manifests"]
    for d in found:
        if tag and (d.get("annotations") or {}).get("org.opencontainers.image.ref.name") == tag:
            return d["digest"]
    return found[0]["digest"]


def make_builder(name, registry):
    if name == "buildkit":
        return Buildctl([os.environ.get("BUILDCTL", "buildctl")], registry)
    if name == "rbuild":
        return Buildx([os.environ.get("RBUILD", "rbuild")], registry)
    return Buildx(name.split(), registry)


# ---------------------------------------------------------------- a case

class Case:
    def __init__(self, name):
        self.name, self.dir = name, os.path.join(CASES, name)
        with open(os.path.join(self.dir, "case.json")) as f:
            self.spec = json.load(f)
        self.tags = self.spec["tags"]
        self.fails = self.spec.get("expect", "ok") == "fail"
        self.expected = os.path.join(self.dir, "expected.json")

    def args(self, no_cache):
        a = {"file": "Dockerfile", "context": "context", "name": self.name, **self.spec.get("args", {})}
        if a["file"] is None:
            del a["file"]
        if no_cache:
            a["no_cache"] = True
        return a


def fix_tree(top):
    """Give the files of a case a mode and a time that do not depend on the checkout.

    Files with different contents get different times: BuildKit takes files of one name, size and
    time for the same file, also between builds of different directories.
    """
    for d, dirs, files in os.walk(top):
        for n in files:
            p = os.path.join(d, n)
            mtime = FIXED_TIME
            if not os.path.islink(p):
                os.chmod(p, 0o755 if os.stat(p).st_mode & 0o100 else 0o644)
                with open(p, "rb") as f:
                    mtime += zlib.crc32(f.read()) % 10**8
            os.utime(p, (mtime, mtime), follow_symlinks=False)
    for d, _, _ in os.walk(top, topdown=False):
        os.chmod(d, 0o755)
        os.utime(d, (FIXED_TIME, FIXED_TIME))


def prepare(case, work):
    """Make the working copy of the case and run its setup.sh there."""
    shutil.copytree(case.dir, work, symlinks=True, ignore=shutil.ignore_patterns("case.json", "expected.json"))
    os.makedirs(os.path.join(work, "context"), exist_ok=True)
    fix_tree(work)
    run_script(work, "setup.sh")


def run_script(work, name):
    if not os.path.exists(os.path.join(work, name)):
        return
    env = {**os.environ, "WORK": work, "CONTEXT": os.path.join(work, "context"), "LC_ALL": "C.UTF-8",
           "FIXED_TIME": str(FIXED_TIME), "TZ": "UTC"}
    p = subprocess.run(["bash", "-euc", f"umask 022; . ./{name}"], cwd=work, env=env,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise Failure(f"{name} failed: {p.stdout.strip()[-300:]}")


def execute(argv, env, cwd, timeout):
    """Run to the end or to the timeout; return (exit status, output)."""
    p = subprocess.Popen(argv, env={**os.environ, **env}, cwd=cwd, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        out, _ = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        raise Failure(f"no end after {timeout} s") from None
    return p.returncode, out.decode("utf-8", "replace")


def check_sane(status, out):
    m = re.search(r"panicked at|goroutine \d+ \[running\]|Traceback \(most recent call last\)|core dumped", out)
    if m or status < 0 or status >= 126:
        raise Failure(f"the builder crashed (status {status}): {m.group(0) if m else ''}".rstrip(": "))


def last_line(out):
    lines = [x for x in out.splitlines() if x.strip()]
    errors = [x for x in lines if re.match(r"(?i)\s*error", x)]
    return ((errors or lines or [""])[-1]).strip()[:300]


def check_error(case, status, out):
    """A build that must fail: did it, and does the message help?"""
    if status == 0:
        raise Failure("the build succeeded, but it has to fail")
    reasons = [f"the error does not name {s!r}" for s in case.spec.get("error_contains", [])
               if s.lower() not in out.lower()]
    line = case.spec.get("error_line")
    if line and not re.search(rf"(?i)(line |Dockerfile[\w.]*:|:){line}\b", out):
        reasons.append(f"the error does not name line {line}")
    if reasons:
        raise Failure(*reasons, "it was: " + last_line(out))


def check_output(case, out):
    want, lack = case.spec.get("output_contains", []), case.spec.get("output_lacks", [])
    reasons = [f"the output lacks {s!r}" for s in want if s not in out]
    reasons += [f"the output has {s!r}" for s in lack if s in out]
    if reasons:
        raise Failure(*reasons)


class Suite:
    def __init__(self, builder, registry, tmp, timeout=120, no_cache=False):
        self.builder, self.registry, self.tmp = builder, registry, tmp
        self.timeout, self.no_cache = timeout, no_cache
        self.base_dumps = {}

    def require(self, case):
        for r in case.spec.get("requires", []):
            if r == "root":
                ok = os.geteuid() == 0
            elif r in BASES:
                ok = r in self.base_dumps
            else:
                ok = shutil.which(r) is not None
            if not ok:
                raise Skip(f"needs {r}")

    def build(self, work, args, dest):
        env = {**self.builder.environment(), **args.get("env", {})}
        status, out = execute(self.builder.argv(work, args, dest), env, work, self.timeout)
        check_sane(status, out)
        return status, out

    def build_bases(self, case, work, args):
        """Images that the case starts from: built by the same builder, then pushed or unpacked."""
        for b in case.spec.get("bases", []):
            dest = os.path.join(work, ".base.tar")
            a = {"context": "context", "file": "Dockerfile", "name": case.name, **b.get("args", {})}
            if args.get("no_cache"):
                a["no_cache"] = True
            status, out = self.build(work, a, dest)
            if status:
                raise Failure(f"base {b.get('push') or b['layout']} does not build: {last_line(out)}")
            if "layout" in b:
                os.makedirs(os.path.join(work, b["layout"]))
                subprocess.run(["tar", "-xf", dest, "-C", os.path.join(work, b["layout"])], check=True)
            if "push" in b:
                skopeo_push("oci-archive:" + dest, self.registry, b["push"])
            os.unlink(dest)

    def run(self, case):
        """Build the case: (working directory, image or None). Raises Failure or Skip."""
        self.require(case)
        work = os.path.join(self.tmp, case.name)
        prepare(case, work)
        args = case.args(self.no_cache)
        self.build_bases(case, work, args)
        for earlier in case.spec.get("earlier", []):     # builds that must not influence the result
            old = {k: v for k, v in args.items() if k != "build_args"}
            self.build(work, {**old, **earlier}, os.path.join(work, ".earlier.tar"))
        run_script(work, "after.sh")
        dest = os.path.join(self.tmp, case.name + ".tar")
        status, out = self.build(work, args, dest)
        with open(os.path.join(self.tmp, case.name + ".log"), "w") as f:
            f.write(out)
        if case.fails:
            check_error(case, status, out)
            check_output(case, out)
            return None
        if status:
            raise Failure(f"the build failed: {last_line(out)}")
        check_output(case, out)
        if not os.path.exists(dest):
            raise Failure("the builder wrote no image")
        return dest

    def dump(self, case, image):
        try:
            d = imgdump.dump(image, case.spec.get("check_platform", "linux/amd64"), self.base_dumps.values(),
                             case.spec.get("mtimes", ()), with_text=True)
        except imgdump.ImageError as e:
            raise Failure(f"malformed image: {e}") from None
        del d["diff_ids"]
        return d

    def check(self, case):
        image = self.run(case)
        if image:
            got = self.dump(case, image)
            os.unlink(image)
            with open(case.expected) as f:
                want = json.load(f)
            diff = compare.compare(want, json.loads(json.dumps(got)))
            if diff:
                raise Failure(*diff)

    def verdict(self, case):
        start = time.monotonic()
        try:
            self.check(case)
            status, reasons = "pass", []
        except Failure as e:
            status, reasons = "fail", list(e.args)
        except Skip as e:
            status, reasons = "skip", list(e.args)
        finally:
            shutil.rmtree(os.path.join(self.tmp, case.name), ignore_errors=True)
        return {"name": case.name, "status": status, "tags": case.tags, "reasons": reasons,
                "seconds": round(time.monotonic() - start, 2)}


# ---------------------------------------------------------------- registry and servers

def skopeo_push(source, registry, name):
    subprocess.run(["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--quiet", source,
                    f"docker://{registry}/library/{name}"], check=True, stdout=subprocess.DEVNULL)


def http_ok(url):
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5):
            return True
    except OSError:
        return False


def start_registry(registry, tmp):
    """Start a registry when nothing listens there, and fill it with the base images that it lacks."""
    process = None
    if not http_ok(f"http://{registry}/v2/"):
        config = os.path.join(tmp, "registry.yml")
        with open(config, "w") as f:
            f.write(f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: {registry}}}\n"
                    f"storage:\n  filesystem: {{rootdirectory: {tmp}/registry}}\n")
        with open(os.path.join(tmp, "registry.log"), "w") as log:
            process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        for _ in range(100):
            if http_ok(f"http://{registry}/v2/"):
                break
            time.sleep(0.1)
        else:
            sys.exit("run.py: the registry does not start")
    archive = os.path.join(tmp, "base.tar")
    if not http_ok(f"http://{registry}/v2/library/busybox/manifests/latest"):
        base.busybox(archive)
        skopeo_push("oci-archive:" + archive, registry, "busybox:latest")
    if not http_ok(f"http://{registry}/v2/library/debian/manifests/bookworm") and base.can_make_debian():
        base.debian(archive, tmp)
        skopeo_push("oci-archive:" + archive, registry, "debian:bookworm")
    return process


def base_dumps(registry, tmp):
    """Dumps of the base images that the registry has."""
    out = {}
    for name, repo in BASES.items():
        path, tag = repo.split(":")
        if not http_ok(f"http://{registry}/v2/{path}/manifests/{tag}"):
            continue
        tar = os.path.join(tmp, name + ".base.tar")
        subprocess.run(["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--quiet",
                        f"docker://{registry}/{repo}", "oci-archive:" + tar], check=True, stdout=subprocess.DEVNULL)
        out[name] = {**imgdump.dump(tar), "name": name}
        os.unlink(tar)
    return out


class FileServer(http.server.SimpleHTTPRequestHandler):
    """Serve /CASE/path from the case's http/ directory.

    FILE.headers (JSON) next to FILE changes the answer: {"status": 302, "headers": {...}}.
    Repositories (*.git) are also served by `git http-backend`, so that shallow fetches work.
    """
    protocol_version = "HTTP/1.1"
    root = None

    def log_message(self, *args):
        pass

    def translate_path(self, path):
        case, _, rest = urllib.parse.unquote(path.split("?")[0]).lstrip("/").partition("/")
        return os.path.join(self.root, case, "http", os.path.normpath("/" + rest).lstrip("/"))

    def do_GET(self):
        if ".git/" in self.path and ("service=" in self.path or self.command == "POST"):
            return self.git()
        extra = self.translate_path(self.path) + ".headers"
        if not os.path.exists(extra):
            return super().do_GET()
        with open(extra) as f:
            spec = json.load(f)
        body = b""
        if os.path.exists(extra[:-len(".headers")]):
            with open(extra[:-len(".headers")], "rb") as f:
                body = f.read()
        self.reply(spec.get("status", 200), spec.get("headers", {}), body)

    do_POST = do_GET

    def reply(self, status, headers, body):
        self.send_response(status)
        for k, v in {**headers, "Content-Length": len(body)}.items():
            self.send_header(k, str(v))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def git(self):
        path, _, query = self.path.partition("?")
        case, _, rest = path.lstrip("/").partition("/")
        env = {**os.environ, "GIT_PROJECT_ROOT": os.path.join(self.root, case, "http"), "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": "/" + rest, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_CONFIG_COUNT": "1",
               "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while n := int(self.rfile.readline().strip() or b"0", 16):
                data += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env["CONTENT_LENGTH"] = str(len(data))
        out = subprocess.run(["git", "http-backend"], input=data, env=env, stdout=subprocess.PIPE).stdout
        head, _, body = out.partition(b"\r\n\r\n")
        headers = dict(x.split(": ", 1) for x in head.decode().split("\r\n") if ": " in x)
        self.reply(int(headers.pop("Status", "200").split()[0]), headers, body)


def start_file_server(tmp):
    handler = type("Handler", (FileServer,), {"root": tmp})
    server = http.server.ThreadingHTTPServer(FILE_SERVER, handler)
    server.daemon_threads = True
    server.handle_error = lambda *a: None        # clients may hang up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Environment:
    """The temporary directory, the registry and the file server of one run."""

    def __init__(self, registry, keep=None):
        self.registry, self.keep = registry, keep

    def __enter__(self):
        self.tmp = self.keep or tempfile.mkdtemp(prefix="conf-")
        os.makedirs(self.tmp, exist_ok=True)
        self.process = start_registry(self.registry, self.tmp)
        self.server = start_file_server(self.tmp)
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        if self.process:
            self.process.terminate()
            self.process.wait()
        if not self.keep:
            shutil.rmtree(self.tmp, ignore_errors=True)


# ---------------------------------------------------------------- command line

def choose(filters):
    cases = [Case(n) for n in sorted(os.listdir(CASES))]
    for f in filters or []:
        alternatives = f.split(",")
        cases = [c for c in cases if any(a in c.tags or re.fullmatch(a.replace("*", ".*"), c.name)
                                         for a in alternatives)]
    return cases


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--builder", default="rbuild",
                    help="rbuild ($RBUILD), buildkit ($BUILDCTL, $BUILDKIT_HOST), or a command that takes "
                         "the arguments of `docker buildx build`")
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--filter", action="append", metavar="TAG|NAME",
                    help="only cases with this tag or name (* matches anything; a,b: either; repeated: both)")
    ap.add_argument("--json", metavar="OUT", help="write all results there")
    ap.add_argument("--list", action="store_true", help="only list the cases")
    ap.add_argument("--registry", default=REGISTRY, help="HOST:PORT of the registry (default %(default)s)")
    ap.add_argument("--timeout", type=int, default=120, help="seconds for one build")
    ap.add_argument("--no-cache", action="store_true", help="tell the builder not to use its cache")
    ap.add_argument("--keep", metavar="DIR", help="work in DIR and leave the builders' logs there")
    ap.add_argument("-v", "--verbose", action="store_true", help="show every difference, and passing cases")
    a = ap.parse_args()
    cases = choose(a.filter)
    if a.list:
        for c in cases:
            print(f"{c.name}\t{'fail' if c.fails else 'ok'}\t{','.join(c.tags)}\t{c.spec['description']}")
        return
    with Environment(a.registry, a.keep) as e:
        suite = Suite(make_builder(a.builder, a.registry), a.registry, e.tmp, a.timeout, a.no_cache)
        suite.base_dumps = base_dumps(a.registry, e.tmp)
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            results = []
            for r in pool.map(suite.verdict, cases):
                results.append(r)
                if r["status"] == "fail":
                    more = f" (+{len(r['reasons']) - 1} more)" if len(r["reasons"]) > 1 and not a.verbose else ""
                    print(f"FAIL {r['name']}: {r['reasons'][0]}{more}", flush=True)
                    for x in r["reasons"][1:] if a.verbose else []:
                        print(f"     {x}")
                elif a.verbose:
                    print(r["status"], r["name"], r["seconds"], *r["reasons"], flush=True)
    count = {s: sum(r["status"] == s for r in results) for s in ("pass", "fail", "skip")}
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"builder": a.builder, "passed": count["pass"], "failed": count["fail"],
                       "skipped": count["skip"], "results": results}, f, indent=1)
    if count["skip"]:
        print(f"{count['skip']} skipped")
    print(f"{count['pass']} passed, {count['fail']} failed")
    sys.exit(count["fail"] > 0)


if __name__ == "__main__":
    main()
