"""Other users of the machine: modes, predictable names, planted links, stores and outputs of others."""

import os
import stat
import subprocess

from lib import oci, tarball
from lib.suite import Fifo, File, Directory, Link, base_layer, interrupted, row
from lib.world import OTHER_USER, USER

from .checkout import plant_drafts

BUILD = "FROM base\nARG SECRET\nRUN echo hidden-value-$SECRET >/f; chmod 4755 /f\nCOPY file /\n"


def readable_by_others(top):
    """Paths below `top` that another user can read, write or enter, as that user finds them."""
    script = ("import os,sys\nfor f,d,n in os.walk(sys.argv[1]):\n for x in n+d:\n  p=os.path.join(f,x)\n"
              "  if os.access(p,os.R_OK) or os.access(p,os.W_OK):\n   print(p)\n")
    done = subprocess.run(["/usr/bin/python3", "-c", script, top], capture_output=True, text=True, user=OTHER_USER,
                          group=OTHER_USER, extra_groups=[])
    return done.stdout.split("\n")[:-1]


@row("store-is-for-its-owner-alone")
def _(t):
    t.context({"file": "x"})
    t.build(BUILD, "--build-arg", "SECRET=abc", expect="ok")
    for path in readable_by_others(t.store):
        t.count("R", f"another user can read {path}")
        return


for mode in (0o755, 0o777, 0o1777, 0o711):
    def _store(t, mode=mode):
        os.mkdir(t.store)
        os.chmod(t.store, mode)
        t.give(t.store)
        t.context({"file": "x"})
        t.build(BUILD, "--build-arg", "SECRET=abc")
        for path in readable_by_others(t.store):
            t.count("R", f"another user can read {path}")
            return

    row(f"store-directory-existed-with-mode-{mode:o}", cve="CVE-2024-25621")(_store)


PLANTED = ["tmp", "locks", "layers", "blobs", "blobs/sha256", "memo", "cache-mounts", "index.db", "index.db-wal",
           "index.db-shm", "index.db-journal", "version", "builds", "work", "downloads", "images", "tmp/version.1"]


def victim(t):
    t.plant(f"{t.dir}/victim", {"old": "old", "dir/old": "old"}, 0)
    for directory, names, files in os.walk(f"{t.dir}/victim"):
        for name in files + names:
            os.utime(os.path.join(directory, name), (1, 1))
    return tree(f"{t.dir}/victim")


def tree(top):
    found = {}
    for directory, names, files in os.walk(top):
        for name in files + names + ["."]:
            about = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (about.st_mode, about.st_uid, about.st_size, about.st_ctime_ns)
    return found


for name in PLANTED:
    for target in ("victim", "victim/old", "victim/new"):
        def _root(t, name=name, target=target):
            """Root uses the store of a user who put a link there."""
            t.plant(t.store, {name: Link(f"{t.dir}/{target}")}, OTHER_USER)
            os.chown(t.store, OTHER_USER, OTHER_USER)
            for directory, names, _ in os.walk(t.store):
                for each in names:
                    os.chown(os.path.join(directory, each), OTHER_USER, OTHER_USER, follow_symlinks=False)
            before = victim(t)
            t.context({"file": "x"})
            t.build(BUILD)
            t.rbuild("prune", "--all")
            t.rbuild("images")
            if tree(f"{t.dir}/victim") != before:
                t.count("W", "a directory outside the store changed")

        row(f"store-of-a-user-has-{name.replace('/', '-')}-as-link-to-{target.replace('/', '-')}",
            modes=("root",))(_root)

    def _own(t, name=name):
        """A user's own store in which somebody could write once: links there lead out of it."""
        t.plant(t.store, {name: Link("/srv/open")})
        t.give(t.store)
        t.context({"file": "x"})
        t.build(BUILD)
        t.rbuild("prune", "--all")

    row(f"store-has-{name.replace('/', '-')}-as-link")(_own)


@row("store-of-another-user-is-refused", modes=("root",))
def _(t):
    os.mkdir(t.store)
    os.chown(t.store, OTHER_USER, OTHER_USER)
    t.context({"file": "x"})
    t.build(BUILD, expect="fails")


@row("store-in-a-directory-of-another-user", modes=("root", "user"))
def _(t):
    """The owner of the directory above can put another store in its place."""
    os.mkdir(f"{t.dir}/theirs")
    os.chmod(f"{t.dir}/theirs", 0o777)
    os.chown(f"{t.dir}/theirs", OTHER_USER, OTHER_USER)
    t.context({"file": "x"})
    t.build(BUILD, env={"RBUILD_ROOT": f"{t.dir}/theirs/store"})
    for path in readable_by_others(f"{t.dir}/theirs"):
        if path != f"{t.dir}/theirs/store":
            t.count("R", f"another user can read {path}")
            return


@row("store-is-a-link")
def _(t):
    os.mkdir(f"{t.dir}/theirs")
    os.chmod(f"{t.dir}/theirs", 0o1777)
    os.symlink("/srv/open", f"{t.dir}/theirs/store")
    os.chown(f"{t.dir}/theirs/store", OTHER_USER, OTHER_USER, follow_symlinks=False)
    t.context({"file": "x"})
    t.build(BUILD, env={"RBUILD_ROOT": f"{t.dir}/theirs/store"})


@row("store-of-garbage")
def _(t):
    t.plant(t.store, {"index.db": b"\xff" * 100000, "version": "1\x1b[31m" * 10000, "layers": "a file", "tmp": Fifo()})
    t.give(t.store)
    t.build("FROM base\nRUN true\n", seconds=10)
    t.rbuild("images")
    t.rbuild("du")


@row("planted-links-in-tmp", modes=("root", "user"))
def _(t):
    """Names in $TMPDIR that a program with predictable names would use."""
    os.mkdir(f"{t.dir}/tmp")
    os.chmod(f"{t.dir}/tmp", 0o1777)
    home = "/root" if t.mode == "root" else "/home/hostile"
    for pid in range(1, 3000):
        for form in (f"rbuild-{pid}", f"rbuild.{pid}", f".rbuild-{pid}"):
            os.symlink(f"{home}/.bashrc", f"{t.dir}/tmp/{form}")
    for form in ("rbuild", "rbuild.tmp", f"rbuild-{t.owner}", "rbuild.lock"):
        os.symlink(f"{home}/.bashrc", f"{t.dir}/tmp/{form}")
    t.context({"file": "x"})
    t.build(BUILD, env={"TMPDIR": f"{t.dir}/tmp"})
    t.rbuild("build", "--progress=plain", "--build-context", f"base=oci-layout://{t._base}", "-",
             stdin=tarball.archive(tarball.entry("Dockerfile", "FROM base\nRUN true\n")),
             env={"TMPDIR": f"{t.dir}/tmp"})


# Outputs -----------------------------------------------------------------------------------

OUTPUTS = {
    "iidfile": ["--iidfile", "{}"], "metadata-file": ["--metadata-file", "{}"], "report": ["--report", "{}"],
    "oci": ["-o", "type=oci,dest={}"], "docker": ["-o", "type=docker,dest={}"], "tar": ["-o", "type=tar,dest={}"],
}
for name, arguments in OUTPUTS.items():
    def _planted(t, arguments=arguments):
        """Somebody else put a link where the output goes, in a directory for all."""
        os.mkdir(f"{t.dir}/shared")
        os.chmod(f"{t.dir}/shared", 0o1777)
        home = "/root" if t.mode == "root" else "/home/hostile"
        os.symlink(f"{home}/.bashrc", f"{t.dir}/shared/out")
        os.chown(f"{t.dir}/shared/out", OTHER_USER, OTHER_USER, follow_symlinks=False)
        t.context({"file": "x"})
        t.build(BUILD, *[word.format(f"{t.dir}/shared/out") for word in arguments])

    row(f"output-{name}-through-a-planted-link", cve="GHSA-g2h8")(_planted)

    def _drafts(t, arguments=arguments):
        os.mkdir(f"{t.dir}/shared")
        os.chmod(f"{t.dir}/shared", 0o1777)
        t.context({"file": "x"})
        plant_drafts(t, "out", f"{t.dir}/shared")
        t.build(BUILD, *[word.format(f"{t.dir}/shared/out") for word in arguments])

    row(f"output-{name}-has-no-predictable-draft")(_drafts)

    def _dockerfile(t, arguments=arguments):
        """The checkout brings the link: `--iidfile id` beside it is a usual command."""
        home = "/root" if t.mode == "root" else "/home/hostile"
        t.context({"file": "x", "out": Link(f"{home}/.bashrc")})
        t.build(BUILD, *[word.format(f"{t.ctx}/out") for word in arguments])

    row(f"output-{name}-through-a-link-of-the-checkout")(_dockerfile)

    def _fifo(t, arguments=arguments):
        os.mkfifo(f"{t.dir}/out", 0o666)
        t.context({"file": "x"})
        # To wait for a reader is what writing to a FIFO means; to be deaf meanwhile is not.
        interrupted(t, lambda: t.build(BUILD, *[word.format(f"{t.dir}/out") for word in arguments]))

    row(f"output-{name}-is-a-fifo-without-a-reader")(_fifo)


@row("local-output-through-planted-links", cve="GHSA-g2h8")
def _(t):
    """DIR has links under the names that the image has."""
    t.plant(f"{t.dir}/out", {"bin": Link("/srv/open"), "etc": Link("/etc"), "file": Link("/srv/open/file"),
                             "f": Link("/tmp/canary"), "sub/x": Link("/srv/open"), "root": Link("/root")})
    t.give(f"{t.dir}/out")
    t.context({"file": "x"})
    t.build("FROM base\nRUN mkdir -p /sub/x; echo x >/sub/x/new; echo x >/etc/canary; echo x >/root/.bashrc\nCOPY file /\n",
            "-o", f"{t.dir}/out")


@row("local-output-is-a-link", cve="GHSA-g2h8")
def _(t):
    os.symlink("/srv/open", f"{t.dir}/out")
    t.context({"file": "x"})
    # A link that the caller made is the caller's choice; one of another user in a directory for all is not.
    os.mkdir(f"{t.dir}/shared")
    os.chmod(f"{t.dir}/shared", 0o1777)
    os.symlink("/srv/open", f"{t.dir}/shared/out")
    os.chown(f"{t.dir}/shared/out", OTHER_USER, OTHER_USER, follow_symlinks=False)
    t.build("FROM scratch\nCOPY file /new\n", "-o", f"{t.dir}/shared/out")


def special_image(t):
    t.base(oci.Image([base_layer(), tarball.archive(
        tarball.entry("disk", type="4", major=254, minor=0, mode=0o666),
        tarball.entry("zero", type="3", major=1, minor=5, mode=0o666), tarball.entry("pipe", type="6"),
        tarball.entry("su", "x", mode=0o4755), tarball.entry("sg", "x", mode=0o2755),
        tarball.entry("cap", "x", mode=0o755, records={"SCHILY.xattr.security.capability":
                                                        b"\x01\x00\x00\x02" + b"\xff" * 16}),
        tarball.directory("open", 0o4777))]))


@row("local-output-makes-no-devices-and-no-set-id-programs")
def _(t):
    special_image(t)
    t.build("FROM base\nRUN true\n", "-o", f"{t.dir}/out")
    for directory, names, files in os.walk(f"{t.dir}/out"):
        for name in files + names:
            about = os.lstat(os.path.join(directory, name))
            if stat.S_ISBLK(about.st_mode) or stat.S_ISCHR(about.st_mode):
                t.count("W", f"{name} is a device")
            if stat.S_ISREG(about.st_mode) and about.st_mode & 0o6000:
                t.count("W", f"{name} has mode {about.st_mode:o}")
            if "security.capability" in os.listxattr(os.path.join(directory, name), follow_symlinks=False):
                t.count("W", f"{name} has capabilities")


@row("control-outputs-are-written")
def _(t):
    t.context({"file": "x"})
    t.build(BUILD, "-o", f"{t.dir}/out", "-o", f"type=tar,dest={t.dir}/t", "-o", f"type=oci,dest={t.dir}/o",
            "--iidfile", f"{t.dir}/i", "--metadata-file", f"{t.dir}/m", "--report", f"{t.dir}/r", expect="ok")
    for name in ("out/file", "t", "o", "i", "m", "r"):
        if not os.path.exists(f"{t.dir}/{name}"):
            t.fail(f"{name} was not written")
