#include "schemas/endpoint.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

void endpoint_default_dir(char out[ENDPOINT_BYTES]) {
    const char *run = getenv("XDG_RUNTIME_DIR");
    size_t room = ENDPOINT_BYTES - sizeof "ipc://" - sizeof "/clients";
    int n = run && run[0] == '/' ? snprintf(out, room, "%s/penstock", run) : -1;
    if (n < 0 || (size_t)n >= room)
        snprintf(out, room, "/tmp/penstock-%lu", (unsigned long)getuid());
}

void endpoint_default(enum endpoint_of which, char out[ENDPOINT_BYTES]) {
    char dir[ENDPOINT_BYTES];
    endpoint_default_dir(dir);
    snprintf(out, ENDPOINT_BYTES, "ipc://%.200s/%s", dir,
             which == ENDPOINT_CLIENTS ? "clients" : "workers");
}

void endpoint_state_dir(char *out, size_t out_bytes) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && state[0] == '/')
        snprintf(out, out_bytes, "%s/penstock", state);
    else
        snprintf(out, out_bytes, "%s/.local/state/penstock", home ? home : "");
}

/* Only root can have made what lies in it. */
static bool made_by_root(const char *path) {
    char parent[ENDPOINT_BYTES];
    struct stat st;
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    slash[slash == parent] = '\0';
    return stat(parent, &st) == 0 && st.st_uid == 0 && !(st.st_mode & 022);
}

int endpoint_check(const char *endpoint, char *err, size_t err_bytes) {
    if (strncmp(endpoint, "ipc:///", 7) != 0) return 0;
    char dir[ENDPOINT_BYTES];
    int n = snprintf(dir, sizeof dir, "%s", endpoint + 6);
    if (n < 0 || (size_t)n >= sizeof dir)
        return err_set(err, err_bytes, -ENAMETOOLONG, "endpoint is too long: %.60s...", endpoint);
    char *slash = strrchr(dir, '/');
    if (slash == dir) slash++;
    *slash = '\0';
    struct stat st;
    if (stat(dir, &st) != 0) return 0;
    bool sticky = st.st_mode & S_ISVTX; /* /tmp itself: others cannot replace the socket */
    if (st.st_uid != getuid() && st.st_uid != 0 && !made_by_root(dir))
        return err_set(err, err_bytes, -EPERM,
                       "%s belongs to user %lu; use a folder of your own, with --endpoint", dir,
                       (unsigned long)st.st_uid);
    if ((st.st_mode & 022) && !sticky)
        return err_set(err, err_bytes, -EPERM,
                       "%s can be written by other users; run chmod go-w on it", dir);
    return 0;
}
