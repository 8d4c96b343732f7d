"""Builds on disks with too little space or too few inodes."""

import os
import subprocess

from lib import kernel
from support.campaign import Campaign

# Texts of which a message about a full disk has at least one.
FULL = ("no space left", "disk is full", "disk full", "enospc", "file system of the store is full", "out of space",
        "free some space", "inodes left")
SCENARIOS = ("bytes", "bytes", "files", "filled later", "output", "step", "ext4", "ext4 files")


def run(t):
    scenario = SCENARIOS[t.number % len(SCENARIOS)]
    disk = t.directory("disk")
    t.store = f"{disk}/store"
    peak = t.world.remember("peak", lambda: _peak(t))
    t.note(f"{scenario}; a build takes {peak[0]} KiB and {peak[1]} files at most")
    if scenario.startswith("ext4") and not _has_loop(t):
        t.units = 0
        return
    globals()["_" + scenario.replace(" ", "_")](t, disk, peak)
    t.no_processes()


# Scenarios ----------------------------------------------------------------------------------


def _bytes(t, disk, peak):
    _mount(t, disk, kibibytes=2 * peak[0] + 4096)
    # From none at all to a little more than enough.
    left = int(peak[0] * t.random.uniform(0, 1.05))
    _fill(t, disk, left)
    _build_on_full(t, disk)


def _files(t, disk, peak):
    files = max(3, int(peak[1] * t.random.uniform(0, 1.05)))
    t.note(f"{files} files")
    _mount(t, disk, kibibytes=4 * peak[0], files=files)
    _build_on_full(t, disk, free=lambda: kernel.mount(None, disk, None, kernel.MS_REMOUNT, f"nr_inodes={4 * peak[1]}"))


def _filled_later(t, disk, peak):
    """Fills the disk of a store that was made when there was space."""
    _mount(t, disk, kibibytes=3 * peak[0] + 8192)
    t.take_store("built")
    _fill(t, disk, t.random.choice((0, 0, 4, 40)))
    _maintain(t, disk)


def _output(t, disk, peak):
    """Writes an output to a full disk; the store is on another one."""
    _mount(t, disk, kibibytes=4096)
    t.store = f"{t.dir}/store"
    t.take_store("built")
    _fill(t, disk, t.random.choice((0, 4, 100, 600)))
    out = f"{disk}/image.tar"
    ended = t.rbuild(*t.build_arguments("app", "-o", f"type=oci,dest={out}"))
    if t.right_image(ended, "app", " on a full disk"):
        t.right_archive(out, where=" on a full disk")
    else:
        _says_so(t, ended)
    _free(t, disk)
    if t.right_image(t.rbuild(*t.build_arguments("app", "-o", f"type=oci,dest={out}")), "app", " after a full disk"):
        t.right_archive(out, where=" after a full disk")
    if names := [name for name in os.listdir(disk) if name not in ("image.tar", "filler")]:
        t.fail("L", "drafts beside outputs", " ".join(names))


def _step(t, disk, peak):
    """Runs a step that writes more than the disk holds."""
    _mount(t, disk, kibibytes=peak[0] + 20_000)
    ended = t.rbuild(*t.build_arguments("large"))
    if ended.status == 0:
        t.fail("W", "image of a step that failed", "200 MiB are more than the disk has, and the build succeeded")
    _says_so(t, ended)
    _again(t, disk)


def _ext4(t, disk, peak):
    _mount_ext4(t, disk, 2 * peak[0] + 16_384)
    _fill(t, disk, int(peak[0] * t.random.uniform(0, 1.05)))
    _build_on_full(t, disk)


def _ext4_files(t, disk, peak):
    files = max(16, int(peak[1] * t.random.uniform(0, 1.0)))
    _mount_ext4(t, disk, 3 * peak[0] + 16_384, ("-N", str(files + 11)))
    _build_on_full(t, disk, free=None)


# Parts --------------------------------------------------------------------------------------


def _build_on_full(t, disk, free="filler"):
    """Builds with too little space; then cleans up, or not; then builds with enough."""
    ended = t.rbuild(*t.build_arguments("app", "-t", "app"))
    if t.right_image(ended, "app", " on a full disk"):
        return
    _says_so(t, ended)
    # Where not even an empty store found space, the index is an empty file, and there is nothing to clean up.
    index = f"{t.store}/index.db"
    if t.random.random() < 0.5 and os.path.exists(index) and os.path.getsize(index) > 0:
        _maintain(t, disk, free)
    else:
        _again(t, disk, free)


def _maintain(t, disk, free="filler"):
    """Expects `du`, `rmi` and `prune` to work on a full disk."""
    for command in (("du",), ("rmi", "-f", "app"), ("prune",), ("prune", "--all")):
        ended = t.rbuild(*command)
        if ended.status != 0:
            t.fail("F", f"{command[0]} on a full disk", f"{' '.join(command)} ended with {ended.status}", ended)
            _says_so(t, ended)
    _again(t, disk, free)


def _again(t, disk, free="filler"):
    """Frees space, and expects the right image from the same store."""
    if free is None:
        # The number of inodes of this file system is fixed.
        return
    if callable(free):
        free()
    else:
        _free(t, disk)
    t.age_tmp()
    ended = t.rbuild(*t.build_arguments("app", "-t", "app"))
    if t.right_image(ended, "app", " after a full disk"):
        t.no_leftovers()
    else:
        t.fail("F", "no build after a full disk", f"there is space now, and it ended with {ended.status}", ended)


def _says_so(t, ended):
    if ended.status == 0 or ended.is_crash or ended.timed_out:
        return
    if not any(word in ended.text.lower() for word in FULL):
        t.fail("F", "message does not say that the disk is full", f"status {ended.status}", ended)


def _mount(t, disk, kibibytes, files=0):
    kernel.mount("disk", disk, "tmpfs", 0, f"size={kibibytes}k,nr_inodes={files}")
    t.mounted.append(disk)
    os.chown(disk, t.owner, t.owner)


def _mount_ext4(t, disk, kibibytes, options=()):
    image = f"{t.dir}/disk.img"
    with open(image, "wb") as file:
        file.truncate(kibibytes << 10)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", *options, image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True, timeout=60)
    t.mounted.append(disk)


def _fill(t, disk, left):
    """Fills the disk up to `left` KiB."""
    about = os.statvfs(disk)
    take = about.f_bavail * about.f_frsize - (left << 10)
    t.note(f"{left} KiB are left of {about.f_blocks * about.f_frsize >> 10}")
    try:
        with open(f"{disk}/filler", "wb") as file:
            while take > 0:
                take -= file.write(bytes(min(take, 1 << 16)))
    except OSError:
        # The file system may need some of the space for itself.
        pass


def _free(t, disk):
    if os.path.exists(f"{disk}/filler"):
        os.unlink(f"{disk}/filler")


def _peak(t):
    """Returns the peak of KiB and of inodes during a build in a new store."""
    directory = t.directory("measured")
    # Where inodes are not bounded, they are not counted either.
    _mount(t, directory, kibibytes=256 << 10, files=100_000)
    running = t.start(*t.build_arguments("app", "-t", "app"), store=f"{directory}/store")
    most_bytes = most_files = 0
    while running.process.poll() is None:
        about = os.statvfs(directory)
        most_bytes = max(most_bytes, (about.f_blocks - about.f_bfree) * about.f_frsize >> 10)
        most_files = max(most_files, about.f_files - about.f_ffree)
    running.wait()
    kernel.umount(directory)
    return most_bytes, most_files


def _has_loop(t):
    """Returns whether an ext4 image can be mounted: containers often have no loop devices."""

    def ask():
        probe = t.directory("probe")
        try:
            _mount_ext4(t, probe, 8192)
        except (OSError, subprocess.SubprocessError):
            return False
        kernel.umount(probe)
        return True

    return t.world.remember("loop", ask)


CAMPAIGN = Campaign("disks", "disks without space or without files", run, weight=8)
