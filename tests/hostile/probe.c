// Tries from inside a step what a container must not be able to do. Reads one probe a line from
// standard input and answers with one line each:
//
//     WAY NAME ARGUMENT…            for example: call reboot 169 1 2 3
//     PROBE NAME DENIED|ALLOWED WHY
//
// Each probe runs in a child of its own, so that a crash or a hang is an answer like any other. A
// system call is denied when the kernel says EPERM, EACCES or ENOSYS. Any other answer, also
// EFAULT or EINVAL, means that the call has reached its implementation. Everything else is denied
// when it fails at all.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 10

static long number(const char *word) { return word ? strtol(word, 0, 0) : 0; }

static long call(char **word) {
    long got = syscall(number(word[0]), number(word[1]), number(word[2]), number(word[3]),
                       number(word[4]), number(word[5]), number(word[6]));
    return got == -1 ? -errno : got;
}

#ifdef __x86_64__
static long int80_with(int nr, int a, int b, int c, int d, int e) {
    int got;
    __asm__ volatile("int $0x80"
                     : "=a"(got)
                     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "r8", "r9", "r10", "r11");
    return got;
}

static long int80(char **word) {
    return int80_with(number(word[0]), number(word[1]), number(word[2]), number(word[3]),
                      number(word[4]), number(word[5]));
}

// 32-bit programs make sockets by socketcall, whose arguments a filter cannot see.
static long socketcall(char **word) {
    int *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 3; i++) low[i] = number(word[i]);
    return int80_with(102, 1, 0x10000000, 0, 0, 0);
}
#else
static long int80(char **word) { return -ENOSYS; }
static long socketcall(char **word) { return -ENOSYS; }
#endif

static long reads(char **word) {
    char byte;
    int file = open(word[0], O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return -errno;
    long got = read(file, &byte, 1);
    return got == -1 ? -errno : got == 0 ? -ENODATA : got;
}

static long writes(char **word) {
    struct stat about;
    int file = open(word[0], O_WRONLY | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return -errno;
    fstat(file, &about);
    // What is masked may be a device that takes everything and keeps nothing.
    return S_ISCHR(about.st_mode) ? -ENODEV : 0;
}

static const char *PLACES[] = {"/", "/dev", "/dev/shm", "/tmp", "/bin"};

static long node(char **word) {
    long last = -ENOENT;
    for (unsigned i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/.probe-%d", PLACES[i], getpid());
        mode_t type = word[0][0] == 'b' ? S_IFBLK : S_IFCHR;
        if (mknod(path, type | 0600, makedev(number(word[1]), number(word[2]))) != 0) {
            last = -errno;
            continue;
        }
        int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        last = file < 0 ? -errno : file;
        unlink(path);
        // ENXIO and ENODEV mean that the kernel looked for a driver: the mount allows devices.
        if (file >= 0 || last == -ENXIO || last == -ENODEV) return 0;
    }
    return last;
}

static long makes_socket(char **word) {
    int got = socket(number(word[0]), number(word[1]), number(word[2]));
    return got < 0 ? -errno : got;
}

static long connects(char **word) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int abstract = word[0][0] == '@';
    strncpy(address.sun_path + abstract, word[0] + abstract, sizeof address.sun_path - 2);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(word[0]);
    if (connect(client, (void *)&address, length) != 0) return -errno;
    char text[200] = {0};
    if (read(client, text, 199) > 0) fprintf(stderr, "%s\n", text);
    return 0;
}

static long sysv_shm(char **word) {
    int id = shmget(number(word[0]), 0, 0);
    if (id < 0) return -errno;
    char *text = shmat(id, 0, SHM_RDONLY);
    if (text != (void *)-1) fprintf(stderr, "%s\n", text);
    return 0;
}

static long sysv_queue(char **word) {
    int id = msgget(number(word[0]), 0);
    return id < 0 ? -errno : 0;
}

static long inherited(char **word) {
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0) return fd;
    return -EBADF;
}

static long tiocsti(char **word) {
    char key = 'x';
    int file = open(word[0], O_RDWR | O_NOCTTY);
    if (file < 0) return -errno;
    return ioctl(file, 0x5412, &key) == 0 ? 0 : -errno;
}

static long tioclinux(char **word) {
    char key[2] = {2, 0};
    int file = open(word[0], O_RDWR | O_NOCTTY);
    if (file < 0) return -errno;
    return ioctl(file, 0x541c, key) == 0 ? 0 : -errno;
}

static long signals(char **word) {
    for (int pid = 2; pid < 4096; pid++)
        if (pid != getpid() && pid != getppid() && getpgid(pid) != getpgid(0) && kill(pid, 0) == 0)
            return pid;
    return -ESRCH;
}

static long traces(char **word) {
    for (int pid = 2; pid < 4096; pid++)
        if (pid != getpid() && pid != getppid() && getpgid(pid) != getpgid(0) &&
            ptrace(PTRACE_SEIZE, pid, 0, 0) == 0)
            return pid;
    return -ESRCH;
}

static long changes_mode(char **word) { return chmod(word[0], 0666) == 0 ? 0 : -errno; }

static const struct {
    const char *name;
    long (*run)(char **);
    int is_call;
} WAYS[] = {
    {"call", call, 1},       {"int80", int80, 1},     {"socketcall", socketcall, 0},
    {"read", reads},         {"write", writes},       {"node", node},
    {"socket", makes_socket}, {"connect", connects},  {"shm", sysv_shm},
    {"queue", sysv_queue},   {"inherited", inherited}, {"tiocsti", tiocsti},
    {"tioclinux", tioclinux}, {"signals", signals},   {"traces", traces},
    {"chmod", changes_mode},
};

static int is_denial(int number, int is_call) {
    return !is_call || number == EPERM || number == EACCES || number == ENOSYS;
}

static void probe(char **word) {
    unsigned way = 0;
    while (way < sizeof WAYS / sizeof *WAYS && strcmp(WAYS[way].name, word[0])) way++;
    if (way == sizeof WAYS / sizeof *WAYS) exit(2);
    long *answer = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(3);
        *answer = WAYS[way].run(word + 2);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("PROBE %s ", word[1]);
    if (WIFSIGNALED(status))
        // A call that blocks has been let through; one that is answered by a signal has not.
        printf("%s signal %d\n", WTERMSIG(status) == SIGALRM ? "ALLOWED" : "DENIED", WTERMSIG(status));
    else if (*answer < 0 && *answer > -4096)
        printf("%s %s\n", is_denial(-*answer, WAYS[way].is_call) ? "DENIED" : "ALLOWED",
               strerror(-*answer));
    else
        printf("ALLOWED returned %ld\n", *answer);
    fflush(stdout);
    munmap(answer, 4096);
}

// `probe swap DIR TURNS`: exchanges DIR/x, a directory, and DIR/y, a link, again and again.
static int swap(const char *dir, long turns) {
    if (chdir(dir) != 0) return 1;
    for (long i = 0; i < turns; i++) {
        syscall(SYS_renameat2, AT_FDCWD, "x", AT_FDCWD, "y", 2);
        if (i % 4 == 0) usleep(100);
    }
    return 0;
}

// `probe measure FD PROGRAM…`: runs a program from a small process, so that what the kernel says of
// its memory is its own, and writes its wait status and its largest resident set in KiB to FD.
static int measure(int fd, char **program) {
    int status = 0;
    struct rusage usage;
    pid_t child = fork();
    if (child == 0) {
        close(fd);
        execvp(program[0], program);
        _exit(127);
    }
    while (wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    dprintf(fd, "%d %ld\n", status, usage.ru_maxrss);
    return 0;
}

static void ignore(int signal) {}

int main(int count, char **arguments) {
    char line[4096];
    // The host's copy of this program says so when a step gets it to run.
    if (count > 1 && strcmp(arguments[1], "measure") && !strcmp(arguments[count - 1], "say-who-ran")) return puts("A-PROGRAM-OF-THE-HOST-RAN") < 0;
    if (count > 3 && !strcmp(arguments[1], "measure")) {
        // Signals to the group are for the program; a handler, unlike SIG_IGN, ends with exec.
        for (int number = 1; number < 16; number++) signal(number, ignore);
        return measure(atoi(arguments[2]), arguments + 3);
    }
    if (count == 4 && !strcmp(arguments[1], "swap")) return swap(arguments[2], atol(arguments[3]));
    while (fgets(line, sizeof line, stdin)) {
        char *word[WORDS + 1] = {0};
        int count = 0;
        for (char *at = strtok(line, " \n"); at && count < WORDS; at = strtok(0, " \n")) word[count++] = at;
        if (count >= 2) probe(word);
    }
    return 0;
}
