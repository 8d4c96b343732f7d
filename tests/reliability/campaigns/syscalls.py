"""Makes one system call of a build fail, with strace."""

import collections
import os
import re

from support import arena
from support.campaign import Campaign
from support.program import Running

ERRORS = ("ENOSPC", "EIO", "EMFILE", "ENOMEM", "EINTR")
# Calls of rbuild itself that may fail. EIO when reading is what a bad disk returns. Not among them are calls for memory
# and for signal handlers: the allocator and the Rust runtime abort when these fail, before `main` too.
OWN = """openat openat2 open creat read pread64 readv write pwrite64 writev copy_file_range sendfile fsync fdatasync
syncfs ftruncate fallocate rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat rmdir mkdir mkdirat
mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown utimensat stat fstat newfstatat statx lstat
getdents64 readlink readlinkat lseek flock fcntl dup dup3 pipe2 socketpair eventfd2 memfd_create
clone clone3 vfork wait4 waitid pidfd_open pidfd_send_signal poll ppoll getrandom setxattr fsetxattr lsetxattr getxattr
fgetxattr lgetxattr listxattr flistxattr llistxattr sched_getaffinity prlimit64 kill statfs fstatfs
mount umount2 fsopen fsconfig fsmount move_mount open_tree mount_setattr unshare setns""".split()
# Calls that only rbuild makes in the process that becomes a step: none of them belongs to a command of the image,
# so only rbuild can ignore such a failure.
CHILD = """mount umount2 fsopen fsconfig fsmount move_mount open_tree mount_setattr pivot_root chroot unshare setns
sethostname prctl capset capget seccomp setgroups setresuid setresgid setsid openat2 clone3 close_range keyctl
socketpair pipe2 dup3 fchdir mknodat memfd_create""".split()
STRACE = ("strace", "-f", "-qq", "-o", "/dev/null")


def run(t):
    if not _can_trace(t):
        t.note("strace cannot trace a process here")
        t.units = 0
        return
    is_child = t.random.random() < 0.3
    # Either strace detaches from what executes another program; or it follows, and the steps are single commands
    # that report their errors.
    dockerfile, detach, names = ("copies", (), CHILD) if is_child else ("app", ("-b", "execve"), OWN)
    start = t.random.choice(("nothing", "nothing", "base")) if not is_child else "nothing"
    out = f"{t.dir}/out.tar"
    build = t.build_arguments(dockerfile, "-t", "app:1", "-o", f"type=oci,dest={out}")
    counts = t.world.remember(("calls", is_child, start), lambda: _count(t, build, start, detach, names))
    call, error = t.random.choice(sorted(counts)), t.random.choice(ERRORS)
    # A call that is always interrupted is rightly repeated for ever, and where no write succeeds, no message does.
    always = error != "EINTR" and call not in ("write", "writev") and t.random.random() < 0.2
    # Once the kernel has random numbers, getrandom(2) fails only where a filter forbids it, and then always.
    if call == "getrandom":
        always, error = True, "EIO" if error == "EINTR" else error
    # The Rust runtime aborts if its own first poll fails, before `main`.
    first = 2 if call == "poll" else 1
    start_at = 1 if call == "getrandom" else t.random.randint(first, max(first, counts[call]))
    when = f"{start_at}{'+' if always else ''}"
    if start != "nothing":
        t.take_store(start)
    inject = (*STRACE, *detach, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")
    t.where = where = f": {call} {error}"
    ended = t.rbuild(*build, wrap=inject)
    if t.right_image(ended, dockerfile, where):
        t.right_archive(out, dockerfile, where)
    _again(t, build, dockerfile, out, where)


def _can_trace(t):
    """Returns whether strace works: containers may forbid ptrace."""
    return t.world.remember("traces", lambda: Running([*STRACE, "true"], env=arena.environment(0)).wait(20).status == 0)


def _again(t, build, dockerfile, out, where):
    """Expects the right image from the same store, and no leftovers, once no call fails."""
    t.age_tmp()
    if os.path.exists(out):
        os.unlink(out)
    if not t.right_image(t.rbuild(*build), dockerfile, " after" + where):
        return t.fail("F", "no build after" + where, "the next build fails, too")
    t.right_archive(out, dockerfile, " after" + where)
    t.no_leftovers()
    if names := [name for name in os.listdir(t.dir) if name.startswith(".rbuild-")]:
        t.fail("L", "drafts beside outputs", " ".join(names))


def _count(t, build, start, detach, names):
    """Returns the maximum number of calls that one thread makes, by name: strace counts by thread."""
    store, log = f"{t.dir}/counted", f"{t.dir}/calls"
    if start != "nothing":
        t.take_store(start, store)
    known = _known(t, names)
    t.rbuild(*build, store=store, seconds=120,
             wrap=("strace", "-f", "-qq", "-o", log, *detach, "-e", "trace=" + ",".join(known)))
    counts = collections.Counter()
    with open(log) as file:
        for line in file:
            if match := re.match(r"(\d+) +(\w+)\(", line):
                counts[match[1], match[2]] += 1
    os.unlink(log)
    most = {}
    for (_, call), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return {call: min(count, 400) for call, count in most.items()}


def _known(t, names):
    """Returns the names that strace knows on this architecture."""

    def is_known(name):
        command = ["strace", "-e", f"trace={name}", "true"]
        return Running(command, env=arena.environment(0)).wait(20).status == 0

    def ask():
        return [name for name in names if is_known(name)]

    return t.world.remember(("strace", len(names)), ask)


CAMPAIGN = Campaign("syscalls", "one system call of a build fails", run, weight=14)
