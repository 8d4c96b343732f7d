"""The inputs of all campaigns: a base image, a context, Dockerfiles. They are the same in every run."""

import hashlib
import os
import random

from lib import oci, tarball

# The last step of most Dockerfiles reads every file of the image, so that any damage changes the image id. It leaves
# out what rbuild mounts into a step.
WITNESS = ("find / -xdev -type f ! -path '/etc/resolv.conf' ! -path '/etc/hosts' ! -path '/etc/hostname'"
           " ! -path '/proc/*' ! -path '/sys/*' ! -path '/dev/*' ! -path '/tmp/*' | sort > /tmp/names"
           " && xargs stat -c '%n %a %u %g %s' < /tmp/names > /witness"
           " && xargs sha256sum < /tmp/names >> /witness && rm /tmp/names")

_STAGES = f"""FROM base AS tool
COPY src/ /src/
RUN set -e; mkdir -p /out/d; sha256sum /src/*.txt > /out/sums; cp /data/noise /out/d/noise; ln -s sums /out/link; \\
    rm /data/words; chmod 700 /data/small
FROM base
WORKDIR /app
COPY --from=tool /out/ /usr/local/
COPY src/a.txt src/b.txt ./
RUN --mount=type=cache,target=/cache --mount=type=bind,source=src,target=/context \\
    set -e; cat /context/*.txt > all; cp all /cache/all; rm /etc/motd; chown 5:6 a.txt
ENV MODE=test
"""

DOCKERFILES = {
    "app": _STAGES + f"RUN {WITNESS}\nCMD [\"sh\"]\n",
    # Shares all but the last steps with `app`, which are then cached.
    "next": _STAGES + f"COPY --from=tool /data/ /copied/\nCOPY --from=base /data/small/ /small/\nRUN {WITNESS}\n",
    # Only steps of one command each, which reports its errors, and no pipelines.
    "copies": "FROM base AS tool\nCOPY src/ /src/\nRUN [\"/bin/cp\", \"-a\", \"/data/noise\", \"/src/copy\"]\n"
              "FROM base\nCOPY --from=tool /src/ /src/\nWORKDIR /src\n"
              "RUN [\"/bin/cp\", \"-a\", \"a.txt\", \"c.txt\"]\n",
}
# A step that waits for a signal.
DOCKERFILES["slow"] = "FROM base\nRUN sleep 20\n"
# A step that writes more than a small disk holds.
DOCKERFILES["large"] = "FROM base\nRUN dd if=/dev/zero of=/large bs=1M count=200\n"
# Four that share some of their steps, for processes that build at the same time. Their first step on the base image
# takes longer in some than in others: a process that ends must not affect one that still runs.
for _number in range(4):
    DOCKERFILES[f"many-{_number}"] = (
        f"FROM base AS tool\nCOPY src/ /src/\nRUN sha256sum /src/*.txt > /sums\nFROM base\n"
        f"RUN set -e; sleep {_number / 2}; cat /data/*/* /bin/busybox /etc/motd | sha256sum > /read-{_number}\n"
        f"COPY --from=tool /sums /sums\nRUN echo {_number % 2} > /half\nRUN {WITNESS}\n")


# Two on the same base image, of which one ends while the step of the other still runs and goes on to read files.
for _name, _seconds in (("short", 0.1), ("long", 0.8)):
    DOCKERFILES[_name] = f"FROM base\nRUN sleep {_seconds}; cat /data/noise /bin/busybox | sha256sum > /{_name}\n"

# When every file of the context was modified.
TIME_NS = 1_600_000_000_123_456_789


def noise(name, size):
    """Returns incompressible bytes, the same for the same name."""
    return random.Random(name).randbytes(size)


def words(name, size):
    choice = random.Random(name)
    text = " ".join(choice.choice(("layer", "step", "image", "store", "digest")) for _ in range(size // 5))
    return text[:size].encode()


def base_image():
    """Returns an image of two layers: busybox with some data, and one that adds, replaces and removes files."""
    with open("/bin/busybox", "rb") as file:
        busybox = file.read()
    parts = [tarball.directory(name) for name in
             ("bin", "etc", "root", "usr", "usr/local", "var", "data", "data/small", "data/gone")]
    parts.append(tarball.directory("tmp", 0o1777))
    parts.append(tarball.entry("bin/busybox", busybox, mode=0o755))
    parts += [tarball.symlink(f"bin/{name}", "busybox") for name in oci.APPLETS]
    parts += [tarball.symlink(f"bin/{name}", "busybox") for name in ("sha256sum", "dd")]
    parts.append(tarball.entry("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n"))
    parts.append(tarball.entry("etc/group", "root:x:0:\napp:x:1000:\n"))
    parts.append(tarball.entry("etc/motd", "first\n"))
    parts.append(tarball.entry("data/words", words("words", 60_000)))
    parts.append(tarball.entry("data/noise", noise("noise", 200_000)))
    parts.append(tarball.entry("data/gone/file", "removed by the next layer\n"))
    parts += [tarball.entry(f"data/small/{number:02}", noise(f"small-{number}", 100 + 37 * number))
              for number in range(30)]
    second = [tarball.directory("etc"), tarball.entry("etc/motd", "second\n"), tarball.directory("data"),
              tarball.entry("data/.wh.gone"), tarball.entry("data/more", words("more", 9_000), uid=7, gid=8)]
    return oci.Image([oci.gzipped(tarball.archive(*parts)), tarball.archive(*second)])


def write_context(directory):
    """Writes a context of about 500 kB, and the Dockerfiles beside it."""
    os.makedirs(f"{directory}/context/src/deep/er", exist_ok=True)
    for name, data in context_files().items():
        with open(f"{directory}/context/src/{name}", "wb") as file:
            file.write(data)
    for name, text in DOCKERFILES.items():
        with open(f"{directory}/{name}.Dockerfile", "w") as file:
            file.write(text)
    # Times with fractions of a second: where they are whole, rbuild assumes a file system with coarse times and
    # does not remember the hash of a file that is younger than two seconds.
    for top, names, files in os.walk(directory, topdown=False):
        for name in names + files:
            os.utime(f"{top}/{name}", ns=(TIME_NS, TIME_NS), follow_symlinks=False)


def context_files():
    files = {f"{name}.txt": words(f"context-{name}", 3_000) for name in "abcdefgh"}
    files["noise.bin"] = noise("context", 300_000)
    files["deep/er/file.txt"] = words("deep", 70_000)
    files["deep/empty.txt"] = b""
    return files


def sums():
    """Returns what `sha256sum /src/*.txt` prints in the stage `tool`."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  /src/{name}\n" for name, data in
                   sorted(context_files().items()) if "/" not in name and name.endswith(".txt")).encode()
