#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_init(struct notify *n) {
    const char *text = getenv("WATCHDOG_USEC");
    char *end;
    *n = (struct notify){0};
    if (!text || !text[0]) return;
    errno = 0;
    long long us = strtoll(text, &end, 10);
    if (errno || *end || us <= 0) return;
    n->every_ms = us / 2000 > 0 ? us / 2000 : 1;
}

void notify_say(const char *words) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@') to.sun_path[0] = '\0'; /* the abstract namespace */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    sendto(fd, words, strlen(words), MSG_NOSIGNAL, (const struct sockaddr *)&to, bytes);
    close(fd);
}

void notify_beat(struct notify *n, int64_t now_ms) {
    if (n->every_ms == 0 || now_ms < n->next_ms) return;
    n->next_ms = now_ms + n->every_ms;
    notify_say("WATCHDOG=1");
}
