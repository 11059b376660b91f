#include "workers/infer/decoder.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define KV_TOKENS_MIN 4096u
#define KV_BYTES_DEFAULT_MAX (1024u * 1024u * 1024u)

/* Four contexts, within the bounds that model.h names. */
static uint32_t kv_tokens_default(const struct config *c, size_t token_bytes, uint64_t bytes_max) {
    uint64_t tokens = 4ull * c->context;
    if (bytes_max == 0) bytes_max = KV_BYTES_DEFAULT_MAX;
    if (tokens > bytes_max / token_bytes) tokens = bytes_max / token_bytes;
    return tokens < KV_TOKENS_MIN ? KV_TOKENS_MIN : (uint32_t)tokens;
}

int decoder_init(struct decoder *d, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, uint32_t kv_tokens, uint64_t kv_bytes,
                 enum dtype kv, char *err, size_t err_bytes) {
    struct kvpool_config k = {c->layers, c->kv_heads, c->head_dim, kv, kv_tokens};
    *d = (struct decoder){0};
    if (kv_tokens == 0) k.tokens = kv_tokens_default(c, kvpool_token_bytes(&k), kv_bytes);
    d->context = c->context < k.tokens ? c->context : k.tokens;
    uint32_t seqs_max = rows_max < MODEL_SEQS_MAX ? rows_max : MODEL_SEQS_MAX;
    int rc = kvpool_init(&d->pool, ops, &k, err, err_bytes);
    if (rc == 0)
        rc = forward_init(&d->forward, ops, c, w, rows_max, seqs_max, d->context, err, err_bytes);
    if (rc == 0) {
        d->logits = ops->alloc(ops, (size_t)seqs_max * c->vocab * sizeof *d->logits);
        d->sample_workspace = ops->alloc(ops, ops->sample_bytes(ops, c->vocab) + 1);
        d->sampled = ops->alloc(ops, seqs_max * sizeof *d->sampled);
        d->logprob = ops->alloc(ops, seqs_max * sizeof *d->logprob);
        d->top = ops->alloc(ops, (size_t)seqs_max * MODEL_TOP_MAX * sizeof *d->top);
        if (!d->logits || !d->sample_workspace || !d->sampled || !d->logprob || !d->top)
            rc = err_set(err, err_bytes, -ENOMEM, "no memory for the logits of %u sequences",
                         seqs_max);
    }
    if (rc != 0) decoder_fini(d);
    return rc;
}

void decoder_fini(struct decoder *d) {
    struct ops *ops = d->forward.ops ? d->forward.ops : d->pool.ops;
    assert(d->seqs == 0);
    void *buffers[] = {d->logits, d->sample_workspace, d->sampled, d->logprob, d->top};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i]) ops->free(ops, buffers[i]);
    forward_fini(&d->forward);
    kvpool_fini(&d->pool);
    *d = (struct decoder){0};
}

struct seq *decoder_seq_new(struct decoder *d) {
    struct seq *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->pages = malloc(d->forward.seq_pages_max * sizeof *s->pages);
    if (!s->pages) {
        free(s);
        return NULL;
    }
    s->decoder = d;
    d->seqs++;
    return s;
}

void decoder_seq_free(struct seq *s) {
    if (!s) return;
    kvpool_drop(&s->decoder->pool, s->n_pages, s->pages);
    s->decoder->seqs--;
    free(s->pages);
    free(s);
}

/* Checks lengths and room for all, then gives every sequence its pages. */
static int take_pages(struct decoder *d, uint32_t n, struct seq **seqs, const uint32_t *begin,
                      char *err, size_t err_bytes) {
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct seq *s = seqs[i];
        assert(begin[i + 1] > begin[i] && s->decoder == d);
        for (uint32_t j = 0; j < i; j++) assert(seqs[j] != s);
        uint32_t more = begin[i + 1] - begin[i];
        if (more > d->context - s->len)
            return err_set(err, err_bytes, ERR_LIMIT,
                           "a sequence of %u tokens and %u more: the limit is %u", s->len, more,
                           d->context);
        wanted += kvpool_pages_for(s->len + more) - s->n_pages;
    }
    if (wanted > d->pool.free_n)
        return err_set(err, err_bytes, ERR_FULL,
                       "the KV pool has %u free pages of %u, the step needs %u", d->pool.free_n,
                       d->pool.pages, wanted);
    for (uint32_t i = 0; i < n; i++) {
        struct seq *s = seqs[i];
        uint32_t pages = kvpool_pages_for(s->len + begin[i + 1] - begin[i]);
        int rc = kvpool_take(&d->pool, pages - s->n_pages, s->pages + s->n_pages);
        assert(rc == 0);
        (void)rc;
        s->n_pages = pages;
    }
    return 0;
}

/* A pass over part of a step: which sequences stand in it, and how many rows give logits. */
struct pass {
    uint32_t n, rows, pages_max, gathered;
    uint32_t seq[MODEL_SEQS_MAX];
};

/* Stages up to rows_max rows from (*i, *done) on; done tokens of sequence *i were run before. */
static void stage_pass(struct forward *f, struct pass *p, uint32_t n, struct seq **seqs,
                       const uint32_t *begin, const uint32_t *ids, const uint32_t *tail,
                       uint32_t *i, uint32_t *done) {
    *p = (struct pass){0};
    f->host.begin[0] = 0;
    while (*i < n && p->rows < f->rows_max) {
        const struct seq *s = seqs[*i];
        uint32_t left = begin[*i + 1] - begin[*i] - *done, room = f->rows_max - p->rows;
        uint32_t take = left < room ? left : room;
        for (uint32_t t = 0; t < take; t++) {
            f->host.ids[p->rows + t] = ids[begin[*i] + *done + t];
            f->host.pos[p->rows + t] = s->len + *done + t;
            if (left - t <= (tail ? tail[*i] : 1)) f->host.gather[p->gathered++] = p->rows + t;
        }
        p->rows += take;
        *done += take;
        f->host.kv_len[p->n] = s->len + *done;
        f->adapter[p->n] = s->adapter;
        f->host.begin[p->n + 1] = p->rows;
        p->seq[p->n++] = *i;
        if (s->n_pages > p->pages_max) p->pages_max = s->n_pages;
        if (take < left) break;
        *done = 0;
        ++*i;
    }
    for (uint32_t k = 0; k < p->n; k++) {
        const struct seq *s = seqs[p->seq[k]];
        uint32_t *table = f->host.pages + (size_t)k * p->pages_max;
        for (uint32_t page = 0; page < p->pages_max; page++)
            table[page] = page < s->n_pages ? s->pages[page] : 0;
    }
}

int decoder_step(struct decoder *d, uint32_t n, struct seq **seqs, const uint32_t *begin,
                 const uint32_t *ids, const uint32_t *tail, char *err, size_t err_bytes) {
    struct forward *f = &d->forward;
    struct ops *o = f->ops;
    uint64_t wanted = tail ? 0 : n;
    for (uint32_t i = 0; tail && i < n; i++) {
        assert(tail[i] > 0 && tail[i] <= begin[i + 1] - begin[i]);
        wanted += tail[i];
    }
    if (n == 0 || wanted > f->seqs_max)
        return err_set(err, err_bytes, ERR_LIMIT,
                       "%u sequences in a step, logits of %" PRIu64
                       " rows: the limits are 1 and %u",
                       n, wanted, f->seqs_max);
    int rc = take_pages(d, n, seqs, begin, err, err_bytes);
    if (rc != 0) return rc;
    uint32_t gathered = 0;
    for (uint32_t i = 0, done = 0; i < n;) {
        struct pass p;
        stage_pass(f, &p, n, seqs, begin, ids, tail, &i, &done);
        forward_run(f, p.n, &d->pool, p.pages_max);
        if (p.gathered > 0)
            o->linear(
                o, &(struct linear_args){.rows = p.gathered,
                                         .x = forward_gather(f, p.gathered),
                                         .w = &f->weights->head,
                                         .y_f32 = d->logits + (size_t)gathered * f->config->vocab});
        gathered += p.gathered;
    }
    assert(gathered == wanted);
    for (uint32_t i = 0; i < n; i++) seqs[i]->len += begin[i + 1] - begin[i];
    return 0;
}

uint32_t decoder_share(struct seq *to, const struct seq *from, uint32_t tokens) {
    assert(to->len == 0 && to->n_pages == 0 && to->decoder == from->decoder);
    assert(to->adapter == from->adapter);
    uint32_t pages = (tokens < from->len ? tokens : from->len) / KVPOOL_PAGE_TOKENS;
    kvpool_share(&to->decoder->pool, pages, from->pages);
    memcpy(to->pages, from->pages, pages * sizeof *to->pages);
    to->n_pages = pages;
    return to->len = pages * KVPOOL_PAGE_TOKENS;
}

void decoder_cut(struct seq *s, uint32_t len) {
    struct kvpool *pool = &s->decoder->pool;
    uint32_t pages = kvpool_pages_for(len);
    assert(len <= s->len);
    /* What is written behind the cut must not change a page that another sequence holds too. */
    assert(len % KVPOOL_PAGE_TOKENS == 0 || pool->holders[s->pages[pages - 1]] == 1);
    kvpool_drop(pool, s->n_pages - pages, s->pages + pages);
    s->n_pages = pages;
    s->len = len;
}

void decoder_sample(struct decoder *d, uint32_t n, const uint32_t *at, const struct sample_row *row,
                    uint32_t *tokens, float *logprob, struct sample_top *top) {
    struct ops *o = d->forward.ops;
    assert(n <= d->forward.seqs_max);
    o->sample(o, &(struct sample_args){.rows = n,
                                       .vocab = d->forward.config->vocab,
                                       .logits = d->logits,
                                       .at = at,
                                       .row = row,
                                       .workspace = d->sample_workspace,
                                       .token = d->sampled,
                                       .logprob = logprob ? d->logprob : NULL,
                                       .top = top ? d->top : NULL,
                                       .top_stride = MODEL_TOP_MAX});
    o->sync(o);
    if (logprob) memcpy(logprob, d->logprob, n * sizeof *logprob);
    if (top) memcpy(top, d->top, (size_t)n * MODEL_TOP_MAX * sizeof *top);
    memcpy(tokens, d->sampled, n * sizeof *tokens);
}
