#include "kernels/ops.h"

#include <string.h>

#include "base/err.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

int ops_open(struct ops **out, const struct ops_config *c, char *err, size_t err_bytes) {
    const char *backend = c->backend ? c->backend : "auto";
    *out = NULL;
    if (strcmp(backend, "ref") == 0) return ref_open(out, err, err_bytes);
    if (strcmp(backend, "auto") == 0 || strcmp(backend, "cpu") == 0)
        return cpu_open(out, c->level, c->threads, err, err_bytes);
    return err_set(err, err_bytes, -EINVAL, "no backend is called \"%s\": use auto, cpu or ref",
                   backend);
}

void ops_close(struct ops *o) {
    if (o) o->close(o);
}
