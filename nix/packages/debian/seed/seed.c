/* The first program of the Debian package set: a sandbox on a bare machine holds none, and of Nix's own builders one
   fetches a .deb and one unpacks a tar, but none opens a .deb.

     seed ARCHIVE MEMBER OUT     one file of an ar archive

   Freestanding, as ../../../start/start.c is; compiled by ../../../start/build.sh. */

#if defined __x86_64__
enum { READ = 0, WRITE = 1, EXIT = 60, OPENAT = 257 };
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");

static long sys(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#elif defined __aarch64__
enum { OPENAT = 56, READ = 63, WRITE = 64, EXIT = 93 };
__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");

static long sys(long number, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#endif

enum { CURRENT_FOLDER = -100, NEW_FILE = 01 | 0100 | 01000 /* to write, to create, to empty */, BLOCK = 65536 };
enum { MAGIC = 8, HEADER = 60, SIZE = 48, DIGITS = 10 }; /* ar(5) */

static char block[BLOCK];

static long length(const char *s) {
    long n = 0;
    while (s[n]) n++;
    return n;
}

static int same(const char *a, const char *b, long n) {
    while (n && a[n - 1] == b[n - 1]) n--;
    return !n;
}

static void leave(int status) {
    for (;;) sys(EXIT, status, 0, 0, 0);
}

static void fail(const char *file, const char *why, const char *what) {
    const char *part[] = { "seed: ", file, why, what, "\n" };
    for (int i = 0; i < 5; i++) sys(WRITE, 2, (long)part[i], length(part[i]), 0);
    leave(1);
}

/* How much of n bytes there was in a file. */
static long take(long file, long n) {
    long all = 0, got;
    while (all < n && (got = sys(READ, file, (long)(block + all), n - all, 0)) > 0) all += got;
    return all;
}

static void put(long file, long n, const char *name) {
    for (long all = 0, done; all < n; all += done)
        if ((done = sys(WRITE, file, (long)(block + all), n - all, 0)) <= 0) fail(name, " cannot be written", "");
}

/* The archive has, after its magic, for each member a header (its name with a `/` or blanks behind it; its size in decimal
   digits) and the data, padded to an even length. */
__attribute__((used)) void run(long *stack) {
    char **argv = (char **)(stack + 1);
    if (stack[0] != 4) fail("", "ARCHIVE MEMBER OUT", "");
    const char *archive = argv[1], *member = argv[2];
    long in = sys(OPENAT, CURRENT_FOLDER, (long)archive, 0, 0), name = length(member);
    if (in < 0) fail(archive, " cannot be read", "");
    if (take(in, MAGIC) != MAGIC || !same(block, "!<arch>\n", MAGIC)) fail(archive, " is no ar archive", "");
    while (take(in, HEADER) == HEADER) {
        long size = 0, out = -1;
        for (int i = SIZE; i < SIZE + DIGITS && block[i] != ' '; i++) {
            if (block[i] < '0' || block[i] > '9') fail(archive, " has a member of no size", "");
            size = 10 * size + block[i] - '0';
        }
        if (name < 16 && same(block, member, name) && (block[name] == ' ' || block[name] == '/')) {
            out = sys(OPENAT, CURRENT_FOLDER, (long)argv[3], NEW_FILE, 0644);
            if (out < 0) fail(argv[3], " cannot be written", "");
        }
        for (long left = out < 0 ? size + size % 2 : size, n; left; left -= n) {
            n = left < BLOCK ? left : BLOCK;
            if (take(in, n) != n) fail(archive, " is cut short", "");
            if (out >= 0) put(out, n, argv[3]);
        }
        if (out >= 0) leave(0);
    }
    fail(archive, " has no ", member);
}
