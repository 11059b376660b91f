#include "tests/bench/engine/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1 << 16 };

static int connect_to(uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

int http_lines(uint16_t port, const char *method, const char *path, const char *body,
               void (*line)(void *arg, const char *line), void *arg) {
    int fd = connect_to(port), status = 0;
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    char text[LINE_MAX_BYTES];
    bool head = true;
    if (!f) {
        if (fd >= 0) close(fd);
        return 0;
    }
    dprintf(fd,
            "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
            method, path, strlen(body), body);
    if (fgets(text, sizeof text, f)) sscanf(text, "HTTP/%*s %d", &status);
    while (fgets(text, sizeof text, f)) {
        text[strcspn(text, "\r\n")] = 0;
        if (!head) line(arg, text);
        if (!*text) head = false;
    }
    fclose(f);
    return status;
}
