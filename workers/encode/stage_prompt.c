/* stage_prompt.c - encode.prompt: the prompt or the messages of a text.generate job to ids, with
 * what the model expects around them. What leaves no room for a new token is refused, never cut. */
#include "base/err.h"
#include "schemas/json_schema.h"
#include "schemas/kinds.h"
#include "workers/chat/chat.h"
#include "workers/encode/stages.h"

/* A field of any value, which may be given as its JSON text; NULL where it is absent or nil. */
static int read_value(const char *name, struct bytes raw, struct json **out, char *err,
                      size_t err_bytes) {
    struct json *j = NULL;
    char why[LIMIT_REASON_BYTES] = "";
    *out = NULL;
    if (!raw.data) return 0;
    int rc = json_from_pack(raw, &j, why, sizeof why);
    if (rc == 0 && json_kind(j) == JSON_STR) {
        rc = chat_json(out, bytes_of(json_str(j), json_str_len(j)), why, sizeof why);
        json_free(j);
    } else if (rc == 0) {
        *out = j;
    }
    return rc < 0 ? err_set(err, err_bytes, rc, "%s: %s", name, why) : 0;
}

/* The conversation by the model's own template, ready for its answer. */
static void encode_messages(struct encode_self *s, struct stage_item *i,
                            const struct kind_text_generate *body, const struct tokenizer *t,
                            struct tokens *out) {
    struct json *messages = NULL, *tools = NULL, *vars = NULL;
    struct chat *chat;
    char err[LIMIT_REASON_BYTES] = "";
    if (!encode_chat(s, i, &chat)) return;
    int rc = read_value("messages", body->messages, &messages, err, sizeof err);
    if (rc == 0) rc = read_value("tools", body->tools, &tools, err, sizeof err);
    if (rc == 0) rc = read_value("template_vars", body->template_vars, &vars, err, sizeof err);
    if (rc == 0) {
        /* The day of the job, not of the attempt: each attempt has the same prompt. */
        struct chat_input in = {.messages = messages,
                                .tools = tools,
                                .vars = vars,
                                .add_generation_prompt = true,
                                .now_s = job_id_ms(i->job) / 1000};
        rc = chat_encode(chat, &in, t, i->arena, out, err, sizeof err);
    }
    json_free(messages);
    json_free(tools);
    json_free(vars);
    if (rc < 0) item_fail_rc(i, rc, err);
}

static void run_one(struct encode_self *s, struct stage_item *i) {
    struct kind_text_generate body;
    struct tokenizer *t;
    struct tokens prompt = {0};
    uint32_t context;
    int64_t bos;
    char err[LIMIT_REASON_BYTES];
    int rc = 0;
    if (!encode_body(i, "text.generate", &body)) return;
    if (!encode_model(s, i, &t, &context, &bos)) return;
    if (body.messages.data)
        encode_messages(s, i, &body, t, &prompt);
    else if ((rc = tokenizer_encode(t, body.prompt, true, 0, i->arena, &prompt, err, sizeof err)) <
             0)
        item_fail_rc(i, rc, err);
    if (!prompt.ids) return; /* it has failed */
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
