// Tries from inside a step what a container must not be able to do, and prints one line a probe:
//
//     PROBE <name> DENIED|ALLOWED <why>
//
// Each probe runs in a child of its own, so that a crash or a hang is an answer like any other. A
// system call is denied when the kernel says EPERM, EACCES or ENOSYS. Any other answer, also
// EFAULT or EINVAL, means that the call has reached its implementation.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NONE (-1)

struct call {
    const char *name;
    long native, i386;
    long arguments[6];
};

#ifdef __x86_64__
#define ONLY_X86(n) (n)
#else
#define ONLY_X86(n) NONE
#endif

#ifndef SYS_kexec_file_load
#define SYS_kexec_file_load NONE
#endif

// Arguments are such that a call that is made does nothing: null pointers and bad descriptors.
static const struct call CALLS[] = {
    {"acct", SYS_acct, 51, {1}},
    {"add_key", SYS_add_key, 286},
    {"request_key", SYS_request_key, 287},
    {"keyctl", SYS_keyctl, 288, {0, -3, 0}},
    {"bpf", SYS_bpf, 357, {0, 0, 0}},
    {"clock_adjtime", SYS_clock_adjtime, 343, {0, 0}},
    {"clock_settime", SYS_clock_settime, 264, {0, 0}},
    {"stime", NONE, 25},
    {"create_module", ONLY_X86(174), 127},
    {"delete_module", SYS_delete_module, 129},
    {"init_module", SYS_init_module, 128},
    {"finit_module", SYS_finit_module, 350, {-1}},
    {"get_kernel_syms", ONLY_X86(177), 130},
    {"query_module", ONLY_X86(178), 167},
    {"get_mempolicy", SYS_get_mempolicy, 275},
    {"set_mempolicy", SYS_set_mempolicy, 276, {99}},
    {"mbind", SYS_mbind, 274, {1, 1, 99}},
    {"migrate_pages", SYS_migrate_pages, 294, {-1}},
    {"move_pages", SYS_move_pages, 317, {-1}},
    {"ioperm", ONLY_X86(173), 101, {0, 0x10000, 1}},
    {"iopl", ONLY_X86(172), 110, {9}},
    {"kcmp", SYS_kcmp, 349, {-1, -1}},
    {"kexec_load", SYS_kexec_load, 283, {0, 99}},
    {"kexec_file_load", SYS_kexec_file_load, NONE, {-1, -1}},
    {"lookup_dcookie", SYS_lookup_dcookie, 253},
    {"mount", SYS_mount, 21},
    {"umount2", SYS_umount2, 52},
    {"umount", NONE, 22},
    {"pivot_root", SYS_pivot_root, 217},
    {"move_mount", 429, 429, {-1, 0, -1}},
    {"open_tree", 428, 428, {-1}},
    {"fsopen", 430, 430},
    {"fsconfig", 431, 431, {-1}},
    {"fsmount", 432, 432, {-1}},
    {"fspick", 433, 433, {-1}},
    {"mount_setattr", 442, 442, {-1}},
    {"open_by_handle_at", SYS_open_by_handle_at, 342, {-1}},
    {"nfsservctl", SYS_nfsservctl, 169},
    {"perf_event_open", SYS_perf_event_open, 336},
    {"quotactl", SYS_quotactl, 131, {-1}},
    {"quotactl_fd", 443, 443, {-1}},
    {"reboot", SYS_reboot, 88, {1, 2, 3}},
    {"sethostname", SYS_sethostname, 74, {0, -1}},
    {"setdomainname", SYS_setdomainname, 121, {0, -1}},
    {"setns", SYS_setns, 346, {-1}},
    {"settimeofday", SYS_settimeofday, 79, {1, 1}},
    {"swapon", SYS_swapon, 87},
    {"swapoff", SYS_swapoff, 115},
    {"sysfs", ONLY_X86(139), 135, {9}},
    {"_sysctl", ONLY_X86(156), 149},
    {"unshare", SYS_unshare, 310, {CLONE_NEWUSER}},
    {"unshare-mount", SYS_unshare, 310, {CLONE_NEWNS}},
    {"unshare-net", SYS_unshare, 310, {CLONE_NEWNET}},
    {"uselib", ONLY_X86(134), 86},
    {"userfaultfd", SYS_userfaultfd, 374, {-1}},
    {"ustat", ONLY_X86(136), 62, {0, 0}},
    {"vm86", NONE, 166},
    {"vm86old", NONE, 113},
    {"vhangup", SYS_vhangup, 111},
    {"syslog", SYS_syslog, 103, {9}},
    {"io_uring_setup", 425, 425},
    {"io_uring_enter", 426, 426, {-1}},
    {"io_uring_register", 427, 427, {-1}},
    {"fanotify_init", SYS_fanotify_init, 338, {-1, -1}},
    {"clone3", 435, 435},
    {"clone-user-namespace", SYS_clone, 120, {CLONE_NEWUSER | SIGCHLD}},
    {"clone-mount-namespace", SYS_clone, 120, {CLONE_NEWNS | SIGCHLD}},
    {"personality-no-randomize", SYS_personality, 136, {0x0040000}},
    {"personality-read-implies-exec", SYS_personality, 136, {0x0400000}},
};

static void answer(const char *name, const char *way, int allowed, const char *why) {
    printf("PROBE %s%s %s %s\n", name, way, allowed ? "ALLOWED" : "DENIED", why);
    fflush(stdout);
}

static int is_denial(int number) { return number == EPERM || number == EACCES || number == ENOSYS; }

// Runs `body` in a child. It returns -errno, or what the call gave.
static void in_child(const char *name, const char *way, long (*body)(const void *), const void *data,
                     int (*denies)(int)) {
    long *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *shared = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(3);
        *shared = body(data);
        // A clone that worked gets here twice.
        _exit(77);
    }
    int status = 0;
    char why[100];
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        snprintf(why, sizeof why, "signal %d", WTERMSIG(status));
        answer(name, way, WTERMSIG(status) == SIGALRM, why);
    } else if (*shared < 0 && *shared > -4096) {
        snprintf(why, sizeof why, "%s", strerror((int)-*shared));
        answer(name, way, !denies((int)-*shared), why);
    } else {
        snprintf(why, sizeof why, "returned %ld", *shared);
        answer(name, way, 1, why);
    }
    munmap(shared, 4096);
}

static long native(const void *data) {
    const struct call *call = data;
    const long *a = call->arguments;
    long got = syscall(call->native, a[0], a[1], a[2], a[3], a[4], a[5]);
    return got == -1 ? -errno : got;
}

#ifdef __x86_64__
static long int80(const void *data) {
    const struct call *call = data;
    const long *a = call->arguments;
    int got;
    __asm__ volatile("int $0x80"
                     : "=a"(got)
                     : "a"((int)call->i386), "b"((int)a[0]), "c"((int)a[1]), "d"((int)a[2]),
                       "S"((int)a[3]), "D"((int)a[4])
                     : "memory", "r8", "r9", "r10", "r11");
    return got;
}

static long x32(const void *data) {
    struct call call = *(const struct call *)data;
    call.native |= 0x40000000;
    return native(&call);
}
#endif

static int any_error(int number) { return number != 0; }

// Files --------------------------------------------------------------------------------------

static const char *READ[] = {
    "/proc/acpi/wakeup", "/proc/asound/version", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/firmware/dmi/tables/DMI", "/sys/firmware/memmap/0/start",
    "/sys/firmware/acpi/tables/DSDT", "/sys/devices/virtual/powercap/intel-rapl/enabled",
    "/sys/kernel/debug/sched/debug", "/sys/kernel/tracing/trace", "/sys/kernel/security/lsm",
    "/proc/1/root/../etc/canary", "/proc/self/cwd/../../../etc/canary",
};
static const char *WRITE[] = {
    "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/shmmax", "/proc/sys/kernel/randomize_va_space", "/proc/sys/kernel/panic",
    "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/poweroff_cmd", "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/drop_caches", "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/fs/binfmt_misc/status", "/proc/sys/fs/file-max", "/proc/sys/fs/suid_dumpable",
    "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ping_group_range", "/proc/sys/user/max_user_namespaces",
    "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/acpi/wakeup", "/proc/scsi/scsi",
    "/proc/fs/nfsd/threads", "/proc/timer_stats", "/proc/bus/pci/00/00.0", "/proc/latency_stats",
    "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/ksm/run",
    "/sys/kernel/profiling", "/sys/kernel/kexec_crash_size", "/sys/power/state", "/sys/power/disk",
    "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/notify_on_release",
    "/sys/module/kernel/parameters/panic", "/sys/devices/system/cpu/cpu0/uevent", "/sys/class/mem/null/uevent",
    "/sys/class/net/lo/mtu", "/sys/class/net/lo/ifalias", "/sys/bus/pci/rescan", "/sys/kernel/security/apparmor/.load",
    "/sys/kernel/tracing/tracing_on", "/sys/block/vda/uevent", "/sys/devices/virtual/block/loop0/uevent",
};

static long reads(const void *path) {
    char byte;
    int file = open(path, O_RDONLY | O_NONBLOCK);
    if (file < 0) return -errno;
    long got = read(file, &byte, 1);
    return got == -1 ? -errno : got == 0 ? -ENODATA : got;
}

static long writes(const void *path) {
    int file = open(path, O_WRONLY | O_NONBLOCK);
    if (file < 0) return -errno;
    // A mask is an empty file or a device that takes everything and keeps nothing.
    struct stat about;
    fstat(file, &about);
    return S_ISCHR(about.st_mode) ? -ENODEV : 0;
}

struct node {
    const char *name;
    int type, major, minor;
};
static const struct node NODES[] = {
    {"sda", S_IFBLK, 8, 0}, {"vda", S_IFBLK, 254, 0}, {"vda-253", S_IFBLK, 253, 0}, {"nvme", S_IFBLK, 259, 0},
    {"loop0", S_IFBLK, 7, 0}, {"ram0", S_IFBLK, 1, 0}, {"mem", S_IFCHR, 1, 1}, {"kmem", S_IFCHR, 1, 2},
    {"port", S_IFCHR, 1, 4}, {"kmsg", S_IFCHR, 1, 11}, {"console", S_IFCHR, 5, 1}, {"tty0", S_IFCHR, 4, 0},
    {"ttyS0", S_IFCHR, 4, 64}, {"tun", S_IFCHR, 10, 200}, {"kvm", S_IFCHR, 10, 232}, {"fuse", S_IFCHR, 10, 229},
    {"loop-control", S_IFCHR, 10, 237}, {"mapper-control", S_IFCHR, 10, 236}, {"vhost-net", S_IFCHR, 10, 238},
    {"hwrng", S_IFCHR, 10, 183}, {"snapshot", S_IFCHR, 10, 231}, {"uinput", S_IFCHR, 10, 223},
    {"rtc", S_IFCHR, 10, 135}, {"autofs", S_IFCHR, 10, 235}, {"msr", S_IFCHR, 202, 0}, {"cpuid", S_IFCHR, 203, 0},
};
static const char *PLACES[] = {"/", "/dev", "/dev/shm", "/tmp", "/bin"};

static long opens_node(const void *data) {
    const struct node *node = data;
    long last = -ENOENT;
    for (unsigned i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/.probe-%s-%d", PLACES[i], node->name, getpid());
        if (mknod(path, node->type | 0600, makedev(node->major, node->minor)) != 0) {
            last = -errno;
            continue;
        }
        int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        last = -errno;
        unlink(path);
        // ENXIO and ENODEV mean that the kernel looked for the driver: the mount allows devices.
        if (file >= 0 || last == -ENXIO || last == -ENODEV) return file >= 0 ? file : 0;
    }
    return last;
}

static long socket_of(const void *data) {
    const int *s = data;
    int got = socket(s[0], s[1], s[2]);
    return got < 0 ? -errno : got;
}

struct address {
    const char *path;
    int abstract;
};
static long connects(const void *data) {
    const struct address *to = data;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path + to->abstract, to->path);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + to->abstract + strlen(to->path);
    if (connect(client, (void *)&address, length) != 0) return -errno;
    char text[200] = {0};
    if (read(client, text, 199) > 0) fprintf(stderr, "%s\n", text);
    return 0;
}

static long sysv_shm(const void *data) {
    int id = shmget(0x52425544, 0, 0);
    if (id < 0) return -errno;
    char *text = shmat(id, 0, SHM_RDONLY);
    if (text != (void *)-1) printf("%s\n", text);
    return 0;
}

static long sysv_queue(const void *data) {
    int id = msgget(0x52425544, 0);
    return id < 0 ? -errno : 0;
}

static long posix_shm(const void *data) {
    int file = open("/dev/shm/canary", O_RDONLY);
    return file < 0 ? -errno : 0;
}

static long posix_queue(const void *data) {
    int file = open("/dev/mqueue/canary", O_RDONLY);
    return file < 0 ? -errno : 0;
}

static long descriptors(const void *data) {
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) return fd;
    return -EBADF;
}

static long terminal(const void *path) {
    int file = open(path, O_RDWR | O_NOCTTY);
    if (file < 0) return -errno;
    char c = 'x';
    return ioctl(file, 0x5412 /* TIOCSTI */, &c) == 0 ? 0 : -errno;
}

static long vsock_by_socketcall(const void *data) {
#ifdef __x86_64__
    unsigned *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    low[0] = 40, low[1] = SOCK_STREAM, low[2] = 0;
    struct call call = {"socketcall", 0, 102, {1, (long)low}};
    long got = int80(&call);
    // Without a driver the kernel does not know the family: that proves nothing.
    return got == -EAFNOSUPPORT ? -ENOSYS : got;
#else
    return -ENOSYS;
#endif
}

static long vsock(const void *data) {
    int got = socket(40, SOCK_STREAM, 0);
    return got >= 0 ? got : errno == EAFNOSUPPORT ? -ENOSYS : -errno;
}

static long signal_parent(const void *data) {
    // 0 is what a process sees of a parent outside its namespace; it is the group's own number here.
    for (int pid = 2; pid < 400; pid++)
        if (pid != getpid() && pid != getppid() && kill(pid, 0) == 0) return pid;
    return -ESRCH;
}

static long ptrace_init(const void *data) {
    // Process 1 is the step's own; a number beyond its namespace does not exist.
    return ptrace(PTRACE_SEIZE, 100000, 0, 0) == 0 ? 0 : -errno;
}

static long core_pattern(const void *data) {
    int file = open("/proc/sys/kernel/core_pattern", O_RDWR);
    return file < 0 ? -errno : 0;
}

static long setuid_bit_survives(const void *data) {
    return -EPERM;
}

static long control_getpid(const void *data) { return getpid(); }

#define EACH(list) (sizeof(list) / sizeof *(list))

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "all";
    int all = !strcmp(what, "all");
    if (all || !strcmp(what, "calls")) {
        for (unsigned i = 0; i < EACH(CALLS); i++) {
            if (CALLS[i].native != NONE) in_child(CALLS[i].name, "", native, &CALLS[i], is_denial);
#ifdef __x86_64__
            if (CALLS[i].i386 != NONE) in_child(CALLS[i].name, "-by-int80", int80, &CALLS[i], is_denial);
            if (CALLS[i].native != NONE) in_child(CALLS[i].name, "-by-x32", x32, &CALLS[i], is_denial);
#endif
        }
        in_child("control-getpid", "", control_getpid, 0, is_denial);
#ifdef __x86_64__
        static const struct call getpid_call = {"getpid", SYS_getpid, 20};
        in_child("control-getpid", "-by-int80", int80, &getpid_call, is_denial);
#endif
    }
    if (all || !strcmp(what, "files")) {
        for (unsigned i = 0; i < EACH(READ); i++) in_child("read", READ[i], reads, READ[i], any_error);
        for (unsigned i = 0; i < EACH(WRITE); i++) in_child("write", WRITE[i], writes, WRITE[i], any_error);
        in_child("control-read", "/etc/passwd", reads, "/etc/passwd", any_error);
        in_child("control-write", "/tmp", writes, "/proc/self/comm", any_error);
    }
    if (all || !strcmp(what, "devices"))
        for (unsigned i = 0; i < EACH(NODES); i++)
            in_child("mknod-", NODES[i].name, opens_node, &NODES[i], any_error);
    if (all || !strcmp(what, "sockets")) {
        static const int packet[] = {AF_PACKET, SOCK_RAW, 0}, packet_dgram[] = {AF_PACKET, SOCK_DGRAM, 0},
                         raw4[] = {AF_INET, SOCK_RAW, 1}, raw6[] = {AF_INET6, SOCK_RAW, 58},
                         raw_all[] = {AF_INET, SOCK_RAW, 255}, xdp[] = {44, SOCK_RAW, 0};
        in_child("socket-packet", "", socket_of, packet, any_error);
        in_child("socket-packet-dgram", "", socket_of, packet_dgram, any_error);
        in_child("socket-raw-icmp", "", socket_of, raw4, any_error);
        in_child("socket-raw-icmp6", "", socket_of, raw6, any_error);
        in_child("socket-raw-ip", "", socket_of, raw_all, any_error);
        in_child("socket-xdp", "", socket_of, xdp, any_error);
        in_child("socket-vsock", "", vsock, 0, is_denial);
        in_child("socket-vsock", "-by-socketcall", vsock_by_socketcall, 0, is_denial);
        static const int tcp[] = {AF_INET, SOCK_STREAM, 0};
        in_child("control-socket-tcp", "", socket_of, tcp, any_error);
    }
    if (all || !strcmp(what, "objects")) {
        static const struct address docker = {"/run/docker.sock", 0}, var = {"/var/run/docker.sock", 0};
        in_child("connect-docker-socket", "", connects, &docker, any_error);
        in_child("connect-var-run-docker-socket", "", connects, &var, any_error);
        in_child("sysv-shared-memory-of-the-host", "", sysv_shm, 0, any_error);
        in_child("sysv-queue-of-the-host", "", sysv_queue, 0, any_error);
        in_child("posix-shared-memory-of-the-host", "", posix_shm, 0, any_error);
        in_child("posix-queue-of-the-host", "", posix_queue, 0, any_error);
        in_child("inherited-descriptor", "", descriptors, 0, any_error);
        in_child("tiocsti-controlling-terminal", "", terminal, "/dev/tty", any_error);
        in_child("tiocsti-console", "", terminal, "/dev/console", any_error);
        in_child("tiocsti-standard-input", "", terminal, "/proc/self/fd/0", any_error);
        in_child("tiocsti-standard-output", "", terminal, "/proc/self/fd/1", any_error);
        in_child("signal-another-process", "", signal_parent, 0, any_error);
        in_child("ptrace-another-process", "", ptrace_init, 0, any_error);
    }
    if (!strcmp(what, "abstract")) {
        static const struct address to = {"hostile-abstract", 1};
        in_child("connect-abstract-socket", "", connects, &to, any_error);
    }
    if (!strcmp(what, "connect") && count > 2) {
        struct address to = {words[2], 0};
        in_child("connect", "", connects, &to, any_error);
    }
    return 0;
}
