"""A registry on loopback that keeps everything in memory, verifies no digest, and misbehaves on request.

A real registry refuses bytes that do not hash to their digest. This one stores them, so that a campaign can see
what rbuild sent.
"""

import re
import time
import urllib.parse

from lib.http import Server

from .images import digest

FAULTS = ("close", "close late", "cut", "short", "long", "stall", "stall and close", "bytes", "500", "502", "503",
          "429", "404", "page", "empty 200")
# Faults that make sense in one direction only.
ONLY_DOWN = {"cut", "short", "long", "bytes", "page"}
ONLY_UP = {"empty 200"}
STALL_S = 1.5

_PATH = re.compile(r"^/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests)/(?P<rest>[^/?]*)(\?(?P<query>.*))?$")


class Registry:
    """Blobs by digest, manifests by repository and reference."""

    def __init__(self):
        self.blobs, self.manifests, self.uploads = {}, {}, {}
        # Returns the fault for the N-th request of a kind, or nothing.
        self.fault = lambda kind, number: None
        self.counts = {}
        self.shown = []
        self.server = Server(self._answer)
        self.address = self.server.address

    def stop(self):
        self.server.stop()

    def add_image(self, repository, tag, image):
        """Adds an image as if it had been pushed."""
        self.blobs.update({name: data for name, data in image.blobs.items() if data is not image.manifest})
        for reference in (tag, digest(image.manifest)):
            self.manifests[repository, reference] = image.manifest

    # Answers --------------------------------------------------------------------------------

    def _answer(self, request):
        match = _PATH.match(request.path)
        if match is None:
            return request.send(200 if request.path.startswith("/v2") else 404, "{}")
        what = match["kind"]
        kind = f"{request.command} {'blob' if what == 'blobs' else what.split('/')[-1].rstrip('s')}"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        fault = self.fault(kind, self.counts[kind])
        if fault:
            self.shown.append(f"{kind} {self.counts[kind]}: {fault}")
        if fault == "close":
            raise OSError("closed on purpose")
        query = dict(urllib.parse.parse_qsl(match["query"] or ""))
        body = _body(request) if request.command in ("POST", "PATCH", "PUT") else b""
        if fault == "close late":
            raise OSError("closed on purpose")
        if fault and fault.startswith("stall"):
            time.sleep(STALL_S)
            if fault == "stall and close":
                raise OSError("closed on purpose")
        if fault and fault.isdigit():
            return request.send(int(fault), '{"errors":[{"code":"UNAVAILABLE"}]}', {"Retry-After": "0"})
        if fault == "empty 200":
            return request.send(200)
        if request.command in ("GET", "HEAD"):
            return self._read(request, match, fault)
        return self._write(request, match, query, body)

    def _read(self, request, match, fault):
        name, what, rest = match["name"], match["kind"], match["rest"]
        headers = {"Content-Type": "application/octet-stream"}
        if what == "manifests":
            data = self.manifests.get((name, rest))
            headers["Content-Type"] = "application/vnd.oci.image.manifest.v1+json"
        elif what == "blobs":
            data = self.blobs.get(rest)
        else:
            held = self.uploads.get(rest)
            if held is None:
                return request.send(404, "{}")
            return request.send(204, headers={"Range": f"0-{max(len(held) - 1, 0)}",
                                              "Location": request.path.split("?")[0]})
        if data is None:
            return request.send(404, '{"errors":[{"code":"NOT_FOUND"}]}')
        headers["Docker-Content-Digest"] = digest(data)
        status, data = _range(request, data, headers)
        return _send(request, status, data, headers, fault)

    def _write(self, request, match, query, body):
        name, what, rest = match["name"], match["kind"], match["rest"]
        if what == "manifests":
            for reference in (rest, digest(body)):
                self.manifests[name, reference] = body
            return request.send(201, headers={"Location": f"/v2/{name}/manifests/{rest}",
                                              "Docker-Content-Digest": digest(body)})
        if request.command == "POST":
            if query.get("mount") in self.blobs:
                return request.send(201, headers={"Location": f"/v2/{name}/blobs/{query['mount']}",
                                                  "Docker-Content-Digest": query["mount"]})
            rest = str(len(self.uploads))
            self.uploads[rest] = b""
        held = self.uploads.get(rest)
        if held is None:
            return request.send(404, '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        self.uploads[rest] = held + body
        if request.command == "PUT" or "digest" in query:
            self.blobs[query.get("digest", "")] = self.uploads.pop(rest)
            return request.send(201, headers={"Location": f"/v2/{name}/blobs/{query.get('digest', '')}",
                                              "Docker-Content-Digest": query.get("digest", "")})
        return request.send(202, headers={"Location": f"/v2/{name}/blobs/uploads/{rest}",
                                          "Range": f"0-{max(len(self.uploads[rest]) - 1, 0)}"})


def _body(request):
    if "chunked" not in (request.headers.get("Transfer-Encoding") or ""):
        return request.body()
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


def _range(request, data, headers):
    """Honours `Range: bytes=N-`, which resumes a broken download."""
    match = re.match(r"bytes=(\d+)-$", request.headers.get("Range") or "")
    if match is None or int(match[1]) >= len(data):
        return 200, data
    start = int(match[1])
    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return 206, data[start:]


def _send(request, status, data, headers, fault):
    if fault == "page":
        return request.send(200, "<html><body>Sign in to the network</body></html>", {"Content-Type": "text/html"})
    if fault == "bytes" and data:
        at = len(data) // 2
        data = data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]
    if fault == "short":
        data = data[:len(data) // 2]
    if fault == "cut" and request.command == "GET":
        request.send(status, data[:len(data) // 2], headers, length=len(data))
        raise OSError("closed on purpose")
    if fault == "long":
        return request.send(status, data + b"\0" * 100, headers)
    return request.send(status, data, headers)
