// A dynamic loader that an image brings: whoever executes a dynamically linked program of the host in
// a step runs this with `/proc/self/exe` leading to that program. Freestanding, so that it needs
// nothing of the program that it was started for.

static long call(long number, long a, long b, long c, long d) {
    long got;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(got) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                  x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    got = x0;
#endif
    return got;
}

#if defined(__x86_64__)
enum { FCHMODAT = 268, OPENAT = 257, WRITE = 1, EXIT = 231, FCHMOD = 91 };
#else
enum { FCHMODAT = 53, OPENAT = 56, WRITE = 64, EXIT = 94, FCHMOD = 52 };
#endif

void _start(void) {
    static const char *const paths[] = {"/proc/self/exe", "/proc/1/exe"};
    static const char text[] = "LOADER-RAN\n";
    for (int i = 0; i < 2; i++) {
        call(FCHMODAT, -100, (long)paths[i], 04777, 0);
        // O_WRONLY gives ETXTBSY as long as the program runs; a handle to it stays when it has ended.
        long file = call(OPENAT, -100, (long)paths[i], 1, 0);
        if (file >= 0) call(WRITE, file, (long)text, 4, 0);
        file = call(OPENAT, -100, (long)paths[i], 0, 0);
        if (file >= 0) call(FCHMOD, file, 04777, 0, 0);
    }
    call(WRITE, 1, (long)text, sizeof text - 1, 0);
    call(EXIT, 0, 0, 0, 0);
}
