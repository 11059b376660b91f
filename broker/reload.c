/* The settings file: read at the start, on SIGHUP, and whenever it changes. */
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"

/* The folder is watched, because editors put another file in the place of the old one. */
static void watch(struct broker *b) {
    char path[sizeof b->config.settings];
    strcpy(path, b->config.settings);
    const char *dir = dirname(path);
    b->settings_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (b->settings_fd >= 0 &&
        inotify_add_watch(b->settings_fd, dir, IN_CLOSE_WRITE | IN_MOVED_TO) >= 0)
        return;
    log_warn("settings_not_watched", "dir=%s error=\"%s\" fix=\"send SIGHUP after a change\"", dir,
             strerror(errno));
}

static int settle(struct broker *b, char *err, size_t err_bytes) {
    struct settings *s;
    const char *path = b->config.settings[0] ? b->config.settings : NULL;
    int e = settings_load(&s, path, err, err_bytes);
    if (e) return e;
    e = load_settle(b, s);
    if (e) {
        settings_free(s);
        return err_set(err, err_bytes, e, "%s: %s", path ? path : "settings", err_text(e));
    }
    if (path)
        log_info("settings_loaded", "file=%s tenants=%u stages=%u", path, s->n_tenants,
                 s->n_stages);
    return 0;
}

int reload_open(struct broker *b, char *err, size_t err_bytes) {
    b->settings_fd = -1;
    if (b->config.settings[0]) watch(b);
    return settle(b, err, err_bytes);
}

void reload_close(struct broker *b) {
    if (b->config.settings[0] && b->settings_fd >= 0) close(b->settings_fd);
    load_fini(&b->load);
}

void reload(struct broker *b) {
    char err[600], quoted[700];
    if (!b->config.settings[0] || settle(b, err, sizeof err) == 0) return;
    log_error("settings_refused", "kept=\"the settings from before\" reason=%s",
              log_quote(quoted, sizeof quoted, err));
}

/* Kubernetes swaps a link whose name begins with two dots in place of the file. */
static bool is_about(const struct broker *b, const char *name) {
    const char *slash = strrchr(b->config.settings, '/');
    return strcmp(name, slash ? slash + 1 : b->config.settings) == 0 || strncmp(name, "..", 2) == 0;
}

bool reload_wanted(struct broker *b) {
    char events[4096] __attribute__((aligned(8)));
    bool wanted = false;
    ssize_t n;
    while (b->settings_fd >= 0 && (n = read(b->settings_fd, events, sizeof events)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const void *)(events + at);
            wanted |= e->len > 0 && is_about(b, e->name);
            at += (ssize_t)(sizeof *e + e->len);
        }
    return wanted;
}
