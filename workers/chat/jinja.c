#include "workers/chat/jinja.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "workers/chat/jinja_parse.h"
#include "workers/chat/jinja_run.h"

struct jinja {
    struct arena arena;
    struct jinja_node *first;
};

int jinja_open(struct jinja **out, struct bytes source, char *err, size_t err_bytes) {
    *out = NULL;
    if (source.len > JINJA_SOURCE_BYTES)
        return err_set(err, err_bytes, ERR_LIMIT, "a template of %zu bytes: at most %u", source.len,
                       JINJA_SOURCE_BYTES);
    size_t bad = utf8_check(source.data, source.len);
    if (bad != source.len)
        return err_set(err, err_bytes, ERR_FIELD, "the template is not UTF-8 at byte %zu", bad);
    struct jinja *t = calloc(1, sizeof *t);
    if (!t) return err_set(err, err_bytes, -ENOMEM, "no memory for a template");
    arena_init(&t->arena, JINJA_TREE_BYTES);
    int rc = jinja_parse(&t->arena, source, &t->first, err, err_bytes);
    if (rc < 0)
        jinja_close(t);
    else
        *out = t;
    return rc;
}

void jinja_close(struct jinja *t) {
    if (!t) return;
    arena_fini(&t->arena);
    free(t);
}

int jinja_render(const struct jinja *t, struct arena *a, struct value vars, int64_t now_s,
                 struct buf *out, char *err, size_t err_bytes) {
    assert(out->max_bytes > 0 && vars.kind == JV_DICT);
    struct jinja_run r = {
        .arena = a, .out = out, .vars = vars, .now_s = now_s, .err = err, .err_bytes = err_bytes};
    if (!(r.scope = run_scope(&r, NULL)))
        return err_set(err, err_bytes, -ENOMEM, "no memory to render a template");
    int rc = run_body(&r, t->first);
    return rc < 0 ? rc : 0;
}
