/* stage_generate.c - post.generate: the decoder's tokens to the result of text.generate. */
#include "workers/post/stages.h"

/* A list of numbers, or of lists of pairs [id, logprob], as it came. */
static void copy_numbers(struct packer *p, const struct pack_val *v) {
    if (pack_kind(v) == PACK_ARRAY) {
        pack_array(p, pack_len(v));
        for (uint32_t i = 0; i < pack_len(v); i++) copy_numbers(p, pack_at(v, i));
    } else if (pack_kind(v) == PACK_U64) {
        pack_u64(p, pack_as_u64(v, 0));
    } else {
        pack_f64(p, pack_as_f64(v, 0));
    }
}

/* What a text has: text, tokens, finish_reason, and logprobs if there are. */
static uint32_t pairs_of(const struct pack_val *text) {
    return 3u + (pack_get(text, "logprobs") != NULL) + (pack_get(text, "top_logprobs") != NULL);
}

static void pack_pairs(struct packer *p, const struct pack_val *text) {
    struct reader ids = reader_of(pack_as_bytes(pack_get(text, "ids")));
    uint32_t n = (uint32_t)(read_left(&ids) / 4);
    pack_str(p, "text");
    pack_strn(p, pack_as_bytes(pack_get(text, "text")));
    pack_str(p, "tokens");
    pack_array(p, n);
    for (uint32_t k = 0; k < n; k++) pack_u64(p, read_u32le(&ids));
    pack_str(p, "finish_reason");
    pack_strn(p, pack_as_bytes(pack_get(text, "finish")));
    for (uint32_t i = 0; i < 2; i++) {
        const char *const key = i == 0 ? "logprobs" : "top_logprobs";
        const struct pack_val *list = pack_get(text, key);
        if (!list) continue;
        pack_str(p, key);
        copy_numbers(p, list);
    }
}

static bool is_text(const struct pack_val *text) {
    struct bytes ids = pack_as_bytes(pack_get(text, "ids"));
    return pack_as_bytes(pack_get(text, "finish")).data && ids.len % 4 == 0;
}

static void run_one(struct stage_item *i) {
    struct pack_doc *doc;
    char err[256];
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    const struct pack_val *root = pack_root(doc), *texts = pack_get(root, "texts");
    struct bytes model = pack_as_bytes(pack_get(root, "model"));
    struct bytes adapter = pack_as_bytes(pack_get(root, "adapter"));
    uint32_t n = pack_kind(texts) == PACK_ARRAY ? pack_len(texts) : 0;
    uint64_t written = 0;
    bool good = model.data && n > 0;
    for (uint32_t k = 0; good && k < n; k++) {
        good = is_text(pack_at(texts, k));
        written += pack_as_bytes(pack_get(pack_at(texts, k), "ids")).len / 4;
    }
    if (!good) {
        item_fail(i, JOB_ERROR_PERMANENT, "tokens out: model, finish or ids are missing");
        pack_free(doc);
        return;
    }
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, 4 + pairs_of(pack_at(texts, 0)) + (adapter.len > 0) + (n > 1));
    pack_str(&p, "model");
    pack_strn(&p, model);
    if (adapter.len > 0) {
        pack_str(&p, "adapter");
        pack_strn(&p, adapter);
    }
    pack_pairs(&p, pack_at(texts, 0));
    pack_kv_u64(&p, "prompt_tokens", pack_as_u64(pack_get(root, "prompt_tokens"), 0));
    pack_kv_u64(&p, "completion_tokens", written);
    pack_kv_u64(&p, "seed", i->seed);
    if (n > 1) {
        pack_str(&p, "choices");
        pack_array(&p, n);
        for (uint32_t k = 0; k < n; k++) {
            pack_map(&p, pairs_of(pack_at(texts, k)));
            pack_pairs(&p, pack_at(texts, k));
        }
    }
    item_done_buf(i, &out);
    buf_fini(&out);
    pack_free(doc);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) run_one(items[i]);
}

const struct stage_program stage_post_generate = {.run = "post.generate", .run_batch = run_batch};
