/* stage_texts.c - encode.texts: the texts of a text.embed job to token sequences, cut to the
 * model's context and marked where they were cut. */
#include "schemas/kinds.h"
#include "workers/encode/stages.h"

static void run_one(struct encode_self *s, struct stage_item *i) {
    struct kind_text_embed body;
    struct tokenizer *t;
    uint32_t context, n = 0;
    char err[LIMIT_REASON_BYTES];
    if (!encode_body(i, "text.embed", &body)) return;
    if (!encode_model(s, i, &t, &context, NULL)) return;
    struct tokens *seqs = arena_calloc(i->arena, body.texts.count, sizeof *seqs);
    if (!seqs) {
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for %u texts", body.texts.count);
        return;
    }
    struct field_strs_it it = field_strs_begin(body.texts);
    struct bytes text;
    while (field_strs_next(&it, &text)) {
        if (item_cancelled(i)) {
            item_fail(i, JOB_ERROR_CANCELLED, "cancelled after %u of %u texts", n,
                      body.texts.count);
            return;
        }
        int rc = tokenizer_encode(t, text, true, context, i->arena, &seqs[n], err, sizeof err);
        if (rc < 0) {
            item_fail_rc(i, rc, err);
            return;
        }
        n++;
    }
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, body.adapter.len > 0 ? 5 : 4);
    encode_pack(&p, i->model, seqs, n);
    if (body.adapter.len > 0) {
        pack_str(&p, "adapter");
        pack_strn(&p, body.adapter);
    }
    pack_str(&p, "keep");
    pack_nil(&p);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) run_one(self, items[i]);
}

const struct stage_program stage_encode_texts = {.run = "encode.texts",
                                                 .needs_model = true,
                                                 .open = encode_open,
                                                 .run_batch = run_batch,
                                                 .close = encode_close};
