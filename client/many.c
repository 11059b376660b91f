/* Many jobs in few messages, and dead letters (penstock.h). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "client/link.h"
#include "schemas/job.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"

#define ANSWER_MS 4000    /* a commit of a thousand jobs included */
#define LIST_HEAD_BYTES 5 /* of a list whose length is not known yet */

/* The item as it stands in the list. */
static int pack_item(const struct penstock_item *it, struct buf *out, char *err, size_t err_bytes) {
    struct packer p = packer_of(out);
    buf_clear(out);
    if (it->key && it->key[0]) {
        pack_array(&p, 2);
        pack_str(&p, it->key);
    }
    if (it->body) {
        pack_raw(&p, bytes_of(it->body, it->body_bytes));
    } else {
        struct json *j;
        char why[256];
        const char *text = it->body_json ? it->body_json : "{}";
        int rc = json_parse(&j, text, strlen(text), why, sizeof why);
        if (rc < 0) return err_set(err, err_bytes, PENSTOCK_INVALID, "a body: %s", why);
        rc = json_to_pack(j, out, why, sizeof why);
        json_free(j);
        if (rc < 0) return err_set(err, err_bytes, PENSTOCK_INVALID, "a body: %s", why);
    }
    if (out->error) return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    if (out->len + LIST_HEAD_BYTES <= LIMIT_FRAME_BYTES) return 0;
    return err_set(
        err, err_bytes, PENSTOCK_INVALID,
        "a body has %zu bytes; among many it may have a few less than %u: submit it alone",
        out->len, LIMIT_FRAME_BYTES);
}

/* Fills a list with as many items as fit; *n is how many. */
static int pack_list(const struct penstock_item *items, size_t max, struct buf *list, size_t *n,
                     bool *keyed, char *err, size_t err_bytes) {
    struct buf rest = {0}, one = {0};
    int rc = 0;
    *keyed = true;
    for (*n = 0; *n < max && *n < LIMIT_BATCH_JOBS; (*n)++) {
        rc = pack_item(&items[*n], &one, err, err_bytes);
        if (rc < 0 || rest.len + one.len + LIST_HEAD_BYTES > LIMIT_FRAME_BYTES) break;
        buf_append(&rest, one.data, one.len);
        *keyed &= items[*n].key && items[*n].key[0];
    }
    struct packer p = packer_of(list);
    buf_clear(list);
    pack_array(&p, (uint32_t)*n);
    buf_append(list, rest.data, rest.len);
    if (rc == 0 && (list->error || rest.error))
        rc = err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    buf_fini(&rest);
    buf_fini(&one);
    return rc;
}

static void text_of(const struct pack_val *v, const char *key, char *out, size_t out_bytes) {
    link_text(pack_as_bytes(pack_get(v, key)), out, out_bytes);
}

static void fill_verdict(const struct pack_val *v, struct penstock_verdict *out) {
    *out = (struct penstock_verdict){.refused = pack_get(v, "code") != NULL};
    if (out->refused) {
        struct penstock_refusal *r = &out->refusal;
        text_of(v, "code", r->code, sizeof r->code);
        text_of(v, "field", r->field, sizeof r->field);
        text_of(v, "limit", r->limit, sizeof r->limit);
        text_of(v, "message", r->message, sizeof r->message);
        text_of(v, "fix", r->fix, sizeof r->fix);
        r->retry_after_ms = pack_as_u64(pack_get(v, "retry_after_ms"), 0);
        text_of(v, "origin", out->origin, sizeof out->origin);
        return;
    }
    text_of(v, "job", out->accepted.job, sizeof out->accepted.job);
    text_of(v, "state", out->accepted.state, sizeof out->accepted.state);
    text_of(v, "origin", out->origin, sizeof out->origin);
    out->accepted.seed = pack_as_u64(pack_get(v, "seed"), 0);
    out->accepted.existing = pack_as_bool(pack_get(v, "existing"), false);
}

static int fill_verdicts(struct bytes jobs, struct penstock_verdict *out, size_t n, char *err,
                         size_t err_bytes) {
    struct pack_doc *d;
    char why[256];
    if (pack_parse(&d, jobs, why, sizeof why) < 0)
        return err_set(err, err_bytes, PENSTOCK_PROTOCOL, "%s", why);
    const struct pack_val *list = pack_root(d);
    bool all = pack_kind(list) == PACK_ARRAY && pack_len(list) == n;
    for (uint32_t i = 0; all && i < n; i++) fill_verdict(pack_at(list, i), &out[i]);
    pack_free(d);
    return all ? 0
               : err_set(err, err_bytes, PENSTOCK_PROTOCOL,
                         "the broker's verdicts are not one for each of %zu jobs", n);
}

int penstock_submit_many(struct penstock *p, const struct penstock_job *common,
                         const struct penstock_item *items, size_t n, struct penstock_verdict *out,
                         size_t *answered, int timeout_ms, char *err, size_t err_bytes) {
    struct buf list = {0};
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    int rc = 0;
    *answered = 0;
    if (!common->kind || !common->kind[0])
        return err_set(err, err_bytes, PENSTOCK_INVALID, "jobs need a kind, such as text.embed");
    while (rc == 0 && *answered < n) {
        size_t some;
        bool keyed;
        rc = pack_list(items + *answered, n - *answered, &list, &some, &keyed, err, err_bytes);
        if (rc < 0) break;
        struct msg_submit_many m = {.req = link_next_req(p),
                                    .kind = bytes_str(common->kind),
                                    .pipeline = bytes_str(common->pipeline),
                                    .priority = common->has_priority ? common->priority : 4,
                                    .delay_ms = common->delay_ms,
                                    .ttl_ms = common->ttl_ms,
                                    .has_seed = common->has_seed,
                                    .seed = common->seed + *answered,
                                    .source = bytes_str(common->source)};
        struct link_ask ask = {.type = MSG_SUBMIT_MANY,
                               .in = &m,
                               .payload = buf_bytes(&list),
                               .want = {MSG_ACCEPTED_MANY},
                               .once = !keyed,
                               .patience_ms = ANSWER_MS};
        struct link_answer a;
        int64_t left_ms = deadline_ms - clock_mono_ms();
        rc = link_ask(p, &ask, left_ms > 0 ? left_ms : 0, &a, err, err_bytes);
        if (rc < 0) break;
        rc = fill_verdicts(a.as.accepted_many.jobs, out + *answered, some, err, err_bytes);
        link_answer_fini(&a);
        if (rc == 0) *answered += some;
    }
    buf_fini(&list);
    return rc;
}

/* ---- dead letters ---- */

static int ids_of(const struct penstock_dead *which, uint64_t *job, uint64_t *before, char *err,
                  size_t err_bytes) {
    *job = *before = 0;
    int rc = which->job ? link_job_id(which->job, job, err, err_bytes) : 0;
    if (rc == 0 && which->before && which->before[0])
        rc = link_job_id(which->before, before, err, err_bytes);
    return rc;
}

static void next_of(uint64_t id, char next[PENSTOCK_JOB_BYTES]) {
    next[0] = 0;
    if (id) job_id_text(id, next);
}

int penstock_requeue(struct penstock *p, const struct penstock_dead *which,
                     struct penstock_verdict *out, size_t *n, char next[PENSTOCK_JOB_BYTES],
                     int timeout_ms, char *err, size_t err_bytes) {
    struct msg_requeue m = {.req = link_next_req(p),
                            .kind = bytes_str(which->kind),
                            .error_class = bytes_str(which->error_class),
                            .limit = PENSTOCK_DEAD_PAGE};
    struct link_ask ask = {
        .type = MSG_REQUEUE, .in = &m, .want = {MSG_ACCEPTED_MANY}, .patience_ms = ANSWER_MS};
    struct link_answer a;
    int rc = ids_of(which, &m.job, &m.before, err, err_bytes);
    if (rc == 0) rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    *n = (size_t)(a.as.accepted_many.accepted + a.as.accepted_many.refused);
    if (*n > PENSTOCK_DEAD_PAGE)
        rc = err_set(err, err_bytes, PENSTOCK_PROTOCOL, "the broker requeued %zu at once", *n);
    else
        rc = fill_verdicts(a.as.accepted_many.jobs, out, *n, err, err_bytes);
    next_of(a.as.accepted_many.next, next);
    link_answer_fini(&a);
    return rc;
}

int penstock_drop(struct penstock *p, const struct penstock_dead *which, size_t *dropped,
                  char next[PENSTOCK_JOB_BYTES], int timeout_ms, char *err, size_t err_bytes) {
    struct msg_drop m = {.req = link_next_req(p),
                         .kind = bytes_str(which->kind),
                         .error_class = bytes_str(which->error_class),
                         .limit = PENSTOCK_DEAD_PAGE};
    struct link_ask ask = {
        .type = MSG_DROP, .in = &m, .want = {MSG_DROPPED}, .patience_ms = ANSWER_MS};
    struct link_answer a;
    int rc = ids_of(which, &m.job, &m.before, err, err_bytes);
    if (rc == 0) rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    *dropped = (size_t)a.as.dropped.dropped;
    next_of(a.as.dropped.next, next);
    link_answer_fini(&a);
    return 0;
}
