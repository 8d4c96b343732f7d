"""Repositories: options in names, odd trees, hooks, filters, submodules, links in `#ref:subdir`."""

import os
import subprocess

from lib.suite import File, Link, interrupted, row

from .checkout import raw
from .output import SECRET

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/arena/tmp", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
       "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "GIT_AUTHOR_DATE": "1000000000 +0000",
       "GIT_COMMITTER_DATE": "1000000000 +0000"}


class Repository:
    """A bare repository, whose trees are made object by object."""

    def __init__(self, t, name="r"):
        self.path = f"{t.dir}/git/{name}.git"
        os.makedirs(self.path)
        self.git("init", "-q", "--bare", "-b", "main", ".")
        self.git("config", "http.receivepack", "false")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    def git(self, *arguments, data=None):
        done = subprocess.run(["git", "-c", "safe.directory=*", "-c", "core.protectNTFS=false", "-c", "core.protectHFS=false", *arguments],
                              cwd=self.path, env=ENV, input=data, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace").strip()

    def blob(self, data):
        return self.git("hash-object", "-w", "--stdin", data=data.encode() if isinstance(data, str) else data)

    def tree(self, entries):
        """Writes a tree as it is given, without git's own checks: names may be anything."""
        data = b""
        for mode, name, object_id in entries:
            data += mode.encode() + b" " + (name.encode() if isinstance(name, str) else name) + b"\0" + bytes.fromhex(object_id)
        return self.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", data=data)

    def commit(self, tree, ref="refs/heads/main", message="m"):
        commit = self.git("commit-tree", tree, "-m", message)
        self.git("update-ref", ref, commit)
        return commit

    def simple(self, files, ref="refs/heads/main"):
        """A commit of files; the values are text, a `Link`, or ready (mode, id)."""
        entries = []
        for name in sorted(files):
            what = files[name]
            if isinstance(what, tuple):
                entries.append((what[0], name, what[1]))
            elif isinstance(what, Link):
                entries.append(("120000", name, self.blob(what.target)))
            elif isinstance(what, dict):
                entries.append(("40000", name, self.simple_tree(what)))
            else:
                entries.append(("100644", name, self.blob(what)))
        return self.commit(self.tree(entries), ref)

    def simple_tree(self, files):
        return self.tree([("100644", name, self.blob(text)) if isinstance(text, str) else ("120000", name, self.blob(text.target))
                          for name, text in sorted(files.items())])


def serve(t):
    """Serves the repositories as git's own program does."""

    def answer(request):
        path, _, query = request.path.partition("?")
        env = {**ENV, "GIT_PROJECT_ROOT": f"{t.dir}/git", "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
               "REQUEST_METHOD": request.command, "CONTENT_TYPE": request.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
               "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
               "GIT_CONFIG_VALUE_0": "*", "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", "")}
        body = b""
        if request.headers.get("Transfer-Encoding") == "chunked":
            while (size := int(request.rfile.readline().strip() or b"0", 16)) > 0:
                body += request.rfile.read(size)
                request.rfile.readline()
        else:
            body = request.body()
        env["CONTENT_LENGTH"] = str(len(body))
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        request.send(status, content, headers)

    return t.serve(answer)


# What a step of ours does with the tree, and git's own programs that would betray themselves.
DOCKERFILE = "FROM base\nCOPY . /c\nRUN ls -la /c /c/*; cat /c/secret /c/*/secret /c/link /c/link/secret 2>/dev/null; true\n"


def attempt(t, repository, address, fragment="", dockerfile=None):
    base = ["--build-context", f"base=oci-layout://{t._base}"]
    env = {"GIT_TERMINAL_PROMPT": "0"}
    t.context({})
    if fragment.count(":") < 1 or fragment.endswith(":link"):
        raw(t, t.rbuild("build", "--progress=plain", *base, f"http://{address}/r.git{fragment}", env=env))
    raw(t, t.build(dockerfile or f"FROM base\nADD http://{address}/r.git{fragment} /c\nRUN ls -la /c /c/*; cat /c/link /c/link/* 2>/dev/null; true\n", env=env))
    if not fragment:
        raw(t, t.build("FROM base\nCOPY --from=other . /o\nRUN ls -la /o; cat /o/link /o/link/secret; true\n", "--build-context",
                       f"other=http://{address}/r.git", env=env))


@row("control-a-repository-is-built-and-added")
def _(t):
    repository = Repository(t)
    repository.simple({"Dockerfile": "FROM base\nCOPY f /\nRUN echo context-$(cat /f)\n", "f": "works", "sub": {"g": "too"}})
    address = serve(t)
    base = ["--build-context", f"base=oci-layout://{t._base}"]
    t.rbuild("build", "--progress=plain", *base, f"http://{address}/r.git", expect="ok", says="context-works")
    t.context({})
    t.build(f"FROM base\nADD http://{address}/r.git#main:sub /c\nRUN echo added-$(cat /c/g)\n", expect="ok", says="added-too")


TREES = {
    "link-to-root": {"link": Link("/")}, "link-up": {"link": Link("../../../../../../../../host")}, "link-to-proc": {"link": Link("/proc/self/cwd")},
    "link-chain": {"link": Link("b"), "b": Link("c"), "c": Link("/host")}, "dockerfile-is-a-link": {"Dockerfile": Link("/host/secret")},
    "ignore-file-is-a-link": {".dockerignore": Link("/host/secret")}, "lock-file-is-a-link": {"rbuild.lock": Link("/host/secret")},
    "gitmodules-is-a-link": {".gitmodules": Link("/host/secret")}, "attributes-is-a-link": {".gitattributes": Link("/host/secret")},
}
FRAGMENTS = ["", "#main:link", "#main:link/host", "#main:../..", "#main:a/../../b", "#:/", "#main:/host", "#main:."]
for name, files in TREES.items():
    def _tree(t, files=files):
        repository = Repository(t)
        repository.simple({"Dockerfile": DOCKERFILE, "a": "x", **files})
        address = serve(t)
        for fragment in FRAGMENTS if "link" in files else ("",):
            attempt(t, repository, address, fragment)

    row(f"git-tree-has-{name}", cve="CVE-2026-33748", seconds=60)(_tree)

NAMES = {"dot-dot": "..", "dot": ".", "empty": "", "slash": "a/../../../srv/open/new", "dot-git": ".git", "dot-git-case": ".GIT", "git-tilde": "git~1",
         "dot-git-ignorable": ".g\u200cit", "absolute": "/srv/open/new", "newline": "a\nb", "escape": "\x1b[31m", "backslash": "..\\x", "long": "n" * 5000,
         "not-utf8": b"\xff\xfe"}
for name, text in NAMES.items():
    def _name(t, text=text):
        repository = Repository(t)
        config = repository.blob("[core]\n fsmonitor = \"touch /srv/open/new; echo\"\n sshCommand = touch /srv/open/new\n pager = touch /srv/open/new\n")
        hook = repository.blob("#!/bin/sh\ntouch /srv/open/new\n")
        hooks = repository.tree([("100755", "post-checkout", hook)])
        inner = repository.tree([("100644", "config", config), ("40000", "hooks", hooks)])
        docker = ("100644", "Dockerfile", repository.blob(DOCKERFILE))
        for entry in (("100644", text, config), ("40000", text, inner), ("120000", text, repository.blob("/srv/open/file"))):
            repository.commit(repository.tree([docker, entry]))
            address = serve(t)
            attempt(t, repository, address)

    row(f"git-tree-has-the-name-{name}", seconds=60)(_name)


@row("git-same-name-as-link-and-directory", seconds=30)
def _(t):
    """CVE-2024-32002's kind: what a link names is written through."""
    repository = Repository(t)
    inner = repository.tree([("100644", "new", repository.blob("x"))])
    docker = ("100644", "Dockerfile", repository.blob(DOCKERFILE))
    repository.commit(repository.tree([docker, ("120000", "a", repository.blob("/srv/open")), ("40000", "a", inner), ("40000", "A", inner)]))
    attempt(t, repository, serve(t))


ATTRIBUTES = "* filter=evil diff=evil merge=evil ident export-subst working-tree-encoding=UTF-7\n"
SUBMODULE = '[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n\tupdate = {update}\n'
MODULES = {
    "ext": ("m", "m", "ext::sh -c touch% /srv/open/new", "checkout"), "file": ("m", "m", "file:///host", "checkout"), "path": ("m", "m", "/host", "checkout"),
    "relative": ("m", "m", "../../../../../host", "checkout"), "option": ("m", "m", "--upload-pack=touch /srv/open/new", "checkout"),
    "ssh-option": ("m", "m", "ssh://-oProxyCommand=touch%20/srv/open/new/x", "checkout"), "command": ("m", "m", "http://127.0.0.1:1/", "!touch /srv/open/new"),
    "name-up": ("../../x", "m", "http://127.0.0.1:1/", "checkout"), "path-up": ("m", "../../../srv/open/m", "http://127.0.0.1:1/", "checkout"),
    "path-git": ("m", ".git/hooks", "http://127.0.0.1:1/", "checkout"), "path-link": ("m", "link/m", "http://127.0.0.1:1/", "checkout"),
    "newline": ("m", "m", "http://127.0.0.1:1/%0ahost=evil", "checkout"), "itself": ("m", "m", "./", "checkout"), "fd": ("m", "m", "fd::17", "checkout"),
}
for name, (module, path, url, update) in MODULES.items():
    def _module(t, module=module, path=path, url=url, update=update):
        repository = Repository(t)
        commit = repository.simple({"a": "x"}, "refs/heads/other")
        text = SUBMODULE.format(name=module, path=path, url=url, update=update)
        entries = [("100644", ".gitattributes", repository.blob(ATTRIBUTES)), ("100644", ".gitmodules", repository.blob(text)),
                   ("100644", "Dockerfile", repository.blob(DOCKERFILE)), ("120000", "link", repository.blob("/srv/open")),
                   ("160000", path if "/" not in path else "m", commit)]
        repository.commit(repository.tree(entries))
        address = serve(t)
        attempt(t, repository, address)

    row(f"git-submodule-{name}", seconds=40)(_module)

REFS = {"option": "--upload-pack=touch /srv/open/new", "option-short": "-ctouch", "option-c": "-c core.sshCommand=x", "up": "../../x", "range": "main..other", "at": "@{upstream}",
        "caret": "main^{/x}", "refspec": "main:refs/heads/evil", "force": "+main", "glob": "refs/*", "nul": "main%00x", "newline": "main%0a--upload-pack=x",
        "space": "main x", "empty": "", "long": "r" * 5000, "escape": "%1b[31m", "dash": "-", "exec": "--exec=touch /srv/open/new", "output": "--output=/srv/open/new",
        "tree": "main^{tree}", "head": "HEAD", "stash": "refs/stash"}
for name, ref in REFS.items():
    def _ref(t, ref=ref):
        repository = Repository(t)
        repository.simple({"Dockerfile": DOCKERFILE, "a": "x"})
        address = serve(t)
        attempt(t, repository, address, f"#{ref}")

    row(f"git-reference-{name}", cve="GHSA-hw3h")(_ref)


@row("git-remote-has-refs-like-options", cve="GHSA-hw3h", seconds=30)
def _(t):
    repository = Repository(t)
    commit = repository.simple({"Dockerfile": DOCKERFILE, "a": "x"})
    for ref in ("refs/heads/--upload-pack=touch${IFS}-srv", "refs/heads/-cx", "refs/tags/--exec=x", "refs/heads/-", "refs/tags/main"):
        path = f"{repository.path}/{ref}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(commit + "\n")
    with open(f"{repository.path}/HEAD", "w") as file:
        file.write("ref: refs/heads/--upload-pack=touch${IFS}-srv\n")
    address = serve(t)
    for fragment in ("", "#-cx", "#-", "#main"):
        attempt(t, repository, address, fragment)


URLS = ["ext::sh -c 'touch /srv/open/new'", "file:///host", "/host/x.git", "--upload-pack=touch /srv/open/new", "-u", "ssh://-oProxyCommand=touch%20/srv/open/new/x.git",
        "git@-oProxyCommand=x:y.git", "git://127.0.0.1:1/--upload-pack=x.git", "http://127.0.0.1:1/%0ahost.git", "fd::17/x.git", "transport::x.git",
        "http://[::1]:1/x.git", "http://127.0.0.1:99999/x.git", "http:///x.git", "git+file:///host.git", "ssh://127.0.0.1:1/;touch /srv/open/new.git"]


@row("git-urls-run-nothing", seconds=60)
def _(t):
    t.context({})
    for url in URLS:
        raw(t, t.rbuild("build", url, env={"GIT_TERMINAL_PROMPT": "0"}, seconds=10))
        raw(t, t.build(f"FROM base\nADD {url} /c\n", seconds=10))
        raw(t, t.build("FROM base\nRUN true\n", "--build-context", f"x={url}", seconds=10))


@row("git-configuration-of-the-user-is-no-way-in", seconds=30)
def _(t):
    """A checkout must not make git read it as configuration."""
    t.context({".git/config": "[core]\n\tfsmonitor = touch /srv/open/new\n\thooksPath = hooks\n\tsshCommand = touch /srv/open/new\n",
               ".git/HEAD": "ref: refs/heads/main\n", ".git/objects/x": "", ".git/refs/x": "", ".git/hooks/post-checkout": File("#!/bin/sh\ntouch /srv/open/new\n", 0o755),
               "HEAD": "ref: refs/heads/main\n", "config": "[core]\n\tfsmonitor = touch /srv/open/new\n", "objects/x": "", "refs/x": ""})
    t.build("FROM base\nRUN true\n", "--reproducible", "-t", "x:1")
    t.build("FROM base\nRUN true\n", "--reproducible", cwd=t.ctx)
    t.build(f"FROM base\nADD http://127.0.0.1:1/x.git /c\n", cwd=t.ctx, seconds=15)


ANSWERS = {
    "endless": lambda request: endless_lines(request), "garbage": lambda request: request.send(200, b"\x1b]0;evil\x07" * 1000, {"Content-Type": "application/x-git-upload-pack-advertisement"}),
    "redirect-to-a-file": lambda request: request.send(302, b"", {"Location": "file:///host"}),
    "redirect-to-ext": lambda request: request.send(302, b"", {"Location": "ext::sh -c touch% /srv/open/new"}),
    "redirect-loop": lambda request: request.send(302, b"", {"Location": request.path}),
    "escapes": lambda request: request.send(200, pkt("ERR \x1b]0;evil\x07\x1b[31m" + "x" * 1000), {"Content-Type": "application/x-git-upload-pack-advertisement"}),
    "many-refs": lambda request: request.send(200, many_refs(), {"Content-Type": "application/x-git-upload-pack-advertisement"}),
    "asks-for-a-password": lambda request: request.send(401, b"", {"WWW-Authenticate": 'Basic realm="\x1b[31m"'}),
}


def pkt(text):
    data = text.encode()
    return b"%04x" % (len(data) + 4) + data


def many_refs():
    lines = [pkt("# service=git-upload-pack\n"), b"0000", pkt("0" * 39 + "1 HEAD\0side-band-64k\n")]
    lines += [pkt("0" * 39 + f"1 refs/heads/--exec={n}\n") for n in range(200000)]
    return b"".join(lines) + b"0000"


def endless_lines(request):
    request.send_response(200)
    request.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    piece = pkt("# service=git-upload-pack\n") + b"0000" + pkt("0" * 39 + "1 refs/heads/x\n") * 1000
    while True:
        request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


for name, answer in ANSWERS.items():
    def _answer(t, answer=answer):
        address = t.serve(answer)
        t.context({})
        interrupted(t, lambda: t.rbuild("build", f"http://{address}/r.git", env={"GIT_TERMINAL_PROMPT": "0"}), after=2)
        raw(t, t.results[-1])

    row(f"git-server-{name}", seconds=25, rss=700)(_answer)


@row("git-pack-with-a-large-file-is-bounded", seconds=30, disk=700)
def _(t):
    """200 MiB of zeros are a fifth of a MiB in a pack, fifty times the same are nothing more."""
    repository = Repository(t)
    with open(f"{t.dir}/zeros", "wb") as file:
        file.truncate(200 << 20)
    big = repository.git("-c", "core.compression=1", "hash-object", "-w", f"{t.dir}/zeros")
    entries = [("100644", "Dockerfile", repository.blob(DOCKERFILE))] + [("100644", f"f{n}", big) for n in range(50)]
    repository.commit(repository.tree(entries))
    raw(t, t.rbuild("build", "--progress=plain", f"http://{serve(t)}/r.git", env={"GIT_TERMINAL_PROMPT": "0"}))


@row("git-tree-that-multiplies-is-bounded", seconds=30, disk=700)
def _(t):
    """Ten trees of ten names each are ten billion files."""
    repository = Repository(t)
    tree = repository.tree([("100644", f"f{n}", repository.blob("x")) for n in range(10)])
    for _ in range(9):
        tree = repository.tree([("40000", f"d{n}", tree) for n in range(10)])
    repository.commit(repository.tree([("100644", "Dockerfile", repository.blob(DOCKERFILE)), ("40000", "bomb", tree)]))
    t.rbuild("build", "--progress=plain", f"http://{serve(t)}/r.git", env={"GIT_TERMINAL_PROMPT": "0"}, seconds=15)
