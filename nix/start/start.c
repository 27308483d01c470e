/* The one small program of ours in an image, which has no shell:

     aikit-nix start SCRIPT ARGUMENTS…        what the kernel makes of a script that begins with `#!…/aikit-nix start`
     aikit-nix probe PORT PATH OPTION VARIABLE   ends with 0 where the server answers GET PATH with 200: for HEALTHCHECK

   start reads its script: `needs FLAG…` are flags of /proc/cpuinfo, `for RUNTIME` is what the image was made for, and
   `exec PROGRAM` is started, with the arguments. A processor without the flags is told so: the server itself says "no
   backends are loaded", or dies of an unknown instruction. Where there is no /proc, the program is started.

   It stays as the container's init: it hands signals on, reaps children, and ends with the server's status. The kernel
   keeps from process 1 each signal that it has no handler for, and a server that loads a model has none yet. SIGTERM and
   SIGINT reach the server once no client is connected to its port (`port PORT OPTION VARIABLE`, as below), after
   AIKIT_NIX_STOP_SECONDS (8) at the latest, or when they come a second time; a second later it is killed: llama-server
   hangs where it is stopped amid a request.

   probe asks 127.0.0.1, on the port that the server was told last: by OPTION (`--port`) in the arguments of the
   container's first process, by the environment's VARIABLE, or else PORT.

   Freestanding, so that it needs neither a C library's source nor its licence. Built by build.sh for the Debian packages
   (debian/SYSTEM.txt, which tests/nix/test_start.py compares), by nixpkgs.nix for nixpkgs. */

#if defined __x86_64__
enum {
    READ = 0, WRITE = 1, CLOSE = 3, SIGPROCMASK = 14, SOCKET = 41, CONNECT = 42, SETSOCKOPT = 54, CLONE = 56, EXECVE = 59,
    EXIT = 60, WAIT4 = 61, KILL = 62, SETPGID = 109, SIGTIMEDWAIT = 128, PRCTL = 157, CLOCK_GETTIME = 228, OPENAT = 257
};
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");

static long sys(long number, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
#elif defined __aarch64__
enum {
    OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, EXIT = 93, CLOCK_GETTIME = 113, KILL = 129, SIGPROCMASK = 135, SIGTIMEDWAIT = 137, SETPGID = 154,
    PRCTL = 167, SOCKET = 198, CONNECT = 203, SETSOCKOPT = 208, CLONE = 220, EXECVE = 221, WAIT4 = 260
};
__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");

static long sys(long number, long a, long b, long c, long d, long e) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#endif

enum { CURRENT_FOLDER = -100, INTERNET = 2, STREAM = 1, SOCKET_LEVEL = 1, RECEIVE_TIMEOUT = 20, SEND_TIMEOUT = 21, SECONDS = 5 };
enum { INTERRUPT = 2, KILLED = 9, TERMINATE = 15, CHILD = 17, DEATH_SIGNAL = 1, NO_HANG = 1, MONOTONIC = 1, ESTABLISHED = 1 };

static char text[65536];

static long length(const char *s) {
    long n = 0;
    while (s[n]) n++;
    return n;
}

/* How long `prefix` is where `s` begins with it, else 0. */
static long begins(const char *s, const char *prefix) {
    long n = 0;
    while (prefix[n] && s[n] == prefix[n]) n++;
    return prefix[n] ? 0 : n;
}

static void say(const char *s) { sys(WRITE, 2, (long)s, length(s), 0, 0); }

static void leave(int status) {
    for (;;) sys(EXIT, status, 0, 0, 0, 0);
}

static void fail(const char *a, const char *b, const char *c) {
    say("aikit-nix: "), say(a), say(b), say(c), say("\n");
    leave(1);
}

/* As much of a file as fits, with a 0 behind it; how much, or -1. */
static long contents(const char *path, char *into, long room) {
    long file = sys(OPENAT, CURRENT_FOLDER, (long)path, 0, 0, 0), n = 0, got;
    if (file < 0) return -1;
    while (n < room - 1 && (got = sys(READ, file, (long)(into + n), room - 1 - n, 0, 0)) > 0) n += got;
    sys(CLOSE, file, 0, 0, 0, 0);
    into[n] = 0;
    return n;
}

/* What stands behind `key` and a blank on a line of `s`; how much it is, 0 where there is no such line. */
static long line(const char *s, const char *key, char *into, long room) {
    while (*s) {
        long n = begins(s, key), m = 0;
        if (n && s[n] == ' ') {
            for (s += n + 1; *s && *s != '\n' && m < room - 1; s++) into[m++] = *s;
            into[m] = 0;
            return m;
        }
        while (*s && *s != '\n') s++;
        if (*s) s++;
    }
    return 0;
}

/* Whether the blank-separated `words` hold the first `n` letters of `word`. */
static int holds(const char *words, const char *word, long n) {
    for (; *words && *words != '\n'; words++) {
        long i = 0;
        if (words[-1] != ' ' && words[-1] != '\t') continue;
        while (i < n && words[i] == word[i]) i++;
        if (i == n && (words[n] == ' ' || words[n] == '\n' || !words[n])) return 1;
    }
    return 0;
}

/* Say which of the needed flags the processor lacks, and end there if it lacks any. */
static void check(const char *needs, const char *runtime) {
    const char *flags = text;
    int lacks = 0;
    if (contents("/proc/cpuinfo", text, sizeof text) <= 0) return;
    while (*flags && !begins(flags, "\nflags")) flags++;
    if (!*flags) return;
    for (flags++; *needs;) {
        long n = 0;
        while (needs[n] && needs[n] != ' ') n++;
        if (n && !holds(flags + 1, needs, n)) {
            if (!lacks++) say("aikit-nix: this image is made for "), say(runtime), say(", and this processor lacks");
            say(" "), sys(WRITE, 2, (long)needs, n, 0, 0);
        }
        needs += n + (needs[n] == ' ');
    }
    if (lacks) {
        say(": take an image for another runtime\n");
        leave(1);
    }
}

/* The number behind the last `:` of a text; 0 where there is none. */
static long number(const char *s) {
    long n = 0;
    for (; *s; s++) n = *s == ':' ? 0 : *s >= '0' && *s <= '9' && n < 65536 ? 10 * n + *s - '0' : n;
    return n;
}

/* The number that a variable has, or else `otherwise`. */
static long variable(char **environment, const char *name, long otherwise) {
    long n;
    for (; *environment; environment++)
        if ((n = begins(*environment, name)) && (*environment)[n] == '=' && (*environment)[n + 1]) return number(*environment + n + 1);
    return otherwise;
}

/* Where a server listens: by its arguments, else by the environment, else where it does unless it is told. */
static long port_of(const char *cmdline, const char *otherwise, const char *option, const char *name, char **environment) {
    long port = 0, size = contents(cmdline, text, sizeof text), at = 0;
    while (at < size) {
        const char *argument = text + at;
        long value = begins(argument, option);
        at += length(argument) + 1;
        if (value && argument[value] == '=') port = number(argument + value);
        if (value && !argument[value] && at < size) port = number(text + at);
    }
    return port ? port : variable(environment, name, number(otherwise));
}

/* Whether somebody is connected to a port: `sl local remote state …` on each line, in hex. */
static int connected(const char *path, unsigned long port) {
    long file = sys(OPENAT, CURRENT_FOLDER, (long)path, 0, 0, 0), got, field = 0;
    unsigned long value = 0, local = 0;
    int found = 0;
    char before = ' ';
    while (file >= 0 && (got = sys(READ, file, (long)text, sizeof text, 0, 0)) > 0)
        for (char *s = text; s < text + got; before = *s++) {
            if (*s != ' ' && *s != '\n') {
                value = *s == ':' ? 0 : 16 * value + (*s <= '9' ? *s - '0' : *s - 'A' + 10);
                continue;
            }
            if (before != ' ' && before != '\n') {
                if (field == 1) local = value;
                if (field == 3 && local == port && value == ESTABLISHED) found = 1;
                field++;
            }
            value = 0;
            if (*s == '\n') field = 0;
        }
    if (file >= 0) sys(CLOSE, file, 0, 0, 0, 0);
    return found;
}

/* Tenths of a second since some moment. */
static long tenths(void) {
    long time[2];
    sys(CLOCK_GETTIME, MONOTONIC, (long)time, 0, 0, 0);
    return 10 * time[0] + time[1] / 100000000;
}

/* Wait for the server as process 1 has to. `seconds` are those that requests may take once it is to stop. */
static void attend(long server, long port, long seconds) {
    const long all = -1, tick[2] = { 0, 100000000 };
    long asked = 0, told = 0, end = 0;
    for (;;) {
        long signal = sys(SIGTIMEDWAIT, (long)&all, 0, asked ? (long)tick : 0, sizeof all, 0), ended;
        int status = 0;
        while ((ended = sys(WAIT4, -1, (long)&status, NO_HANG, 0, 0)) > 0)
            if (ended == server) leave(status & 127 ? 128 + (status & 127) : status >> 8);
        if (signal == TERMINATE || signal == INTERRUPT) {
            if (!asked || tenths() < end) end = tenths() + (asked ? 0 : 10 * seconds);
            asked = signal;
        } else if (signal > 0 && signal != CHILD) {
            sys(KILL, server, signal, 0, 0, 0);
        }
        if (!asked) continue;
        if (!told && (tenths() >= end || !(connected("/proc/net/tcp", port) || connected("/proc/net/tcp6", port))))
            told = 1, sys(KILL, server, asked, 0, 0, 0);
        if (tenths() >= end + 10) sys(KILL, server, KILLED, 0, 0, 0);
    }
}

static void start(char **argv, char **environment) {
    static char script[8192], program[4096], needs[1024], words[1024];
    const long all = -1;
    long before, server, n;
    char *word[3] = { words, "", "" };
    if (contents(argv[2], script, sizeof script) <= 0) fail("cannot read ", argv[2], "");
    if (!line(script, "exec", program, sizeof program)) fail(argv[2], " names no program", "");
    if (line(script, "needs", needs, sizeof needs) && line(script, "for", words, sizeof words)) check(needs, words);
    words[line(script, "port", words, sizeof words)] = 0;
    n = 1;
    for (char *s = words; *s && n < 3; s++)
        if (*s == ' ') *s = 0, word[n++] = s + 1;
    sys(SIGPROCMASK, 0, (long)&all, (long)&before, sizeof all, 0);
    server = sys(CLONE, CHILD, 0, 0, 0, 0);
    if (server) {
        n = variable(environment, "AIKIT_NIX_STOP_SECONDS", 8);
        if (server > 0) attend(server, port_of("/proc/self/cmdline", word[0], word[1], word[2], environment), n);
        fail("cannot start ", program, "");
    }
    /* Its own group: a terminal's Ctrl-C comes to the init alone. */
    sys(SETPGID, 0, 0, 0, 0, 0);
    sys(PRCTL, DEATH_SIGNAL, KILLED, 0, 0, 0);
    sys(SIGPROCMASK, 2, (long)&before, 0, sizeof all, 0);
    sys(EXECVE, (long)program, (long)(argv + 2), (long)environment, 0, 0);
    fail("cannot start ", program, "");
}

static void probe(char **argv, char **environment) {
    struct {
        unsigned short family;
        unsigned char port[2], address[4], zero[8];
    } to = { INTERNET, { 0, 0 }, { 127, 0, 0, 1 }, { 0 } };
    long wait[2] = { SECONDS, 0 }, port, server, n = 0, got;
    port = port_of("/proc/1/cmdline", argv[2], argv[4], argv[5] ? argv[5] : "", environment);
    to.port[0] = port >> 8, to.port[1] = port;
    server = sys(SOCKET, INTERNET, STREAM, 0, 0, 0);
    sys(SETSOCKOPT, server, SOCKET_LEVEL, RECEIVE_TIMEOUT, (long)wait, sizeof wait);
    sys(SETSOCKOPT, server, SOCKET_LEVEL, SEND_TIMEOUT, (long)wait, sizeof wait);
    if (sys(CONNECT, server, (long)&to, sizeof to, 0, 0) < 0) fail("nobody listens on the server's port", "", "");
    sys(WRITE, server, (long)"GET ", 4, 0, 0);
    sys(WRITE, server, (long)argv[3], length(argv[3]), 0, 0);
    sys(WRITE, server, (long)" HTTP/1.0\r\nHost: localhost\r\n\r\n", 30, 0, 0);
    while (n < 12 && (got = sys(READ, server, (long)(text + n), 12 - n, 0, 0)) > 0) n += got;
    text[n] = 0;
    if (n < 12 || !begins(text, "HTTP/1.") || !begins(text + 8, " 200")) fail("the server is not ready: ", n ? text : "no answer", "");
    leave(0);
}

__attribute__((used)) void run(long *stack) {
    long argc = stack[0];
    char **argv = (char **)(stack + 1), **environment = argv + argc + 1;
    if (argc > 2 && begins(argv[1], "start") == 5) start(argv, environment);
    if (argc > 4 && begins(argv[1], "probe") == 5) probe(argv, environment);
    fail("start SCRIPT, or probe PORT PATH OPTION VARIABLE", "", "");
}
