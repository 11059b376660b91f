/* stage_generate.c - post.generate: the decoder's tokens to the result of text.generate. */
#include "workers/post/stages.h"

static void run_one(struct stage_item *i) {
    struct pack_doc *doc;
    char err[256];
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    const struct pack_val *root = pack_root(doc);
    struct bytes ids = pack_as_bytes(pack_get(root, "ids"));
    struct bytes model = pack_as_bytes(pack_get(root, "model"));
    struct bytes text = pack_as_bytes(pack_get(root, "text"));
    struct bytes finish = pack_as_bytes(pack_get(root, "finish"));
    if (!model.data || !finish.data || ids.len % 4 != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "tokens out: model, finish or ids are missing");
        pack_free(doc);
        return;
    }
    uint32_t n = (uint32_t)(ids.len / 4);
    struct reader r = reader_of(ids);
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, 7);
    pack_str(&p, "model");
    pack_strn(&p, model);
    pack_str(&p, "text");
    pack_strn(&p, text);
    pack_str(&p, "tokens");
    pack_array(&p, n);
    for (uint32_t k = 0; k < n; k++) pack_u64(&p, read_u32le(&r));
    pack_kv_u64(&p, "prompt_tokens", pack_as_u64(pack_get(root, "prompt_tokens"), 0));
    pack_kv_u64(&p, "completion_tokens", n);
    pack_str(&p, "finish_reason");
    pack_strn(&p, finish);
    pack_kv_u64(&p, "seed", i->seed);
    item_done_buf(i, &out);
    buf_fini(&out);
    pack_free(doc);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) run_one(items[i]);
}

const struct stage_program stage_post_generate = {.run = "post.generate", .run_batch = run_batch};
