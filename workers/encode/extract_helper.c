#include "workers/encode/extract_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"

#define END_MS 1000             /* from its last frame to its end */
#define WORDS_READS 64          /* of 4 KiB: all that a pipe may still hold */
#define PIPE_BYTES (512 * 1024) /* a page of text with boxes goes through at once */

int extract_document_fd(struct bytes d, char *err, size_t err_bytes) {
    int fd = memfd_create("document", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const uint8_t *p = d.data;
    size_t done = 0;
    while (fd >= 0 && done < d.len) {
        ssize_t n = write(fd, p + done, d.len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += (size_t)n;
    }
    if (fd < 0 || done < d.len ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int code = -errno;
        if (fd >= 0) close(fd);
        return err_set(err, err_bytes, ERR_FULL, "no memory file for the document: %s",
                       err_text(code));
    }
    return fd;
}

/* ---- start ---- */

static int spawn(pid_t *pid, char *const *argv, const int std[3]) {
    static char *const environment[] = {"LANG=C.UTF-8", "PATH=/usr/bin:/bin", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, defaults;
    if (posix_spawn_file_actions_init(&files) != 0) return -ENOMEM;
    if (posix_spawnattr_init(&how) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return -ENOMEM;
    }
    int rc = 0;
    for (int i = 0; rc == 0 && i < 3; i++) rc = posix_spawn_file_actions_adddup2(&files, std[i], i);
    sigemptyset(&none);
    sigfillset(&defaults);
    sigdelset(&defaults, SIGKILL);
    sigdelset(&defaults, SIGSTOP);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &defaults);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                       POSIX_SPAWN_SETPGROUP);
    if (rc == 0) rc = posix_spawn(pid, argv[0], &files, &how, argv, environment);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return -rc;
}

static void close_pair(int fd[2]) {
    for (int i = 0; i < 2; i++)
        if (fd[i] >= 0) close(fd[i]);
}

int extract_helper_start(struct extract_helper *h, char *const *argv, int document_fd, char *err,
                         size_t err_bytes) {
    int frames[2] = {-1, -1}, words[2] = {-1, -1};
    *h = (struct extract_helper){.frames_fd = -1, .words_fd = -1};
    int rc = pipe2(frames, O_CLOEXEC) != 0 || pipe2(words, O_CLOEXEC) != 0 ? -errno : 0;
    if (rc == 0 &&
        (fcntl(frames[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(words[0], F_SETFL, O_NONBLOCK) != 0))
        rc = -errno;
    if (rc == 0) {
        fcntl(frames[0], F_SETPIPE_SZ, PIPE_BYTES); /* smaller works too */
        const int std[3] = {document_fd, frames[1], words[1]};
        rc = spawn(&h->pid, argv, std);
    }
    if (rc < 0) {
        close_pair(frames);
        close_pair(words);
        h->pid = 0;
        return err_set(err, err_bytes, ERR_FULL, "%s cannot be started: %s", argv[0], err_text(rc));
    }
    close(frames[1]);
    close(words[1]);
    h->frames_fd = frames[0];
    h->words_fd = words[0];
    return 0;
}

/* ---- while it runs ---- */

/* Keeps the last line of its standard error, in printable ASCII; read's result. */
static ssize_t listen_to(struct extract_helper *h) {
    char chunk[4096];
    ssize_t n = read(h->words_fd, chunk, sizeof chunk);
    for (ssize_t i = 0; i < n; i++) {
        bool printable = chunk[i] >= 0x20 && chunk[i] < 0x7f;
        if (chunk[i] == '\n') {
            if (h->line_len > 0) memcpy(h->words, h->line, sizeof h->words);
            memset(h->line, 0, sizeof h->line);
            h->line_len = 0;
        } else if (h->line_len < sizeof h->line - 1) {
            h->line[h->line_len++] = printable ? chunk[i] : '?';
        }
    }
    return n;
}

ssize_t extract_helper_read(struct extract_helper *h, void *to, size_t room, int wait_ms) {
    struct pollfd p[] = {{.fd = h->frames_fd, .events = POLLIN},
                         {.fd = h->words_fd, .events = POLLIN}};
    if (poll(p, 2, wait_ms) <= 0) return 0;
    if (p[1].revents != 0 && listen_to(h) == 0) {
        close(h->words_fd);
        h->words_fd = -1; /* poll leaves it out */
    }
    if (p[0].revents == 0) return 0;
    ssize_t n = read(h->frames_fd, to, room);
    if (n > 0) return n;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : ERR_CLOSED;
}

void extract_helper_kill(struct extract_helper *h) {
    if (h->pid > 1) kill(-h->pid, SIGKILL); /* the group that it leads */
    h->killed = true;
}

/* Whether it ended by itself within the time; without pidfds it is given none. */
static bool ends_soon(pid_t pid) {
    int fd = pidfd_open(pid, 0);
    if (fd < 0) return false;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do {
        n = poll(&p, 1, END_MS);
    } while (n < 0 && errno == EINTR);
    close(fd);
    return n > 0;
}

void extract_helper_end(struct extract_helper *h, struct extract_end *out) {
    *out = (struct extract_end){0};
    if (h->pid > 0) {
        struct rusage used = {0};
        if (!h->killed && !ends_soon(h->pid)) extract_helper_kill(h);
        while (wait4(h->pid, &out->status, 0, &used) < 0 && errno == EINTR) {
        }
        out->cpu_ms = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 +
                      (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000;
    }
    if (h->words_fd >= 0) {
        for (int i = 0; i < WORDS_READS && listen_to(h) > 0; i++) {
        }
        if (h->line_len > 0) memcpy(h->words, h->line, sizeof h->words);
        close(h->words_fd);
    }
    if (h->frames_fd >= 0) close(h->frames_fd);
    h->pid = 0;
    h->words_fd = h->frames_fd = -1;
}
