// Attacks of a step on processes, sockets and files outside, which busybox cannot make. Prints `NAME: SUCCEEDED` or
// the error. `attack listen NAME` and `attack serve PATH` are victims.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

// Newer than the headers of some machines; these numbers are the same everywhere.
enum { PIDFD_SEND_SIGNAL = 424, PIDFD_OPEN = 434, PIDFD_GETFD = 438, MAX_DESCRIPTOR = 64 };

static int result(const char *what, int succeeded) {
    printf("%s: %s\n", what, succeeded ? "SUCCEEDED" : strerror(errno));
    return !succeeded;
}

// Returns the length of an abstract address with this name.
static socklen_t abstract(struct sockaddr_un *to, const char *name) {
    memcpy(to->sun_path + 1, name, strlen(name));
    return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}

static int on_process(const char *what, int pid, const char *address) {
    char byte;
    struct iovec own = {&byte, 1}, other = {address ? (void *)strtoul(address, 0, 16) : 0, 1};
    int pidfd = syscall(PIDFD_OPEN, pid, 0);
    if (!strcmp(what, "attach")) return result(what, ptrace(PTRACE_ATTACH, pid, 0, 0) == 0);
    if (!strcmp(what, "seize")) return result(what, ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
    if (!strcmp(what, "readv")) return result(what, process_vm_readv(pid, &own, 1, &other, 1, 0) == 1 || errno == EFAULT);
    if (!strcmp(what, "signal")) return result(what, kill(pid, SIGTERM) == 0);
    if (!strcmp(what, "pidfd")) return result(what, pidfd >= 0 && syscall(PIDFD_SEND_SIGNAL, pidfd, SIGTERM, 0, 0) == 0);
    if (!strcmp(what, "getfd")) {
        int got = -1;
        for (int n = 0; pidfd >= 0 && got < 0 && n < MAX_DESCRIPTOR; n++) got = syscall(PIDFD_GETFD, pidfd, n, 0);
        return result(what, got >= 0);
    }
    return 2;
}

// Leaves the root directory in the classic way (chroot(2)), and tries to reach the content of a file outside.
static int leave(const char *file) {
    mkdir("/deeper", 0755);
    if (chroot("/deeper") == 0) {
        for (int n = 0; n < 64; n++) chdir("..");
        chroot(".");
    }
    int failed = result("read", open(file, O_RDONLY) >= 0);
    failed &= result("write", open(file, O_WRONLY) >= 0);
    failed &= result("truncate", truncate(file, 0) == 0);
    failed &= result("rename", rename(file, "/elsewhere") == 0);
    return failed & result("remove", unlink(file) == 0);
}

// Reaches for a socket with a path: with each call that takes one.
static int reach(struct sockaddr_un *to, const char *path) {
    strncpy(to->sun_path, path, sizeof to->sun_path - 1);
    socklen_t len = sizeof *to;
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_name = to, .msg_namelen = len, .msg_iov = &part, .msg_iovlen = 1};
    struct mmsghdr messages = {message, 0};
    int stream = socket(AF_UNIX, SOCK_STREAM, 0), datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
    int failed = result("connect", connect(stream, (void *)to, len) == 0);
    failed &= result("connect datagrams", connect(datagrams, (void *)to, len) == 0);
    failed &= result("sendto", sendto(datagrams, "x", 1, 0, (void *)to, len) == 1);
    failed &= result("sendmsg", sendmsg(datagrams, &message, 0) == 1);
    return failed & result("sendmmsg", sendmmsg(datagrams, &messages, 1, 0) == 1);
}

// Leaves the root directory in the classic way, and changes what is not content of a file outside.
static int leave_and_change(const char *file) {
    mkdir("/deeper", 0755);
    if (chroot("/deeper") == 0) {
        for (int n = 0; n < 64; n++) chdir("..");
        chroot(".");
    }
    int failed = result("chmod", chmod(file, 0777) == 0);
    failed &= result("chown", chown(file, 12, 34) == 0);
    return failed & result("utime", utimensat(AT_FDCWD, file, NULL, 0) == 0);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *what = argv[1];
    struct sockaddr_un to = {AF_UNIX};
    if (!strcmp(what, "leave")) return !leave(argv[2]);
    if (!strcmp(what, "change")) return !leave_and_change(argv[2]);
    if (!strcmp(what, "reach")) return !reach(&to, argv[2]);
    if (!strcmp(what, "serve")) {
        int stream = socket(AF_UNIX, SOCK_STREAM, 0), datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
        strncpy(to.sun_path, argv[2], sizeof to.sun_path - 10);
        if (bind(stream, (void *)&to, sizeof to) || listen(stream, 1)) return 1;
        strcat(to.sun_path, ".datagram");
        if (bind(datagrams, (void *)&to, sizeof to)) return 1;
        chmod(argv[2], 0777);
        for (;;) pause();
    }
    if (!strcmp(what, "abstract")) {
        socklen_t len = abstract(&to, argv[2]);
        return result(what, connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, len) == 0);
    }
    if (!strcmp(what, "listen")) {
        socklen_t len = abstract(&to, argv[2]);
        int socket_ = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(socket_, (void *)&to, len) || listen(socket_, 1)) return 1;
        for (;;) pause();
    }
    return on_process(what, atoi(argv[2]), argc > 3 ? argv[3] : 0);
}
