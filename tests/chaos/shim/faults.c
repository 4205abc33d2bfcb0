/* Preloaded into the services and the database of a chaos run: fails their writes and syncs, steps their clock, kills
 * rooms at its n-th write or sync. What to do stands in a small file that all of them map: see control.py, which has the same layout.
 *
 * Only regular files are meant: sockets and pipes pass untouched. Nothing here is part of the product.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NO_FAULT, WRITES_FAIL, SYNCS_FAIL };
enum { BEFORE, AFTER };

struct control {
    _Atomic int64_t clock_ns;        /* added to the time of day */
    _Atomic int64_t disk_of_rooms;   /* WRITES_FAIL: no space left; SYNCS_FAIL: input/output error */
    _Atomic int64_t disk_of_auth;
    _Atomic int64_t disk_of_postgres;
    _Atomic int64_t kill_countdown;  /* rooms dies at the call that brings this from 1 to 0 */
    _Atomic int64_t kill_when;       /* BEFORE or AFTER that call */
    _Atomic int64_t counted;         /* writes and syncs of rooms so far */
};

static struct control *control;
static int is_rooms, is_auth, is_postgres;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PARLEY_TEST_FAULTS");
    if (path == NULL) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return;
    is_rooms = getenv("PARLEY_ROOMS_CERTIFICATE") != NULL;
    is_auth = getenv("PARLEY_AUTH_CERTIFICATE") != NULL;
    is_postgres = getenv("PARLEY_TEST_FAULTS_OF_POSTGRES") != NULL;
    control = mapped;
}

static int is_file(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

static int64_t disk(void) {
    return is_rooms      ? control->disk_of_rooms
           : is_auth     ? control->disk_of_auth
           : is_postgres ? control->disk_of_postgres
                         : NO_FAULT;
}

/* Counts a call; whether it is the one to die at. */
static int strikes(int fd) {
    if (control == NULL || !is_rooms || !is_file(fd)) return 0;
    control->counted++;
    if (control->kill_countdown <= 0) return 0;
    return --control->kill_countdown == 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int refuses(int fd, int fault, int error) {
    if (control == NULL || disk() != fault || !is_file(fd)) return 0;
    errno = error;
    return 1;
}

#define CALL(result_t, name, parameters, arguments, fault, error)            \
    result_t name parameters {                                               \
        static result_t (*next) parameters;                                  \
        if (next == NULL) next = real(#name);                                \
        int struck = strikes(fd);                                            \
        if (struck && control->kill_when == BEFORE) die();                   \
        if (refuses(fd, fault, error)) return -1;                            \
        result_t result = next arguments;                                    \
        if (struck) die();                                                   \
        return result;                                                       \
    }

CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), WRITES_FAIL, ENOSPC)
CALL(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), WRITES_FAIL, ENOSPC)
CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), WRITES_FAIL, ENOSPC)
CALL(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), WRITES_FAIL,
     ENOSPC)
CALL(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), WRITES_FAIL, ENOSPC)
CALL(int, fsync, (int fd), (fd), SYNCS_FAIL, EIO)
CALL(int, fdatasync, (int fd), (fd), SYNCS_FAIL, EIO)
CALL(int, ftruncate, (int fd, off_t size), (fd, size), WRITES_FAIL, ENOSPC)
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), WRITES_FAIL, ENOSPC)

static void step(struct timespec *when) {
    int64_t ns = when->tv_nsec + control->clock_ns % 1000000000;
    int64_t s = when->tv_sec + control->clock_ns / 1000000000;
    if (ns < 0) { ns += 1000000000; s--; }
    if (ns >= 1000000000) { ns -= 1000000000; s++; }
    when->tv_sec = s;
    when->tv_nsec = ns;
}

int clock_gettime(clockid_t clock, struct timespec *when) {
    static int (*next)(clockid_t, struct timespec *);
    if (next == NULL) next = real("clock_gettime");
    int result = next(clock, when);
    if (result == 0 && control != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) step(when);
    return result;
}

int gettimeofday(struct timeval *when, void *zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    when->tv_sec = exact.tv_sec;
    when->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    if (into != NULL) *into = exact.tv_sec;
    return exact.tv_sec;
}
