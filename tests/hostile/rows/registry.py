"""Registries, token servers and web servers that lie, stall, redirect, loop and never end."""

import base64
import gzip
import json
import os
import re
import time

from lib import oci, tarball
from lib.suite import Fifo, File, Link, base_layer, interrupted, row

from .checkout import raw
from .output import SECRET

MIB = 1 << 20
ESC = "\x1b]0;evil\x07\x1b[31m"


class Registry:
    """An honest registry with one image; `lie` is asked first and returns True when it has answered."""

    def __init__(self, image, lie=None):
        self.image, self.lie, self.seen = image, lie, []

    def __call__(self, request):
        self.seen.append((request.command, request.path, request.headers.get("Authorization")))
        if self.lie and self.lie(request):
            return None
        path = request.path
        if path.rstrip("/") == "/v2":
            return request.send(200, "{}")
        if "/manifests/" in path:
            return send_manifest(request, self.image.manifest)
        found = re.search(r"/blobs/(sha256:[0-9a-f]{64})$", path)
        if found and found[1] in self.image.blobs:
            return request.send(200, self.image.blobs[found[1]])
        return request.send(404, '{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}')


def send_manifest(request, data, media_type=oci.MANIFEST, **headers):
    return request.send(200, data, {"Content-Type": media_type, "Docker-Content-Digest": oci.digest(data), **headers}) or True


def ordinary():
    return oci.Image([base_layer()])


def pulls(t, registry, address=None, dockerfile="FROM {}/x:1\nRUN echo pulled-and-run\n", **more):
    address = address or t.serve(registry)
    result = t.build(dockerfile.format(address), **more)
    raw(t, result)
    return result


@row("control-an-honest-registry-is-pulled-from")
def _(t):
    pulls(t, Registry(ordinary()), expect="ok", says="pulled-and-run")


def manifest(change):
    """A manifest that is changed before it is sent."""
    def answer(request):
        if "/manifests/" not in request.path:
            return False
        value = json.loads(ordinary().manifest)
        value = change(value) or value
        return send_manifest(request, value if isinstance(value, bytes) else json.dumps(value).encode())
    return answer


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(document):
        at = document
        for step in path:
            at = at[step]
        at[last] = value
    return change


ODD_DIGESTS = {"up": "sha256:../../../../host/secret", "absolute": "/host/secret", "empty": "", "sha512": "sha512:" + "0" * 128,
               "upper": "sha256:" + "A" * 64, "short": "sha256:00", "long": "sha256:" + "0" * 6400, "nul": "sha256:" + "\0" * 64,
               "escapes": f"sha256:{ESC}", "unknown": "md5:" + "0" * 32, "plus": "sha256+x:" + "0" * 64, "number": 5, "null": None}
MANIFESTS = {f"digest-{where}-{name}": put(*path, "digest", value) for name, value in ODD_DIGESTS.items()
             for where, path in (("config", ("config",)), ("layer", ("layers", 0)))}
MANIFESTS.update({
    "size-negative": put("layers", 0, "size", -1), "size-huge": put("layers", 0, "size", 1 << 62), "size-zero": put("layers", 0, "size", 0),
    "size-beyond-64-bits": put("layers", 0, "size", 1 << 70), "size-fraction": put("layers", 0, "size", 1.5),
    "config-size-huge": put("config", "size", 1 << 62), "config-size-zero": put("config", "size", 0),
    "media-type-unknown": put("layers", 0, "mediaType", "application/evil"), "media-type-escapes": put("layers", 0, "mediaType", ESC),
    "media-type-foreign": put("layers", 0, "mediaType", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    "urls-of-files": put("layers", 0, "urls", ["file:///host/secret", "http://127.0.0.1:1/"]),
    "10000-layers": lambda value: value.update(layers=value["layers"] * 10000), "no-layers": put("layers", []),
    "schema-1": put("schemaVersion", 1), "schema-string": put("schemaVersion", ESC), "not-json": lambda value: ESC.encode() + b"\0\xff",
    "empty": lambda value: b"", "null": lambda value: b"null", "list": lambda value: b"[]", "deep": lambda value: b'{"a":' * 500000,
    "of-100-mib": lambda value: b'{"a":"' + b"x" * (100 * MIB) + b'"}', "duplicate-keys": lambda value: b'{"layers":[],' + ordinary().manifest[1:],
    "annotations-flood": put("annotations", {f"k{n}": "v" * 100 for n in range(30000)}),
    "annotations-escapes": put("annotations", {ESC: ESC}),
})
for name, change in MANIFESTS.items():
    def _manifest(t, change=change):
        pulls(t, Registry(ordinary(), manifest(change)))

    row(f"manifest-{name}", cve="CVE-2024-3727" if name.startswith("digest") else "CVE-2024-23650", disk=300)(_manifest)


def index(entries):
    return json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}).encode()


@row("index-that-names-itself")
def _(t):
    # By digest nothing can name itself; a registry that does not care for digests can try.
    entries = [{"mediaType": oci.INDEX, "digest": "sha256:" + "0" * 64, "size": 300, "platform": {"architecture": oci.machine(), "os": "linux"}}]
    pulls(t, Registry(ordinary(), lambda request: "/manifests/" in request.path and send_manifest(request, index(entries), oci.INDEX)))


@row("indexes-in-indexes-without-end")
def _(t):
    chain, blob = {}, ordinary().manifest
    kind = oci.MANIFEST
    for _ in range(500):
        outer = index([{"mediaType": kind, "digest": oci.digest(blob), "size": len(blob), "platform": {"architecture": oci.machine(), "os": "linux"}}])
        chain[oci.digest(blob)] = (blob, kind)
        blob, kind = outer, oci.INDEX

    def lie(request):
        name = request.path.rsplit("/", 1)[-1]
        data, media_type = chain.get(name, (blob, oci.INDEX))
        return "/manifests/" in request.path and send_manifest(request, data, media_type)
    pulls(t, Registry(ordinary(), lie))


@row("index-of-100000-entries")
def _(t):
    entries = [{"mediaType": oci.MANIFEST, "digest": "sha256:" + "0" * 64, "size": 1, "platform": {"architecture": f"a{n}", "os": ESC}} for n in range(20000)]
    pulls(t, Registry(ordinary(), lambda request: "/manifests/" in request.path and send_manifest(request, index(entries), oci.INDEX)))


# Answers, for each kind of request -------------------------------------------------------------

def endless(request, piece=bytes(1 << 16), length=None):
    request.send_response(200)
    if length:
        request.send_header("Content-Length", str(length))
    else:
        request.send_header("Transfer-Encoding", "chunked")
    request.send_header("Content-Type", oci.MANIFEST)
    request.end_headers()
    while True:
        request.wfile.write(piece if length else b"%x\r\n%s\r\n" % (len(piece), piece))


def raw_answer(request, data):
    request.wfile.write(data)
    request.wfile.flush()
    request.close_connection = True


def stall(request):
    time.sleep(40)


def drip(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    for _ in range(40):
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(1)


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "endless": endless, "endless-of-a-length": lambda request: endless(request, length=1 << 60),
    "redirect-loop": lambda request: request.send(307, b"", {"Location": request.path}),
    "redirect-growing": lambda request: request.send(302, b"", {"Location": request.path + "x"}),
    "redirect-to-a-file": lambda request: request.send(302, b"", {"Location": "file:///host/secret"}),
    "redirect-to-gopher": lambda request: request.send(302, b"", {"Location": "gopher://127.0.0.1:1/"}),
    "redirect-to-a-unix-socket": lambda request: request.send(302, b"", {"Location": "unix:///run/docker.sock"}),
    "redirect-without-location": lambda request: request.send(302, b""),
    "redirect-to-escapes": lambda request: request.send(302, b"", {"Location": "http://\x1b[31mevil/"}),
    "redirect-to-10-mib": lambda request: raw_answer(request, b"HTTP/1.1 302 x\r\nLocation: http://" + b"x" * (10 * MIB) + b"\r\n\r\n"),
    "headers-of-10-mib": lambda request: raw_answer(request, OK + b"X: " + b"x" * (10 * MIB) + b"\r\nContent-Length: 0\r\n\r\n"),
    "100000-headers": lambda request: raw_answer(request, OK + b"X: y\r\n" * 100000 + b"Content-Length: 0\r\n\r\n"),
    "headers-without-end": lambda request: [request.wfile.write(b"X: " + b"y" * 60000 + b"\r\n") for _ in range(100000)],
    "status-line-odd": lambda request: raw_answer(request, b"HTTP/9.9 99999 " + ESC.encode() + b"\r\n\r\n"),
    "not-http": lambda request: raw_answer(request, ESC.encode() + bytes(1000)),
    "continue-without-end": lambda request: [request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000) for _ in range(100000)],
    "length-negative": lambda request: raw_answer(request, OK + b"Content-Length: -5\r\n\r\nxxxxx"),
    "length-twice": lambda request: raw_answer(request, OK + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nxxxxx"),
    "length-too-long": lambda request: raw_answer(request, OK + b"Content-Length: 99999\r\n\r\nxxxxx"),
    "length-huge": lambda request: raw_answer(request, OK + b"Content-Length: 99999999999999999999999\r\n\r\n"),
    "chunk-size-huge": lambda request: raw_answer(request, OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"),
    "chunk-size-odd": lambda request: raw_answer(request, OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n"),
    "gzip-bomb": lambda request: request.send(200, gzip.compress(bytes(200 * MIB), 9), {"Content-Encoding": "gzip"}),
    "empty": lambda request: request.send(200, b""),
    "error-of-20-mib": lambda request: request.send(400, b"x" * (20 * MIB)),
    "error-endless": lambda request: endless_error(request),
    "error-escapes": lambda request: request.send(403, json.dumps({"errors": [{"code": ESC, "message": ESC + "\u202e", "detail": ESC}]})),
    "error-deep": lambda request: request.send(400, '{"errors":' + "[" * 100000),
    "error-html": lambda request: request.send(418, f"<html>{ESC}<script>alert(1)</script>"),
    "type-escapes": lambda request: raw_answer(request, OK + b"Content-Type: \x1b[31m\xff\r\nContent-Length: 2\r\n\r\n{}"),
    "digest-header-lies": lambda request: request.send(200, "{}", {"Docker-Content-Digest": "sha256:../../x", "Content-Type": oci.MANIFEST}),
    "challenge-to-a-file": lambda request: request.send(401, b"", {"WWW-Authenticate": 'Bearer realm="file:///host/secret"'}),
    "challenge-to-itself": lambda request: request.send(401, b"", {"WWW-Authenticate": 'Bearer realm="http://%s%s"' % (request.headers["Host"], request.path)}),
    "challenge-of-1-mib": lambda request: raw_answer(request, b"HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer " + b'a="b",' * 170000 + b"\r\nContent-Length: 0\r\n\r\n"),
    "challenge-unclosed": lambda request: request.send(401, b"", {"WWW-Authenticate": 'Bearer realm="http://x, service=\\"'}),
    "challenges-1000": lambda request: raw_answer(request, b"HTTP/1.1 401 x\r\n" + b'WWW-Authenticate: Bearer realm="http://127.0.0.1:1/"\r\n' * 90 + b"Content-Length: 0\r\n\r\n"),
    "challenge-escapes": lambda request: raw_answer(request, b'HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer realm="\x1b]0;x\x07"\r\nContent-Length: 0\r\n\r\n'),
    "wrong-content": lambda request: request.send(200, b"wrong" * 1000, {"Content-Type": oci.MANIFEST}),
    "range-lies": lambda request: request.send(206, b"x" * 100, {"Content-Range": "bytes 5-104/9999999999999999999"}),
    "closed-at-once": lambda request: raw_answer(request, b""),
}
WAITS = {"stall": stall, "drip": drip, "retry-after-a-year": lambda request: request.send(429, b"", {"Retry-After": "31536000"}),
         "retry-after-odd": lambda request: request.send(503, b"", {"Retry-After": "-5, Thu, 99 Foo"}),
         "server-error-for-ever": lambda request: request.send(500, ESC)}


def endless_error(request):
    request.send_response(500)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for _ in range(4000):
        request.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


PHASES = {"manifest": "/manifests/", "blob": "/blobs/"}
for name, answer in ANSWERS.items():
    for phase, part in PHASES.items():
        def _answer(t, answer=answer, part=part):
            def lie(request):
                if part in request.path:
                    answer(request)
                    return True
                return False
            interrupted(t, lambda: pulls(t, Registry(ordinary(), lie)), after=1.5)

        row(f"{phase}-answer-{name}", seconds=25)(_answer)

    def _add(t, answer=answer):
        address = t.serve(lambda request: answer(request))
        interrupted(t, lambda: raw_of(t, t.build(f"FROM base\nADD http://{address}/x /f\nRUN ls -la /f\n")), after=1.5)

    # A page without an end is a large file: the disk is the bound, so what it is told to stop at counts.
    if not name.startswith(("endless", "challenge", "digest")):
        row(f"add-answer-{name}", seconds=25, disk=800 if name == "gzip-bomb" else 256)(_add)

for name, answer in WAITS.items():
    for phase, part in (*PHASES.items(), ("ping", "/v2")):
        def _wait(t, answer=answer, part=part):
            def lie(request):
                if part in request.path:
                    answer(request)
                    return True
                return False
            interrupted(t, lambda: pulls(t, Registry(ordinary(), lie)), after=1)

        if phase != "ping" or name == "stall":
            row(f"{phase}-answer-{name}-is-interrupted", seconds=25)(_wait)


def raw_of(t, result):
    raw(t, result)
    return result


@row("add-of-an-endless-file-is-bounded", seconds=60, disk=700)
def _(t):
    address = t.serve(lambda request: endless(request))
    t.build(f"FROM base\nADD http://{address}/x /f\n", expect="fails")


for name, body in {"endless": None, "deep": "[" * 500000, "newline": '{"token":"a\\r\\nX-Evil: 1"}', "huge": '{"token":"' + "x" * (3 * MIB) + '"}',
                   "expires-odd": '{"token":"x","expires_in":-99999999999999999999,"issued_at":"' + ESC.replace("\x1b", "").replace("\x07", "") + '"}',
                   "escapes": '{"details":"\\u001b[31m"}', "types": '{"token":5,"access_token":[]}', "error": '{"errors":[{"message":"\\u001b]0;x\\u0007"}]}'}.items():
    def _token(t, body=body):
        def lie(request):
            if request.path.startswith("/token"):
                if body is None:
                    endless(request)
                request.send(200, body)
                return True
            if request.headers.get("Authorization", "").startswith("Bearer"):
                return False
            request.send(401, b"", {"WWW-Authenticate": 'Bearer realm="http://%s/token",service="s"' % request.headers["Host"]})
            return True
        pulls(t, Registry(ordinary(), lie))

    row(f"token-{name}")(_token)


# Credentials ---------------------------------------------------------------------------------

def login(t, *addresses):
    auth = base64.b64encode(f"user:{SECRET}".encode()).decode()
    t.plant(f"{t.dir}/docker", {"config.json": json.dumps({"auths": {address: {"auth": auth} for address in addresses}})})
    t.give(f"{t.dir}/docker")
    t.env["DOCKER_CONFIG"] = f"{t.dir}/docker"


def has_credentials(server_requests):
    secret = base64.b64encode(f"user:{SECRET}".encode()).decode()
    for command, path, headers in server_requests:
        text = json.dumps(headers) + path
        if SECRET in text or secret in text:
            return True
    return False


for status in (301, 302, 303, 307, 308):
    for what, part in PHASES.items():
        def _redirect(t, status=status, part=part):
            elsewhere = t.serve(lambda request: request.send(404, "no"))
            other = elsewhere

            def lie(request):
                if not request.headers.get("Authorization"):
                    request.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                    return True
                if part in request.path:
                    request.send(status, b"", {"Location": f"http://{other}{request.path}"})
                    return True
                return False
            registry = Registry(ordinary(), lie)
            address = t.serve(registry)
            login(t, address)
            pulls(t, registry, address)
            if has_credentials(t._servers[0].requests):
                t.count("R", "credentials were sent to where a registry redirects")

        row(f"redirect-{status}-of-a-{what}-gets-no-credentials")(_redirect)


@row("credentials-are-not-sent-to-another-registry")
def _(t):
    other = t.serve(lambda request: request.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
    registry = Registry(ordinary())
    address = t.serve(registry)
    login(t, address)
    for form in (f"{other}/x", f"{other}/{address}/x", f"{other}/x:1"):
        t.build(f"FROM {form}\nRUN true\n")
    if has_credentials(t._servers[0].requests):
        t.count("R", "credentials were sent to another registry")


@row("credentials-of-a-url-are-not-sent-where-it-redirects")
def _(t):
    other = t.serve(lambda request: request.send(200, "x"))
    address = t.serve(lambda request: request.send(302, b"", {"Location": f"http://{other}/y"}))
    t.build(f"FROM base\nADD http://user:{SECRET}@{address}/x /f\n")
    if has_credentials(t._servers[0].requests):
        t.count("R", "credentials of a URL were sent to another host")


LOCATIONS = {"another-host": "http://{other}/upload", "a-file": "file:///srv/open/new", "a-metadata-address": "http://169.254.169.254/latest",
             "escapes": "http://\x1b[31m/", "empty": "", "up": "../../../../x", "itself": "{path}", "10-mib": "/" + "x" * 60000}
for name, location in LOCATIONS.items():
    def _upload(t, location=location):
        other = t.serve(lambda request: (request.body(), request.send(201, b""))[1])

        def answer(request):
            if not request.headers.get("Authorization"):
                request.body()
                return request.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            if request.command == "HEAD":
                return request.send(404, b"")
            request.body()
            return request.send(202, b"", {"Location": location.format(other=other, path=request.path)})
        address = t.serve(answer)
        login(t, address)
        interrupted(t, lambda: raw_of(t, t.build("FROM base\nRUN echo x >/f\n", "-t", f"{address}/x:1", "--push")), after=1.5)
        if has_credentials(t._servers[0].requests):
            t.count("R", "credentials were sent to where an upload is led")

    row(f"upload-location-is-{name}", seconds=25)(_upload)


HELPERS = {"endless": "#!/bin/sh\nyes x\n", "hangs": "#!/bin/sh\nsleep 100\n", "escapes": "#!/bin/sh\nprintf '\\033]0;evil\\007' >&2; printf '\\033[31m'; exit 1\n",
           "deep": "#!/bin/sh\nyes '[' | tr -d '\\n' | head -c 1000000\n", "newline": "#!/bin/sh\nprintf '{\"Username\":\"a\\\\r\\\\nX: y\",\"Secret\":\"b\"}'\n",
           "crashes": "#!/bin/sh\nkill -SEGV $$\n", "reads-nothing": "#!/bin/sh\nexec <&-; sleep 0.1; echo '{}'\n"}
for name, script in HELPERS.items():
    def _helper(t, script=script):
        def lie(request):
            if not request.headers.get("Authorization"):
                request.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                return True
            return False
        registry = Registry(ordinary(), lie)
        address = t.serve(registry)
        t.plant(f"{t.dir}/helpers", {"docker-credential-evil": File(script, 0o755)})
        t.plant(f"{t.dir}/docker", {"config.json": json.dumps({"credHelpers": {address: "evil"}, "credsStore": "evil"})})
        t.env.update(DOCKER_CONFIG=f"{t.dir}/docker", PATH=f"{t.dir}/helpers:" + t.env["PATH"])
        interrupted(t, lambda: pulls(t, registry, address), after=1.5)

    row(f"credential-helper-{name}", seconds=25)(_helper)

CONFIGS = {"helper-up": {"credsStore": "../../../host/program"}, "helper-absolute": {"credsStore": "/host/program"}, "helper-slash": {"credsStore": "x/../../host/program"},
           "helper-option": {"credsStore": "-x; touch /srv/open/new"}, "helper-empty": {"credsStore": ""}, "helper-nul": {"credsStore": "a\0b"},
           "types": {"auths": [], "credsStore": 5, "credHelpers": "x"}, "auth-not-base64": {"auths": {"{}": {"auth": "\x1b[31m***"}}},
           "auth-newline": {"auths": {"{}": {"auth": base64.b64encode(b"a\r\nX: y:b\r\nZ: w").decode()}}}}
for name, value in CONFIGS.items():
    def _config(t, value=value):
        def lie(request):
            if not request.headers.get("Authorization"):
                request.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                return True
            return False
        registry = Registry(ordinary(), lie)
        address = t.serve(registry)
        text = json.dumps(value).replace('"{}"', json.dumps(address))
        t.plant(f"{t.dir}/docker", {"config.json": text})
        t.env["DOCKER_CONFIG"] = f"{t.dir}/docker"
        pulls(t, registry, address)
        for _, _, headers in t._servers[0].requests:
            if "Z" in headers or "X" in headers:
                t.count("W", "a header was injected")

    row(f"docker-config-{name}")(_config)

for name, what in {"fifo": Fifo(), "endless": Link("/dev/zero"), "deep": "[" * 1000000, "of-100-mib": lambda: b" " * (100 * MIB), "not-utf8": b"\xff\xfe", "directory": None}.items():
    for file in ("config.json", "registries.toml"):
        def _file(t, what=what, file=file):
            registry = Registry(ordinary())
            address = t.serve(registry)
            t.plant(f"{t.dir}/docker", {f"{file}/x": "x"} if what is None else {file: what() if callable(what) else what})
            t.env["DOCKER_CONFIG"] = f"{t.dir}/docker"
            t.env["RBUILD_REGISTRIES"] = f"{t.dir}/docker/{file}" if file.startswith("reg") else "/dev/null"
            pulls(t, registry, address, seconds=10)

        row(f"{file.replace('.', '-')}-is-{name}", disk=400)(_file)


# Names of what ADD fetches -----------------------------------------------------------------------

PATHS = {"up": "/..%2f..%2fsrv%2fopen%2fnew", "dot": "/.", "dot-dot": "/..", "encoded-dots": "/%2e%2e", "nul": "/a%00b", "newline": "/a%0ab", "escape": "/%1b%5b31m",
         "long": "/" + "n" * 300, "empty": "/", "query-only": "/?a=/../../x", "fragment": "/x#../../y", "backslash": "/..%5c..%5cx", "absolute": "/%2fsrv%2fopen%2fnew",
         "whiteout": "/.wh.bin", "opaque": "/.wh..wh..opq", "not-utf8": "/%ff%fe"}
for name, path in PATHS.items():
    def _name(t, path=path):
        address = t.serve(lambda request: request.send(200, "content"))
        raw(t, t.build(f"FROM base\nADD http://{address}{path} /dir/\nRUN ls -la /dir / /bin/sh\n"))

    row(f"add-url-path-is-{name}")(_name)

for name, value in {"up": "../../../srv/open/new", "absolute": "/srv/open/new", "dot-dot": "..", "empty": "", "escapes": "\x1b[31m", "long": "n" * 5000,
                    "encoded": "x; filename*=UTF-8''..%2f..%2fsrv%2fopen%2fnew", "whiteout": ".wh.bin"}.items():
    def _disposition(t, value=value):
        address = t.serve(lambda request: raw_answer(
            request, OK + b'Content-Disposition: attachment; filename="' + value.encode() + b'"\r\nLast-Modified: Thu, 99 Foo 99999999999 x\r\nContent-Length: 1\r\n\r\nx'))
        raw(t, t.build(f"FROM base\nADD http://{address}/ /dir/\nADD http://{address}/y /dir/\nRUN ls -la /dir / /bin/sh\n"))

    row(f"content-disposition-is-{name}")(_disposition)


@row("url-context-redirected-to-a-file")
def _(t):
    address = t.serve(lambda request: request.send(302, b"", {"Location": "file:///host/secret"}))
    raw(t, t.rbuild("build", f"http://{address}/x.tar"))
    raw(t, t.rbuild("build", f"http://{address}/Dockerfile"))
    raw(t, t.rbuild("build", "file:///host/secret"))
    t.build("FROM base\nADD file:///host/secret /f\nRUN true\n")
    t.build(None, "--build-context", "evil=file:///host")
    t.build(None, "--build-context", f"evil=http://{address}/x.tar")
