#include "workers/post/contract_dir.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

static bool there(char *path, size_t path_bytes, const char *base, const char *below,
                  const char *name) {
    int n = snprintf(path, path_bytes, "%s/%s/%s", base, below, name);
    return n > 0 && (size_t)n < path_bytes && access(path, R_OK) == 0;
}

int contract_file(const char *name, char *path, size_t path_bytes, char *err, size_t err_bytes) {
    static const char *const beside[] = {"../share/penstock/pipelines/contract",
                                         "../../pipelines/contract", "../../../pipelines/contract"};
    const char *given = getenv("PENSTOCK_CONTRACT");
    char program[4096];
    if (given && *given) {
        if (there(path, path_bytes, given, ".", name)) return 0;
        return err_set(err, err_bytes, -ENOENT, "PENSTOCK_CONTRACT=%s: there is no %s", given,
                       name);
    }
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = '\0';
        char *slash = strrchr(program, '/');
        if (slash) *slash = '\0';
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
            if (there(path, path_bytes, program, beside[i], name)) return 0;
    }
    if (there(path, path_bytes, ".", "pipelines/contract", name)) return 0;
    return err_set(
        err, err_bytes, -ENOENT,
        "no pipelines/contract/%s beside the program: set PENSTOCK_CONTRACT to its folder", name);
}
