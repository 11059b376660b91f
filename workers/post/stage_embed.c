/* stage_embed.c - post.embed: vectors to the result of text.embed. */
#include "workers/post/stages.h"

static void run_one(struct stage_item *i) {
    struct pack_doc *doc;
    struct vectors_in in;
    char err[256];
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    if (vectors_read(i, pack_root(doc), &in)) {
        struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
        struct packer p = packer_of(&out);
        pack_map(&p, in.adapter.len > 0 ? 6 : 5);
        pack_str(&p, "model");
        pack_strn(&p, in.model);
        if (in.adapter.len > 0) {
            pack_str(&p, "adapter");
            pack_strn(&p, in.adapter);
        }
        pack_kv_u64(&p, "dim", in.dim);
        pack_str(&p, "embeddings");
        pack_array(&p, in.n);
        for (uint32_t k = 0; k < in.n; k++) {
            pack_array(&p, in.dim);
            for (uint32_t d = 0; d < in.dim; d++) pack_f32(&p, in.vectors[(size_t)k * in.dim + d]);
        }
        pack_str(&p, "tokens");
        pack_array(&p, in.n);
        for (uint32_t k = 0; k < in.n; k++) pack_u64(&p, pack_as_u64(pack_at(in.tokens, k), 0));
        pack_str(&p, "truncated");
        pack_array(&p, in.n);
        for (uint32_t k = 0; k < in.n; k++)
            pack_bool(&p, pack_as_bool(pack_at(in.truncated, k), false));
        item_done_buf(i, &out);
        buf_fini(&out);
    }
    pack_free(doc);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) run_one(items[i]);
}

const struct stage_program stage_post_embed = {.run = "post.embed", .run_batch = run_batch};
