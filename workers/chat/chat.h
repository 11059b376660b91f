/* chat.h - conversations as the text that a chat model was trained on, by the model's own template.
 *
 * The template is chat_template.jinja of the model's directory, and where tools are given
 * additional_chat_templates/tool_use.jinja if it is there; else `chat_template` of
 * tokenizer_config.json: a text, or several with names, of which `tool_use` is taken where tools
 * are given, else `default`. It is given what transformers' apply_chat_template gives it:
 *
 *   messages               with `reasoning_content` and `thinking` filled from each other's names,
 *                          and without members that are null
 *   tools, documents       none if not given
 *   add_generation_prompt  false if not given
 *   bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token
 *                          from tokenizer_config.json, or special_tokens_map.json where the former
 *                          has no added_tokens_decoder
 *   other variables        as given; they go before the special tokens
 *
 * The text has the special tokens in it: it is tokenized without adding any.
 *
 * Units: bytes of UTF-8, seconds.  Owner: chat_open gives to chat_close.
 * Memory: the parsed templates; a rendering's own is freed before it returns, the text is in the
 * caller's arena.  Errors: ERR_FIELD, ERR_LIMIT with what is wrong and, for a message, its path in
 * err.  Threads: immutable once open. */
#ifndef PENSTOCK_WORKERS_CHAT_CHAT_H
#define PENSTOCK_WORKERS_CHAT_CHAT_H

#include "base/arena.h"
#include "base/bytes.h"
#include "workers/encode/tokenizer.h"

struct chat;
struct json;

#define CHAT_TEXT_BYTES (4u * 1024u * 1024u) /* that one conversation may become */

/* A directory without a template opens; one with a template that is not supported does not. */
int chat_open(struct chat **out, const char *dir, char *err, size_t err_bytes);
void chat_close(struct chat *c);          /* NULL is fine */
bool chat_is_there(const struct chat *c); /* whether it has a template */

/* JSON of messages, tools or variables. A number beyond 64 bits is refused, because the text of it
 * would be another than Python's. */
int chat_json(struct json **out, struct bytes text, char *err, size_t err_bytes);

struct chat_input {
    const struct json *messages; /* [{role, content, ...}] */
    const struct json *tools;    /* NULL, or a list of objects */
    const struct json *vars;     /* NULL, or an object: more variables; they go before the flag */
    bool add_generation_prompt;
    int64_t now_s; /* what strftime_now tells, UTC */
};
/* What a document says: a list of messages, or {messages, tools, template_vars}. The rest of the
 * input stays as it is. */
int chat_read(struct chat_input *in, const struct json *document, char *err, size_t err_bytes);

int chat_render(const struct chat *c, const struct chat_input *in, struct arena *a,
                struct bytes *out, char *err, size_t err_bytes);
/* The same as token ids, none added. */
int chat_encode(const struct chat *c, const struct chat_input *in, const struct tokenizer *t,
                struct arena *a, struct tokens *out, char *err, size_t err_bytes);

#endif
