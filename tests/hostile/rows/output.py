"""What rbuild prints and writes for people and programs: terminals, CI systems, HTML, JSON."""

import html.parser
import json
import os
import re

from lib import oci
from lib.suite import Fifo, attack, base_layer, row

from .checkout import raw

ESC = "\x1b"
NASTY = {
    "colour": ESC + "[31mred", "title": ESC + "]0;evil\x07", "clear": ESC + "[2J" + ESC + "[H", "c1": "\x9b31m\x9d0;evil\x9c",
    "hyperlink": ESC + "]8;;http://evil.invalid\x07click" + ESC + "]8;;\x07", "clipboard": ESC + "]52;c;ZXZpbA==\x07",
    "answer": ESC + "[6n" + ESC + "[c" + ESC + "]11;?\x07", "backspace": "a\b\b\bevil", "return": "long\rshort",
    "bidi": "a\u202eb\u2066c\u2069", "marks": "a\u200fb\u200ec\u061cd\u2028e\u2029f", "nul": "a\0b",
    "dcs": ESC + "P$q\"p" + ESC + "\\", "delete": "a\x7fb",
}
SHOWN = {
    "label": lambda text: 'FROM base\nLABEL "k"="%s" "%s"="v"\n' % (text, text),
    "env": lambda text: 'FROM base\nENV K="%s"\nRUN true\n' % text,
    "instruction": lambda text: f"FROM base\n{text} x\n",
    "comment": lambda text: f"# {text}\nFROM base\nRUN true\n",
    "directive": lambda text: f"# syntax={text}\n# escape={text}\nFROM base\n",
    "image-name": lambda text: f"FROM {text}\n",
    "stage-name": lambda text: f"FROM base AS {text}\n",
    "copy-source": lambda text: f'FROM base\nCOPY ["{text}", "/x"]\n',
    "url": lambda text: f"FROM base\nADD http://{{address}}/{text} /x\n",
    "run-text": lambda text: f"FROM base\nRUN : '{text}'; false\n",
    "program": lambda text: f'FROM base\nRUN ["/{text}"]\n',
    "user": lambda text: f'FROM base\nUSER "{text}"\nRUN true\n',
    "workdir": lambda text: f'FROM base\nWORKDIR "/{text}"\nRUN false\n',
    "mount": lambda text: f"FROM base\nRUN --mount=type=cache,target='/{text}',id={text} true\n",
    "heredoc": lambda text: f"FROM base\nRUN <<'{text}'\nfalse\n{text}\n",
    "argument": lambda text: f'FROM base\nARG A="{text}"\nRUN echo $A; false\n',
    "required": lambda text: "FROM base\nENV A=${B:?" + text + "}\n",
}

for name, make in SHOWN.items():
    def _shown(t, make=make):
        address = t.serve(lambda request: request.send(404, "no"))
        for text in NASTY.values():
            if "\0" in text:
                continue
            raw(t, t.build(make(text).replace("{address}", address)))
            raw(t, t.rbuild("build", "--check", t.ctx))
            raw(t, t.build(None, env={"GITHUB_ACTIONS": "true"}), ci=True)

    row(f"escapes-in-{name}-are-not-printed", seconds=40)(_shown)


@row("escapes-that-a-step-prints-are-not-printed")
def _(t):
    for text in NASTY.values():
        octal = "".join(f"\\{byte:03o}" for byte in text.encode())
        t.plant(t.ctx, {"Dockerfile": f"FROM base\nRUN printf '{octal}\\n'; printf '{octal}' >&2; false\n"})
        raw(t, t.build(None))
        raw(t, t.build(None, env={"CI": "1"}), ci=True)
        raw(t, t.rbuild("history", "logs"))


@row("escapes-in-file-names-are-not-printed")
def _(t):
    t.context({f"dir/f{text.replace(chr(0), '')}": "x" for text in NASTY.values()} | {f"dir/{ESC}[2Jpipe": Fifo()})
    raw(t, t.build("FROM base\nCOPY dir /d\nRUN --mount=target=/m ls /m/dir >/dev/null; false\n"))
    raw(t, t.build("FROM base\nCOPY dir /d\n", "-t", "names:1", "--max-layer-size", "1"))
    raw(t, t.rbuild("inspect", "names:1"))
    raw(t, t.rbuild("diff", "names:1", "base"))


@row("escapes-in-a-base-config-are-not-printed", cve="CVE-2026-53488")
def _(t):
    evil = "".join(NASTY.values()).replace("\0", "")
    image = oci.Image([base_layer()], {
        "Env": ["PATH=/bin", f"E{evil}=x"], "Labels": {evil: evil}, "User": evil, "WorkingDir": "/" + evil,
        "Entrypoint": [evil], "Cmd": [evil], "Shell": ["/bin/sh", "-c", evil], "ExposedPorts": {evil: {}},
        "Volumes": {"/" + evil: {}}, "StopSignal": evil, "OnBuild": [f"RUN echo '{evil}'"]},
        author=evil, created="2020-01-01T00:00:00Z" + evil,
        history=[{"created_by": evil, "comment": evil, "author": evil}])
    t.base(image)
    raw(t, t.build("FROM base\nRUN true\n", "-t", "evil:1"))
    image = oci.Image([base_layer()], {"Labels": {evil: evil}}, history=[{"created_by": evil, "comment": evil}])
    t.base(image)
    raw(t, t.build("FROM base\nRUN true\n", "-t", "evil:1"))
    for command in (["images"], ["inspect", "evil:1"], ["history", "evil:1"], ["history"], ["explain"], ["du", "-v"],
                    ["inspect", "--json", "evil:1"], ["history", "--json", "evil:1"], ["history", "ls", "--json"], ["history", "show"]):
        raw(t, t.rbuild(*command))


@row("escapes-in-arguments-are-not-printed")
def _(t):
    """In a script, an argument may be others' words: the name of a branch, say."""
    t.plant(t.ctx, {"Dockerfile": "FROM base\n"})
    for text in NASTY.values():
        if "\0" in text:
            continue
        for command in ([text], ["build", f"--{text}"], ["build", "--progress", text, t.ctx], ["build", "-f", text, t.ctx],
                        ["build", "-t", text, t.ctx], ["build", "--platform", text, t.ctx], ["build", text], ["inspect", text],
                        ["build", "--target", text, t.ctx], ["build", "--secret", text, t.ctx]):
            raw(t, t.rbuild(*command))


class Page(html.parser.HTMLParser):
    """Finds what would run, or fetch, when the page is opened."""

    def __init__(self):
        super().__init__()
        self.bad = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name.startswith("on") or (value or "").lower().strip().startswith(("javascript:", "data:text", "vbscript:")):
                self.bad.append(f"<{tag} {name}={value[:40] if value else value}>")
            if name in ("src", "href", "action", "srcset", "data") and (value or "").startswith(("http", "//")):
                self.bad.append(f"<{tag} {name}={value[:60]}>")
        if tag in ("iframe", "object", "embed", "img", "base", "form", "foreignobject", "evil", "marquee"):
            self.bad.append(f"<{tag}>")


HTML = ['<img src=x onerror=alert(1)><evil>', '"><evil onload=x>', "'><evil>", "</script><evil>", "</style><evil>",
        "<!--<evil>", "]]><evil>", "<svg onload=alert(1)><evil>", "javascript:alert(1)", "&lt;evil&gt;<evil>", "\\u003cevil>",
        "</title><evil>", "{{constructor}}<evil>", "`${alert(1)}`<evil>"]


@row("report-is-only-text-where-the-build-had-its-say", cve="CVE-2026-53488", seconds=40)
def _(t):
    for number, text in enumerate(HTML):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        name = re.sub(r"[/\0]", "_", text)
        t.plant(t.ctx, {f"dir{number}/{name}": "x" * 100000})
        octal = "".join(f"\\{byte:03o}" for byte in text.encode())
        for tail in ("true", "false"):
            t.build(f'# {text}\nFROM base\nLABEL "a"="{quoted}"\nENV A="{quoted}"\nCOPY dir{number} /d/\n'
                    f'WORKDIR "/{quoted}"\nRUN printf "{octal}\\n"; : \'{text if chr(39) not in text else ""}\'; {tail}\n',
                    "--report", f"{t.dir}/r.html", "--label", f"x={text}")
            if not os.path.exists(f"{t.dir}/r.html"):
                continue
            page = Page()
            page.feed(open(f"{t.dir}/r.html", encoding="utf-8", errors="replace").read())
            for bad in page.bad[:3]:
                t.count("W", f"the page has {bad}")
            os.remove(f"{t.dir}/r.html")


COMMANDS = ["::add-mask::x", "::set-output name=a::b", "::error file=x::y", "::stop-commands::z", "##[set-env name=A]b",
            "::group::x", "::endgroup::", " ::warning::x", "%0A::error::x", "section_start:1:x\r\x1b[0K", "##vso[task.setvariable]x",
            "\r::error::x", "##teamcity[x]", "::set-env name=LD_PRELOAD::x", "::save-state name=a::b", "::add-path::/evil"]


@row("workflow-commands-of-a-step-are-not-followed", seconds=30)
def _(t):
    for text in COMMANDS:
        octal = "".join(f"\\{byte:03o}" for byte in text.encode())
        result = t.build(f"FROM base\nRUN printf '{octal}\\n'; printf 'x\\r{octal}\\n'; false\n", env={"GITHUB_ACTIONS": "true"})
        # The runner looks at line beginnings; while commands are stopped it looks at none.
        stopped = None
        for line in re.split(r"[\r\n]+", result.text):
            found = re.match(r"\s*::([\w-]+)", line) or re.match(r"\s*##\[([\w-]+)", line)
            if stopped:
                if line.strip() == f"::{stopped}::":
                    stopped = None
                continue
            if stop := re.match(r"\s*::stop-commands::(\S+)", line):
                stopped = stop[1]
                if stopped == "z":
                    t.count("W", "a step chose the word that stops commands")
            elif found and found[1] not in ("group", "endgroup", "error", "warning", "notice"):
                t.count("W", f"the runner would follow {line[:60]!r}")
            elif found and text.strip("\r %0A ") in line.strip() and found[1] in text and "y" == line[-1:]:
                t.count("W", f"the runner would follow {line[:60]!r}")


@row("workflow-commands-of-a-dockerfile-are-not-followed", seconds=30)
def _(t):
    for text in COMMANDS:
        if "\r" in text:
            continue
        for dockerfile in (f"FROM base\nRUN echo '{text}'\n", f"FROM base\n{text}\n", f'FROM base\nRUN <<E\n{text}\nE\n',
                           f"FROM base\nCOPY '{text}' /\n"):
            result = t.build(dockerfile, env={"GITHUB_ACTIONS": "true"})
            for line in re.split(r"[\r\n]+", result.text):
                found = re.match(r"\s*(?:::|##\[)(add-mask|set-output|set-env|save-state|add-path)", line)
                if found:
                    t.count("W", f"the runner would follow {line[:60]!r}")


@row("json-progress-is-json-whatever-is-printed")
def _(t):
    for text in NASTY.values():
        octal = "".join(f"\\{byte:03o}" for byte in text.encode()) + "\\377\\376\"\\\\\\173"
        t.plant(t.ctx, {"Dockerfile": f"FROM base\nRUN printf '{octal}\\n'\n"})
        result = t.rbuild("build", "--progress=json", "--build-context", f"base=oci-layout://{t._base}", t.ctx, expect="ok")
        raw(t, result)
        for line in result.text.splitlines():
            try:
                json.loads(line)
            except ValueError:
                if line.startswith("{"):
                    t.fail(f"not JSON: {line[:100]}")


SECRET = "s3cr3t-V4lue-0123456789"


def forbidden(t, *paths):
    for result in t.results:
        if SECRET in result.text:
            t.count("R", "a secret was printed")
    for directory, _, names in os.walk(t.dir):
        for name in names:
            path = os.path.join(directory, name)
            if path.startswith(t.ctx) or not os.path.isfile(path) or os.path.islink(path):
                continue
            with open(path, "rb") as file:
                if SECRET.encode() in file.read(32 << 20):
                    t.count("R", f"a secret is in {path}")
                    return


@row("password-in-a-url-is-not-kept", cve="CVE-2025-0495")
def _(t):
    address = t.serve(lambda request: request.send(200, "content"))
    t.context({})
    t.build(f"FROM base\nADD http://user:{SECRET}@{address}/x /f\nRUN true\n", "--report", f"{t.dir}/r.html",
            "--metadata-file", f"{t.dir}/m", "-t", "pw:1")
    t.rbuild("history")
    t.rbuild("inspect", "pw:1")
    t.rbuild("history", "show")
    forbidden(t)


@row("password-in-a-git-url-is-not-kept", cve="CVE-2025-0495")
def _(t):
    address = t.serve(lambda request: request.send(404, "no"))
    t.build(f"FROM base\nADD http://user:{SECRET}@{address}/x.git#main /f\n", "--report", f"{t.dir}/r.html")
    t.rbuild("build", f"http://user:{SECRET}@{address}/x.git")
    t.rbuild("build", f"http://user:{SECRET}@{address}/x.tar")
    t.rbuild("history", "show")
    forbidden(t)


@row("secret-is-not-kept", cve="CVE-2025-0495")
def _(t):
    t.build("FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s; base64 /run/secrets/s | tail -c 1; ls -la /run/secrets\n"
            "RUN --mount=type=secret,id=s,env=S echo $S; env\n", "--secret", "id=s,env=SECRET", "--report", f"{t.dir}/r.html",
            "--metadata-file", f"{t.dir}/m", env={"SECRET": SECRET}, expect="ok")
    t.rbuild("history", "logs")
    forbidden(t)


@row("keys-of-a-cache-are-not-kept", cve="CVE-2025-0495")
def _(t):
    address = t.serve(lambda request: request.send(403, "<Error><Code>AccessDenied</Code></Error>"))
    t.build("FROM base\nRUN true\n", "--cache-to", f"type=s3,region=r,bucket=b,endpoint_url=http://{address},use_path_style=true,"
            f"access_key_id=AKIAEXAMPLE,secret_access_key={SECRET},mode=max", "--report", f"{t.dir}/r.html",
            "--metadata-file", f"{t.dir}/m")
    forbidden(t)
