/* stage_prompt.c - encode.prompt: the prompt of a text.generate job to ids, with what the model
 * expects in front. A prompt that leaves no room for a new token is refused, never cut. */
#include "schemas/kinds.h"
#include "workers/encode/stages.h"

static void run_one(struct encode_self *s, struct stage_item *i) {
    struct kind_text_generate body;
    struct tokenizer *t;
    struct tokens prompt;
    uint32_t context;
    int64_t bos;
    char err[LIMIT_REASON_BYTES];
    if (!encode_body(i, "text.generate", &body)) return;
    if (!encode_model(s, i, &t, &context, &bos)) return;
    int rc = tokenizer_encode(t, body.prompt, true, 0, i->arena, &prompt, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    if (prompt.n == 0 && bos >= 0) prompt.ids[prompt.n++] = (uint32_t)bos;
    if (prompt.n == 0) {
        item_fail(i, JOB_ERROR_PERMANENT,
                  "prompt: is empty, and the model has no token that begins a text: send one");
        return;
    }
    if (prompt.n >= context) {
        item_fail(i, JOB_ERROR_PERMANENT,
                  "prompt: %u tokens, but the model's context of %u must hold a new one too: "
                  "shorten it",
                  prompt.n, context);
        return;
    }
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_map(&p, 2);
    pack_str(&p, "model");
    pack_strn(&p, i->model);
    pack_str(&p, "ids");
    encode_pack_ids(&p, prompt.ids, prompt.n);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) run_one(self, items[i]);
}

const struct stage_program stage_encode_prompt = {.run = "encode.prompt",
                                                  .needs_model = true,
                                                  .open = encode_open,
                                                  .run_batch = run_batch,
                                                  .close = encode_close};
