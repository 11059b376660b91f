/* The pipelines of the simulated world: a folder of files as it is at first, and as somebody leaves
 * it later. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/sim/world.h"

static const char at_first[] =
    "name: one\nkind: text.embed\nstages:\n"
    "  - {name: x, run: test.one}\n"
    "retry: {max: 3, backoff_ms: 20, backoff_max_ms: 50, deaths_max: 3}\n"
    "timeout_ms: 300\nqueue_max: 100\n"
    "|name: chain\nkind: text.embed\nstages:\n"
    "  - {name: a, run: test.a, checkpoint: true}\n"
    "  - {name: b, run: test.b, timeout_ms: 100}\n"
    "  - {name: c, run: test.c}\n"
    "retry: {max: 2, backoff_ms: 20, backoff_max_ms: 100, deaths_max: 2}\n"
    "timeout_ms: 500\n"
    "|name: late\nkind: text.embed\nstages:\n"
    "  - {name: a, run: test.a}\n"
    "  - {name: b, run: test.b, model: m, checkpoint: true}\n"
    "  - {name: c, run: test.c}\n"
    "timeout_ms: 200\n"
    "|name: fan\nkind: text.embed\nstages:\n"
    "  - {name: split, run: test.fan, fan_out: {pipeline: part}}\n"
    "  - {name: join, run: test.join}\n"
    "retry: {max: 3, backoff_ms: 20, backoff_max_ms: 50}\n"
    "timeout_ms: 300\n"
    "|name: fan.some\nkind: text.embed\nstages:\n"
    "  - {name: split, run: test.fan, fan_out: {pipeline: part, "
    "partial: allow}}\n"
    "  - {name: join, run: test.join}\ntimeout_ms: 300\n"
    "|name: part\nkind: text.embed\nstages:\n"
    "  - {name: p, run: test.part}\n"
    "retry: {max: 2, backoff_ms: 20, backoff_max_ms: 50}\n"
    "timeout_ms: 300\n";

/* Other stages under the same names, and two names gone. */
static const char edited[] =
    "name: one\nkind: text.embed\nstages:\n"
    "  - {name: x, run: test.one, checkpoint: true}\n  - {name: y, run: test.c}\n"
    "retry: {max: 2, backoff_ms: 20, backoff_max_ms: 50, deaths_max: 2}\n"
    "timeout_ms: 250\nqueue_max: 80\n"
    "|name: chain\nkind: text.embed\nstages:\n"
    "  - {name: a, run: test.b}\n  - {name: b, run: test.a, model: m}\n"
    "retry: {max: 2, backoff_ms: 20, backoff_max_ms: 100, deaths_max: 2}\ntimeout_ms: 400\n"
    "|name: fan\nkind: text.embed\nstages:\n"
    "  - {name: split, run: test.fan, fan_out: {pipeline: part, partial: allow}}\n"
    "  - {name: join, run: test.join, timeout_ms: 200}\ntimeout_ms: 350\n"
    "|name: part\nkind: text.embed\nstages:\n"
    "  - {name: p, run: test.part, timeout_ms: 150}\n  - {name: q, run: test.a}\n"
    "timeout_ms: 300\n";

static int load_files(struct pipelines *out, const char *from, const char *dir, char *err,
                      size_t err_bytes) {
    char path[128];
    int e = 0;
    for (int i = 0; e == 0 && from; i++) {
        const char *to = strchr(from, '|');
        snprintf(path, sizeof path, "%s/p%d.yaml", dir, i);
        e = file_replace(path, from, to ? (size_t)(to - from) : strlen(from), err, err_bytes);
        if (e == 0) e = pipeline_load(out, path, err, err_bytes);
        unlink(path);
        from = to ? to + 1 : NULL;
    }
    return e;
}

int world_pipelines(struct pipelines folders[FOLDERS + 1], const char *dir, char *err,
                    size_t err_bytes) {
    int e = load_files(&folders[0], at_first, dir, err, err_bytes);
    return e ? e : load_files(&folders[1], edited, dir, err, err_bytes);
}

void world_pipelines_free(struct pipelines folders[FOLDERS + 1]) {
    for (int i = 0; i < FOLDERS; i++) pipelines_free(&folders[i]);
}
