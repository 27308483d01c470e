/* The first program of the Debian package set: everything else comes out of the .debs that it fetches.

   A sandbox on a bare machine holds no program at all, and Nix's own builtins neither read an environment variable
   (the user's mirror) nor try a second address nor open a .deb. This does those three things and no more:

     seed fetch   $AIKIT_DEBIAN_MIRROR $mirrors $path $sha256 $size $package  ->  $out, the verified file
     seed member  $archive $member                                           ->  $out, one file of an ar archive

   fetch tries every mirror in turn (http only: the hash, not the transport, says what is right), honours http_proxy
   and follows redirects, as Debian's snapshot archive makes them. No server keeps it longer than $patience seconds (30)
   without a byte, or makes it wait for a file at less than 16 KiB/s, or writes more than $size bytes to the disk.
   Built by build.sh against musl (MIT licence), which brings a real resolver. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { URL = 2048, LINE = 4096, BLOCK = 65536, REDIRECTS = 8, PATIENCE = 30, SLOWEST = 16384 /* bytes a second */ };

enum outcome { DONE, NO, AGAIN /* broken off half-way: worth a second try */ };

static unsigned char block[BLOCK]; /* what was read: block[at..end) is still to be used */
static size_t at, end;

static const char *env(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* One line on the error output, where nothing of a server's or a user's steers the terminal. */
static void say(const char *a, const char *b, const char *c, const char *d) {
    static char text[4 * URL];
    const char *part[] = { a, b, c, d };
    size_t n = 0;
    for (int i = 0; i < 4; i++)
        for (const char *p = part[i]; *p && n < sizeof text - 1; p++) text[n++] = *p < ' ' || *p > '~' ? '?' : *p;
    text[n++] = '\n';
    if (write(2, text, n) < 0) return;
}

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec;
}

static long patience, deadline; /* seconds; of now()'s clock */

static int put(int fd, const void *data, size_t n) {
    for (const char *p = data; n;) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return -1;
        p += done, n -= done;
    }
    return 0;
}

static ssize_t take(int fd, void *data, size_t n) {
    ssize_t got;
    do got = read(fd, data, n);
    while (got < 0 && errno == EINTR);
    return got;
}

/* SHA-256 (FIPS 180-4). */

static struct { uint32_t h[8]; unsigned char b[64]; uint64_t n; } sha;

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The first 32 bits of the fractional part of x's square (or cube) root, which is what SHA-256's constants are. */
static uint32_t root(uint32_t x, int cube) {
    unsigned __int128 low = 0, high = (unsigned __int128)1 << 36, want = (unsigned __int128)x << (cube ? 96 : 64);
    while (high - low > 1) {
        unsigned __int128 middle = (low + high) / 2;
        if ((cube ? middle * middle * middle : middle * middle) <= want) low = middle;
        else high = middle;
    }
    return (uint32_t)low;
}

static uint32_t first[8], key[64];

static void sha_block(const unsigned char *p) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, sha.h, sizeof s);
#define S(k) s[(k - i) & 7] /* the eight words move by turning the index */
    for (int i = 0; i < 64; i++) {
        uint32_t t = S(7) + (rotate(S(4), 6) ^ rotate(S(4), 11) ^ rotate(S(4), 25)) + (S(6) ^ (S(4) & (S(5) ^ S(6)))) +
                     key[i] + w[i];
        uint32_t u = (rotate(S(0), 2) ^ rotate(S(0), 13) ^ rotate(S(0), 22)) + ((S(0) & S(1)) | (S(2) & (S(0) | S(1))));
        S(3) += t, S(7) = t + u;
    }
    for (int i = 0; i < 8; i++) sha.h[i] += s[i];
}

static void sha_start(void) {
    for (int i = 0, x = 2; i < 64; x++) {
        int prime = 1;
        for (int d = 2; d * d <= x; d++) prime &= x % d != 0;
        if (!prime) continue;
        if (i < 8) first[i] = root(x, 0);
        key[i++] = root(x, 1);
    }
    memcpy(sha.h, first, sizeof first);
    sha.n = 0;
}

static void sha_add(const unsigned char *p, size_t n) {
    while (n) {
        size_t now = 64 - sha.n % 64;
        if (now == 64 && n >= 64) sha_block(p);
        else {
            if (now > n) now = n;
            memcpy(sha.b + sha.n % 64, p, now);
            if ((sha.n + now) % 64 == 0) sha_block(sha.b);
        }
        p += now, n -= now, sha.n += now;
    }
}

static void sha_hex(char hex[65]) {
    uint64_t bits = sha.n * 8;
    unsigned char tail[8];
    for (int i = 0; i < 8; i++) tail[i] = (unsigned char)(bits >> (56 - 8 * i));
    sha_add((const unsigned char *)"\x80", 1);
    while (sha.n % 64 != 56) sha_add((const unsigned char *)"", 1);
    sha_add(tail, 8);
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[sha.h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = 0;
}

/* One GET. `why` is set to what went wrong. */

static int join(char *to, size_t size, const char *a, const char *b, const char *c) {
    if (strlen(a) + strlen(b) + strlen(c) >= size) return -1;
    strcat(strcat(strcpy(to, a), b), c);
    return 0;
}

/* http://host[:port][/path] -> host, port; the rest is returned, NULL if the URL is of another kind. */
static const char *split(const char *url, char host[256], char port[8]) {
    if (strncasecmp(url, "http://", 7)) return NULL;
    const char *p = url + 7, *stop = p + strcspn(p, "/?#"), *colon = stop;
    if (*p == '[') { /* an IPv6 address */
        const char *close = memchr(p, ']', stop - p);
        if (!close) return NULL;
        colon = close + 1;
        p++;
    } else if (memchr(p, ':', stop - p)) colon = memchr(p, ':', stop - p);
    size_t length = (size_t)((colon[-1] == ']' ? colon - 1 : colon) - p);
    if (!length || length > 255 || stop - colon > 6 || memchr(p, '@', stop - p)) return NULL;
    memcpy(host, p, length), host[length] = 0;
    strcpy(port, "80");
    if (colon < stop - 1) memcpy(port, colon + 1, stop - colon - 1), port[stop - colon - 1] = 0;
    return stop;
}

static int dial(const char *host, const char *port, const char **why) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *a;
    int fd = -1, e = getaddrinfo(host, port, &hints, &all);
    if (e) {
        *why = gai_strerror(e);
        return -1;
    }
    for (a = all; a; a = a->ai_next) {
        struct timeval limit = { .tv_sec = patience };
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) { *why = strerror(errno); continue; }
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (!connect(fd, a->ai_addr, a->ai_addrlen)) break;
        *why = errno == EINPROGRESS ? "no answer" : strerror(errno);
        close(fd), fd = -1;
    }
    freeaddrinfo(all);
    return fd;
}

/* The bytes that are ready, at least one; 0 at the end of the stream, -1 on an error. */
static ssize_t ready(int fd) {
    if (at < end) return (ssize_t)(end - at);
    if (now() > deadline) return -1;
    ssize_t got = take(fd, block, BLOCK);
    at = 0, end = got > 0 ? (size_t)got : 0;
    return got;
}

/* One line without its line end; -1 if the stream ends first or the line is too long. */
static int line(int fd, char to[LINE]) {
    for (size_t n = 0; n < LINE && ready(fd) > 0;) {
        char c = (char)block[at++];
        if (c == '\n') return to[n && to[n - 1] == '\r' ? n - 1 : n] = 0;
        to[n++] = c;
    }
    return -1;
}

static enum outcome broken(const char **why) {
    return *why = now() > deadline ? "too slow" : "the connection broke off", AGAIN;
}

/* n bytes of the body (all up to the end of the stream where `any`) go into the hash and the file, which has at most
   `size`. */
static enum outcome copy(int fd, int out, uint64_t n, int any, uint64_t size, const char **why) {
    ssize_t got = 1;
    while ((any || n) && (got = ready(fd)) > 0) {
        size_t part = any || (uint64_t)got < n ? (size_t)got : (size_t)n;
        if (part > size - sha.n) return *why = "another file, longer than the pinned one", NO;
        sha_add(block + at, part);
        if (put(out, block + at, part)) return *why = strerror(errno), NO;
        at += part, n -= any ? 0 : part;
    }
    return got < 0 || (!any && n) ? broken(why) : DONE;
}

/* The answer on fd: its body in `out`, or where it points to in `next` (empty otherwise). */
static enum outcome answer(int fd, int out, uint64_t size, char next[URL], const char **why) {
    static char text[LINE], status[128];
    int chunked = 0, any = 1;
    uint64_t length = 0;
    enum outcome result = DONE;
    at = end = 0, next[0] = 0;
    if (line(fd, text)) return *why = "no answer", AGAIN;
    if (strncmp(text, "HTTP/1.", 7) || strlen(text) < 12) return *why = "not an HTTP answer", NO;
    strncat(strcpy(status, ""), text, sizeof status - 1);
    int code = atoi(text + 9);
    do {
        if (line(fd, text)) return broken(why);
        char *value = text + strcspn(text, ":");
        if (*value) *value++ = 0;
        value += strspn(value, " \t");
        if (!strcasecmp(text, "transfer-encoding")) chunked = !strcasecmp(value, "chunked");
        else if (!strcasecmp(text, "content-length")) any = 0, length = strtoull(value, NULL, 10);
        else if (!strcasecmp(text, "location") && strlen(value) < URL) strcpy(next, value);
        else if (!*text) break;
    } while (1);
    if (code >= 300 && code < 400 && *next) return DONE;
    next[0] = 0;
    if (code != 200) return *why = status, code >= 500 ? AGAIN : NO;
    if (ftruncate(out, 0) || lseek(out, 0, SEEK_SET)) return *why = strerror(errno), NO;
    sha_start();
    if (!chunked) return copy(fd, out, length, any, size, why);
    do {
        char *rest;
        if (line(fd, text)) return broken(why);
        length = strtoull(text, &rest, 16);
        if (rest == text) return *why = "a malformed chunk", AGAIN;
        if (length) result = copy(fd, out, length, 0, size, why);
        if (result == DONE && length && line(fd, text)) return broken(why);
    } while (result == DONE && length);
    return result;
}

/* `url` becomes what `next` means when seen from there. */
static int follow(char url[URL], const char *next) {
    char *path = url + 7 + strcspn(url + 7, "/?#"), *slash;
    if (!strncmp(next, "//", 2)) return join(url, URL, "http:", next, "");
    if (!strncmp(next + strcspn(next, ":/?#"), "://", 3)) return join(url, URL, next, "", "");
    path[strcspn(path, "?#")] = 0, slash = strrchr(path, '/');
    char *from = *next == '/' || !slash ? path : slash + 1;
    if ((size_t)(from - url) + strlen(next) + 1 >= URL) return -1;
    if (*next != '/' && !slash) *from++ = '/';
    strcpy(from, next);
    return 0;
}

/* The file at the URL `start`, verified, into `out`; `why` says what went wrong. */
static enum outcome get(const char *start, const char *sha256, uint64_t size, int out, const char **why) {
    static char url[URL], next[URL], request[2 * URL + 256], changed[128];
    char host[256], port[8], via[256], via_port[8], hex[65];
    const char *proxy = env("http_proxy");
    if (join(url, URL, start, "", "")) return *why = "the URL is too long", NO;
    deadline = now() + patience + (long)(size / SLOWEST);
    for (int hop = 0; hop < REDIRECTS; hop++) {
        for (const char *p = url; *p; p++)
            if (*p <= ' ' || *p == 127) return *why = "the URL holds a blank or a control character", NO;
        const char *path = split(url, host, port);
        if (!path) return *why = "only http:// is spoken here (the pinned sha256 makes it safe)", NO;
        if (*proxy && !split(proxy, via, via_port)) return *why = "http_proxy is not http://HOST:PORT", NO;
        strcat(strcat(strcpy(request, "GET "), *proxy ? url : *path == '/' ? path : "/"), " HTTP/1.1\r\nHost: ");
        strncat(request, url + 7, (size_t)(path - url - 7));
        strcat(request, "\r\nUser-Agent: aikit-nix\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        int fd = *proxy ? dial(via, via_port, why) : dial(host, port, why);
        if (fd < 0) return NO;
        enum outcome result = put(fd, request, strlen(request)) ? (*why = "the connection broke off", AGAIN)
                                                                  : answer(fd, out, size, next, why);
        close(fd);
        if (result != DONE) return result;
        if (*next) {
            if (follow(url, next)) return *why = "the redirect is too long", NO;
            continue;
        }
        sha_hex(hex);
        if (!strcmp(hex, sha256)) return DONE;
        join(changed, sizeof changed, "another file, of sha256 ", hex, "");
        return *why = changed, NO;
    }
    return *why = "too many redirects", NO;
}

static int fetch(void) {
    static char list[8192], url[URL];
    const char *why = "", *path = env("path");
    uint64_t size = strtoull(env("size"), NULL, 10);
    patience = atol(env("patience"));
    if (patience <= 0) patience = PATIENCE;
    int out = open(env("out"), O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (out < 0) return say("error: ", env("out"), ": ", strerror(errno)), 1;
    if (join(list, sizeof list, env("AIKIT_DEBIAN_MIRROR"), " ", env("mirrors")))
        return say("error: AIKIT_DEBIAN_MIRROR is too long", "", "", ""), 1;
    say("fetching Debian's ", env("package"), "", "");
    for (char *mirror = strtok(list, " \t\n"); mirror; mirror = strtok(NULL, " \t\n")) {
        size_t n = strlen(mirror);
        while (n && mirror[n - 1] == '/') mirror[--n] = 0;
        char *at_sign = strrchr(mirror, '@'); /* a password may hold anything */
        if (at_sign) {
            say("  ", at_sign + 1, ": ", "an address with a user or a password cannot be used");
            continue;
        }
        if (join(url, sizeof url, mirror, "/", path)) continue;
        enum outcome result = get(url, env("sha256"), size, out, &why);
        if (result == AGAIN) result = get(url, env("sha256"), size, out, &why);
        if (result == DONE) return 0;
        say("  ", url, ": ", why);
    }
    unlink(env("out"));
    say("error: no mirror has Debian's ", env("package"), " with the pinned sha256 ", env("sha256"));
    say("  set AIKIT_DEBIAN_MIRROR=http://MIRROR/debian (read by whatever runs the build: a Nix daemon has its own", "", "", "");
    say("  environment), or pin what the mirrors have now: ", env("renew"), "", "");
    return 1;
}

/* An ar archive: 8 bytes of magic; then 60 bytes of header (name 16, ..., size at 48 in 10 digits) and the data, padded to
   an even length. */
static int member(void) {
    char magic[8], head[61] = { 0 };
    const char *want = env("member");
    int in = open(env("archive"), O_RDONLY), out = open(env("out"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (in < 0 || out < 0) return say("error: ", env("archive"), ": ", strerror(errno)), 1;
    if (take(in, magic, 8) != 8 || memcmp(magic, "!<arch>\n", 8))
        return say("error: ", env("archive"), ": not an ar archive", ""), 1;
    while (take(in, head, 60) == 60) {
        off_t size = strtoll(head + 48, NULL, 10);
        if (size < 0) break;
        size_t n = strlen(want);
        if (n < 16 && !strncmp(head, want, n) && (head[n] == ' ' || head[n] == '/')) {
            while (size) {
                ssize_t got = take(in, block, size < BLOCK ? (size_t)size : BLOCK);
                if (got <= 0 || put(out, block, got)) return say("error: ", env("archive"), ": cut short", ""), 1;
                size -= got;
            }
            return 0;
        }
        if (lseek(in, size + size % 2, SEEK_CUR) < 0) break;
    }
    return say("error: ", env("archive"), " has no ", want), 1;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "fetch")) return fetch();
    if (!strcmp(mode, "member")) return member();
    return say("usage: seed fetch|member", "", "", ""), 2;
}
