// Prints the answers of system calls, one a line, to compare two containers: `unshare(CLONE_NEWUSER) EPERM`.
//
// With the argument `numbers` it makes every call up to 519 with -1 for each argument, which no call accepts; this
// is for containers that deny reboot(2) and the like. Each call is made in a process of its own.

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

// Newer than the headers of some machines; these numbers are the same everywhere.
enum { OPEN_TREE = 428, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK, PIDFD_OPEN, CLONE3, OPENAT2 = 437, PIDFD_GETFD,
       FACCESSAT2, MOUNT_SETATTR = 442, LANDLOCK_CREATE_RULESET = 444, MEMFD_SECRET = 447, STATMOUNT = 457, LISTMOUNT };

static char scratch[4096];

static void report(const char *name, int error, int signal) {
    if (signal)
        printf("%s killed by signal %d\n", name, signal);
    else
        printf("%s %s\n", name, error ? strerrorname_np(error) : "works");
    fflush(stdout);
}

// A child exits with the errno of its call.
static void report_child(const char *name, pid_t child) {
    int status;
    waitpid(child, &status, 0);
    report(name, WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

// The expression is a call that returns -1 with errno.
#define TRY(name, expression)                                                                                          \
    do {                                                                                                               \
        pid_t child = fork();                                                                                          \
        if (child == 0) {                                                                                              \
            alarm(5);                                                                                                  \
            errno = 0;                                                                                                 \
            _exit((long)(expression) < 0 ? errno : 0);                                                                 \
        }                                                                                                              \
        report_child(name, child);                                                                                     \
    } while (0)

static long write_to(const char *path) {
    int file = open(path, O_WRONLY);
    return file < 0 ? -1 : 0;
}

static long read_from(const char *path) {
    int file = open(path, O_RDONLY);
    return file < 0 ? -1 : read(file, scratch, 1);
}

// A call of clone or clone3 that succeeds has a child as well.
static long without_child(long result) {
    if (result == 0) _exit(0);
    return result;
}

static long clone3(uint64_t flags) {
    uint64_t arguments[11] = {flags, 0, 0, 0, SIGCHLD};
    return without_child(syscall(CLONE3, arguments, sizeof arguments));
}

// Seccomp with a supervisor: the descriptor with which another process answers calls.
static long seccomp_listener(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static long trace_child(void) {
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    long result = ptrace(PTRACE_SEIZE, child, 0, 0);
    int error = errno;
    kill(child, SIGKILL);
    errno = error;
    return result;
}

static long memory_of_child(int writes) {
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    struct iovec own = {scratch, 16};
    long result = syscall(writes ? SYS_process_vm_writev : SYS_process_vm_readv, child, &own, 1, &own, 1, 0);
    int error = errno;
    kill(child, SIGKILL);
    errno = error;
    return result;
}

static long new_device(mode_t kind, int major, int minor) {
    unlink("/tmp/device");
    return mknod("/tmp/device", kind | 0600, makedev(major, minor));
}

static long file(void) {
    int descriptor = open("/tmp/file", O_CREAT | O_RDWR, 0600);
    return descriptor;
}

static long attribute(const char *name, const void *value, size_t size) {
    return file() < 0 ? -1 : setxattr("/tmp/file", name, value, size, 0);
}

static void namespaces_and_mounts(void) {
    TRY("unshare(0)", unshare(0));
    TRY("unshare(CLONE_NEWUSER)", unshare(CLONE_NEWUSER));
    TRY("unshare(CLONE_NEWNS)", unshare(CLONE_NEWNS));
    TRY("unshare(CLONE_FILES)", unshare(CLONE_FILES));
    TRY("setns", syscall(SYS_setns, -1, 0));
    TRY("clone(CLONE_NEWUSER)", without_child(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)));
    TRY("clone(CLONE_NEWPID)", without_child(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)));
    TRY("clone(SIGCHLD)", without_child(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
    TRY("clone3(0)", clone3(0));
    TRY("clone3(CLONE_NEWUSER)", clone3(CLONE_NEWUSER));
    TRY("mount(tmpfs)", mount("x", "/tmp/mounted", "tmpfs", 0, ""));
    TRY("mount(MS_BIND)", mount("/bin", "/tmp/mounted", "", MS_BIND, ""));
    TRY("umount2", umount2("/proc/none", 0));
    TRY("pivot_root", syscall(SYS_pivot_root, "/none", "/none"));
    TRY("open_tree", syscall(OPEN_TREE, AT_FDCWD, "/", 1));
    TRY("move_mount", syscall(MOVE_MOUNT, -1, "", -1, "", 0));
    TRY("fsopen", syscall(FSOPEN, "tmpfs", 0));
    TRY("fsconfig", syscall(FSCONFIG, -1, 0, 0, 0, 0));
    TRY("fsmount", syscall(FSMOUNT, -1, 0, 0));
    TRY("fspick", syscall(FSPICK, AT_FDCWD, "/", 0));
    TRY("mount_setattr", syscall(MOUNT_SETATTR, -1, "", 0, 0, 0));
    TRY("statmount", syscall(STATMOUNT, 0, 0, 0, 0));
    TRY("listmount", syscall(LISTMOUNT, 0, 0, 0, 0));
    TRY("chroot", chroot("/tmp"));
}

static void processes(void) {
    TRY("ptrace(PTRACE_TRACEME)", ptrace(PTRACE_TRACEME, 0, 0, 0));
    TRY("ptrace(PTRACE_SEIZE) of a child", trace_child());
    TRY("process_vm_readv of a child", memory_of_child(0));
    TRY("process_vm_writev of a child", memory_of_child(1));
    TRY("seccomp(SECCOMP_GET_ACTION_AVAIL)",
        syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &(uint32_t){SECCOMP_RET_USER_NOTIF}));
    TRY("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)", seccomp_listener());
    TRY("pidfd_open", syscall(PIDFD_OPEN, getpid(), 0));
    TRY("pidfd_getfd", syscall(PIDFD_GETFD, syscall(PIDFD_OPEN, getpid(), 0), 1, 0));
    TRY("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1));
    TRY("landlock_create_ruleset", syscall(LANDLOCK_CREATE_RULESET, 0, 0, 1));
    TRY("personality(ADDR_NO_RANDOMIZE)", syscall(SYS_personality, 0x40000));
    TRY("personality(PER_LINUX32)", syscall(SYS_personality, 8));
    TRY("prctl(PR_CAPBSET_DROP)", prctl(PR_CAPBSET_DROP, 0, 0, 0, 0));
    TRY("prctl(PR_SET_NO_NEW_PRIVS)", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    TRY("setuid(0)", syscall(SYS_setuid, 0));
    TRY("setuid(1234)", syscall(SYS_setuid, 1234));
    TRY("setgid(1234)", syscall(SYS_setgid, 1234));
    TRY("setgroups", syscall(SYS_setgroups, 0, 0));
    TRY("sethostname", sethostname("a", 1));
    TRY("kill(1, 0)", kill(1, 0));
}

static void files(void) {
    TRY("open(/tmp/file)", file());
    TRY("chown", file() < 0 ? -1 : chown("/tmp/file", 12, 34));
    TRY("chmod(04755)", file() < 0 ? -1 : chmod("/tmp/file", 04755));
    TRY("mknod(c 1:3)", new_device(S_IFCHR, 1, 3));
    TRY("mknod(c 1:3) and open", new_device(S_IFCHR, 1, 3) < 0 ? -1 : open("/tmp/device", O_RDWR));
    TRY("mknod(b 7:0)", new_device(S_IFBLK, 7, 0));
    TRY("mknod(c 0:0)", new_device(S_IFCHR, 0, 0));
    TRY("mknod(pipe)", new_device(S_IFIFO, 0, 0));
    TRY("setxattr(user)", attribute("user.a", "b", 1));
    TRY("setxattr(trusted)", attribute("trusted.a", "b", 1));
    TRY("setxattr(trusted.overlay)", attribute("trusted.overlay.a", "b", 1));
    TRY("setxattr(security.capability)", attribute("security.capability", "\1\0\0\2\0\40\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20));
    TRY("openat2", syscall(OPENAT2, AT_FDCWD, "/", &(uint64_t[3]){O_RDONLY}, 24));
    TRY("faccessat2", syscall(FACCESSAT2, AT_FDCWD, "/", R_OK, 0));
    TRY("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", scratch, scratch, -1));
    TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, scratch, O_RDONLY));
    TRY("memfd_create", syscall(SYS_memfd_create, "a", 0));
    TRY("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
    TRY("quotactl", syscall(SYS_quotactl, -1, 0, 0, 0));
    const char *written[] = {"/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/self/oom_score_adj",
                             "/proc/self/uid_map", "/sys/kernel/uevent_seqnum", "/etc/hosts", "/none", "/dev/null", "/dev/full"};
    for (size_t n = 0; n < sizeof written / sizeof *written; n++) {
        snprintf(scratch, sizeof scratch, "open(%s, O_WRONLY)", written[n]);
        TRY(scratch, write_to(written[n]));
    }
    const char *reads[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/kmsg", "/proc/1/environ",
                           "/sys/firmware/none", "/dev/kmsg", "/dev/zero", "/dev/mem"};
    for (size_t n = 0; n < sizeof reads / sizeof *reads; n++) {
        char name[64];
        snprintf(name, sizeof name, "read(%s)", reads[n]);
        TRY(name, read_from(reads[n]));
    }
}

static void kernel(void) {
    TRY("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    TRY("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    TRY("request_key", syscall(SYS_request_key, "user", "a", 0, 0));
    TRY("userfaultfd", syscall(SYS_userfaultfd, 1));
    TRY("bpf", syscall(SYS_bpf, -1, 0, 0));
    TRY("perf_event_open", syscall(SYS_perf_event_open, scratch, 0, -1, -1, 0));
    TRY("io_uring_setup", syscall(SYS_io_uring_setup, 0, 0));
    TRY("memfd_secret", syscall(MEMFD_SECRET, 0x10));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 99, 0, -1));
    TRY("init_module", syscall(SYS_init_module, 0, 0, 0));
    TRY("delete_module", syscall(SYS_delete_module, "none", O_NONBLOCK));
    TRY("swapon", syscall(SYS_swapon, "/none", 0));
    TRY("acct", syscall(SYS_acct, "/none/none"));
    TRY("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    TRY("settimeofday", syscall(SYS_settimeofday, 0, &(int[2]){-1, 99999}));
    TRY("syslog", syscall(SYS_syslog, 10, 0, 0));
    TRY("socket(AF_VSOCK)", socket(40, SOCK_STREAM, 0));
    TRY("socket(AF_PACKET)", socket(AF_PACKET, SOCK_RAW, 0));
    TRY("socket(AF_INET, SOCK_RAW)", socket(AF_INET, SOCK_RAW, 1));
    TRY("socket(AF_INET, SOCK_STREAM)", socket(AF_INET, SOCK_STREAM, 0));
    TRY("socket(AF_ALG)", socket(38, SOCK_SEQPACKET, 0));
}

// Calls that wait, or that end this process or others.
static int is_left_out(long number) {
    const long numbers[] = {
        SYS_read, SYS_rt_sigreturn, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill, SYS_tkill, SYS_tgkill,
        SYS_setpgid, SYS_setsid, SYS_rt_sigsuspend, SYS_vhangup, SYS_reboot, 424,
#ifdef SYS_fork
        SYS_fork, SYS_vfork, SYS_pause, SYS_select,
#endif
    };
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
        if (numbers[n] == number) return 1;
    return 0;
}

static void all_numbers(void) {
    for (long number = 0; number < 520; number++) {
        if (is_left_out(number)) continue;
        char name[16];
        snprintf(name, sizeof name, "%ld", number);
        TRY(name, syscall(number, -1L, -1L, -1L, -1L, -1L, -1L));
    }
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "numbers") == 0) {
        all_numbers();
        return 0;
    }
    mkdir("/tmp/mounted", 0755);
    namespaces_and_mounts();
    processes();
    files();
    kernel();
    return 0;
}
