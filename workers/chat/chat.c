#include "workers/chat/chat.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "workers/chat/jinja.h"

#define CONFIG_BYTES (16u * 1024u * 1024u)
#define CONFIG_ARENA_BYTES (1024u * 1024u)
#define PATH_BYTES 4096u

struct chat {
    struct jinja *plain, *tools; /* NULL: the model has none */
    struct arena arena;
    struct value special; /* a dict: bos_token and its like */
};

/* ---- opening ---- */

static int parse(struct jinja **out, struct bytes source, const char *where, char *err,
                 size_t err_bytes) {
    char why[LIMIT_REASON_BYTES];
    int rc = jinja_open(out, source, why, sizeof why);
    return rc < 0 ? err_set(err, err_bytes, rc, "%s: %s", where, why) : 0;
}

/* chat_template of tokenizer_config.json: a text, or [{name, template}]. */
static int read_templates(struct chat *c, const struct json *j, const char *path, char *err,
                          size_t err_bytes) {
    char where[PATH_BYTES + 64];
    snprintf(where, sizeof where, "%s: chat_template", path);
    if (json_kind(j) == JSON_STR)
        return parse(&c->plain, bytes_of(json_str(j), json_str_len(j)), where, err, err_bytes);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_len(j); i++) {
        const struct json *text = json_get(json_at(j, i), "template");
        const char *name = json_str(json_get(json_at(j, i), "name"));
        if (!name || json_kind(text) != JSON_STR)
            return err_set(err, err_bytes, ERR_FIELD, "%s: [%zu]: is no {name, template}", where,
                           i);
        struct jinja **to = strcmp(name, "default") == 0    ? &c->plain
                            : strcmp(name, "tool_use") == 0 ? &c->tools
                                                            : NULL;
        if (to && !*to)
            rc = parse(to, bytes_of(json_str(text), json_str_len(text)), where, err, err_bytes);
    }
    return rc;
}

/* A special token is a text, or an object with its text in `content`. */
static int read_special(struct chat *c, const struct json *config) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        const struct json *token = json_get(config, names[i]);
        struct value v;
        if (json_kind(token) == JSON_OBJECT) token = json_get(token, "content");
        if (json_kind(token) != JSON_STR) continue;
        if ((rc = value_of_json(&c->arena, token, &v)) == 0)
            rc = value_put(&c->arena, c->special, value_text(bytes_str(names[i])), v);
    }
    return rc;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool chat_is_there(const struct chat *c) {
    return c->plain || c->tools;
}

static int read_config(struct chat *c, const char *dir, char *err, size_t err_bytes) {
    char path[PATH_BYTES], more[PATH_BYTES];
    struct json *config = NULL, *map = NULL;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    snprintf(more, sizeof more, "%s/special_tokens_map.json", dir);
    int rc = 0;
    if (is_file(path) && (rc = json_load(&config, path, CONFIG_BYTES, err, err_bytes)) != 0)
        return rc;
    if (!json_get(config, "added_tokens_decoder") && is_file(more))
        rc = json_load(&map, more, CONFIG_BYTES, err, err_bytes);
    if (rc == 0 && (read_special(c, config) != 0 || read_special(c, map) != 0))
        rc = err_set(err, err_bytes, ERR_LIMIT, "%s: its special tokens take too much room", path);
    if (rc == 0 && !chat_is_there(c))
        rc = read_templates(c, json_get(config, "chat_template"), path, err, err_bytes);
    json_free(config);
    json_free(map);
    return rc;
}

/* A template that is a file of its own; one that is not there stays NULL. */
static int read_file(struct jinja **out, const char *dir, const char *name, char *err,
                     size_t err_bytes) {
    char path[PATH_BYTES];
    void *text;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!is_file(path)) return 0;
    int rc = file_read(path, JINJA_SOURCE_BYTES, &text, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    rc = parse(out, bytes_of(text, bytes), path, err, err_bytes);
    free(text);
    return rc;
}

int chat_open(struct chat **out, const char *dir, char *err, size_t err_bytes) {
    struct chat *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return err_set(err, err_bytes, -ENOMEM, "no memory for a chat template");
    arena_init(&c->arena, CONFIG_ARENA_BYTES);
    int rc = value_dict(&c->arena, JV_DICT, 0, &c->special);
    if (rc != 0) err_set(err, err_bytes, rc, "no memory for a chat template");
    if (rc == 0) rc = read_file(&c->plain, dir, "chat_template.jinja", err, err_bytes);
    if (rc == 0)
        rc = read_file(&c->tools, dir, "additional_chat_templates/tool_use.jinja", err, err_bytes);
    if (rc == 0) rc = read_config(c, dir, err, err_bytes);
    if (rc < 0)
        chat_close(c);
    else
        *out = c;
    return rc;
}

void chat_close(struct chat *c) {
    if (!c) return;
    jinja_close(c->plain);
    jinja_close(c->tools);
    arena_fini(&c->arena);
    free(c);
}

/* ---- rendering ---- */

int chat_json(struct json **out, struct bytes text, char *err, size_t err_bytes) {
    const unsigned char *s = text.data;
    bool inside = false; /* of a string */
    size_t run = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (inside && s[i] == '\\')
            i++;
        else if (s[i] == '"')
            inside = !inside;
        run = !inside && i < text.len && isdigit(s[i]) ? run + 1 : 0;
        if (run <= 18) continue;
        *out = NULL;
        return err_set(err, err_bytes, ERR_FIELD,
                       "a number of more than 18 digits: send it as a string");
    }
    return json_parse(out, text.data, text.len, err, err_bytes);
}

static int no_room(char *err, size_t err_bytes) {
    return err_set(err, err_bytes, ERR_LIMIT,
                   "the messages take more than %u bytes of memory, or nest more than %u deep",
                   JINJA_RENDER_BYTES, JINJA_NEST_MAX);
}

static int put(struct arena *a, struct value dict, const char *name, struct value v) {
    return value_put(a, dict, value_text(bytes_str(name)), v);
}

/* What a message's reasoning is called goes by several names: each template finds its own. */
static int alias_reasoning(struct arena *a, struct value *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct value *found = NULL;
    struct value all;
    for (int i = 0; !found && i < 3; i++) found = value_member(*message, names[i]);
    if (!found) return 0;
    const struct value thoughts = *found;
    int rc = value_dict(a, JV_DICT, message->dict->n + 2, &all);
    if (rc == 0) rc = put(a, all, "thinking", thoughts);
    for (uint32_t i = 0; rc == 0 && i < message->dict->n; i++)
        rc = value_put(a, all, message->dict->pairs[i].key, message->dict->pairs[i].value);
    if (rc == 0) rc = put(a, all, names[0], thoughts);
    *message = all;
    return rc;
}

static int read_message(struct arena *a, const struct json *j, struct value *out) {
    struct value whole;
    int rc = value_of_json(a, j, &whole);
    if (rc == 0) rc = value_dict(a, JV_DICT, whole.dict->n, out);
    for (uint32_t i = 0; rc == 0 && i < whole.dict->n; i++)
        if (whole.dict->pairs[i].value.kind != JV_NONE)
            out->dict->pairs[out->dict->n++] = whole.dict->pairs[i];
    return rc == 0 ? alias_reasoning(a, out) : rc;
}

static int read_messages(struct arena *a, const struct json *j, struct value *out, char *err,
                         size_t err_bytes) {
    if (json_kind(j) != JSON_ARRAY || json_len(j) == 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "messages: must be a list of at least one {\"role\", \"content\"}");
    int rc = value_seq(a, JV_LIST, (uint32_t)json_len(j), out);
    for (size_t i = 0; rc == 0 && i < json_len(j); i++) {
        const struct json *m = json_at(j, i);
        struct value message;
        if (json_kind(m) != JSON_OBJECT)
            return err_set(err, err_bytes, ERR_FIELD,
                           "messages[%zu]: must be an object with role and content", i);
        if (!json_str(json_get(m, "role")))
            return err_set(err, err_bytes, ERR_FIELD,
                           "messages[%zu].role: must be a string, such as \"user\"", i);
        if ((rc = read_message(a, m, &message)) == 0) rc = value_push(a, *out, message);
    }
    return rc == 0 ? 0 : no_room(err, err_bytes);
}

static int read_tools(struct arena *a, const struct json *j, struct value *out, char *err,
                      size_t err_bytes) {
    *out = value_none();
    if (json_kind(j) == JSON_NULL) return 0;
    bool objects = json_kind(j) == JSON_ARRAY;
    for (size_t i = 0; objects && i < json_len(j); i++)
        objects = json_kind(json_at(j, i)) == JSON_OBJECT;
    if (!objects)
        return err_set(err, err_bytes, ERR_FIELD,
                       "tools: must be a list of objects, each a function's JSON schema");
    return value_of_json(a, j, out) == 0 ? 0 : no_room(err, err_bytes);
}

/* The template's variables, as chat.h lists them. */
static int read_vars(const struct chat *c, const struct chat_input *in, struct arena *a,
                     struct value *out, char *err, size_t err_bytes) {
    struct value messages, tools, vars;
    const struct json *own = json_get(in->vars, "tools");
    if (json_kind(in->vars) != JSON_NULL && json_kind(in->vars) != JSON_OBJECT)
        return err_set(err, err_bytes, ERR_FIELD, "template_vars: must be an object");
    int rc = read_messages(a, in->messages, &messages, err, err_bytes);
    if (rc == 0) rc = read_tools(a, in->tools ? in->tools : own, &tools, err, err_bytes);
    if (rc != 0) return rc;
    if ((rc = value_dict(a, JV_DICT, c->special.dict->n + 8, out)) == 0)
        rc = put(a, *out, "documents", value_none());
    if (rc == 0) rc = put(a, *out, "add_generation_prompt", value_bool(in->add_generation_prompt));
    for (uint32_t i = 0; rc == 0 && i < c->special.dict->n; i++)
        rc = value_put(a, *out, c->special.dict->pairs[i].key, c->special.dict->pairs[i].value);
    if (rc == 0 && json_len(in->vars) > 0 && (rc = value_of_json(a, in->vars, &vars)) == 0)
        for (uint32_t i = 0; rc == 0 && i < vars.dict->n; i++)
            rc = value_put(a, *out, vars.dict->pairs[i].key, vars.dict->pairs[i].value);
    if (rc == 0) rc = put(a, *out, "messages", messages);
    if (rc == 0) rc = put(a, *out, "tools", tools);
    return rc == 0 ? 0 : no_room(err, err_bytes);
}

int chat_render(const struct chat *c, const struct chat_input *in, struct arena *a,
                struct bytes *out, char *err, size_t err_bytes) {
    char why[LIMIT_REASON_BYTES];
    struct arena room;
    struct value vars;
    struct buf text = {.max_bytes = CHAT_TEXT_BYTES};
    *out = (struct bytes){0};
    if (!chat_is_there(c))
        return err_set(err, err_bytes, ERR_FIELD,
                       "messages: this model has no chat template: send a prompt instead");
    arena_init(&room, JINJA_RENDER_BYTES);
    int rc = read_vars(c, in, &room, &vars, err, err_bytes);
    if (rc == 0) {
        bool tools = value_member(vars, "tools")->kind != JV_NONE;
        const struct jinja *t = tools && c->tools ? c->tools : c->plain;
        if (!t)
            rc = err_set(err, err_bytes, ERR_FIELD,
                         "messages: this model's chat template is for tools: send tools too");
        else if ((rc = jinja_render(t, &room, vars, in->now_s, &text, why, sizeof why)) < 0)
            err_set(err, err_bytes, rc, "messages: chat template: %s", why);
    }
    if (rc == 0) {
        const char *copy = arena_strndup(a, text.data ? (char *)text.data : "", text.len);
        *out = bytes_of(copy, text.len);
        if (!copy)
            rc = err_set(err, err_bytes, -ENOMEM, "no memory for a text of %zu bytes", text.len);
    }
    arena_fini(&room);
    buf_fini(&text);
    return rc;
}

int chat_read(struct chat_input *in, const struct json *document, char *err, size_t err_bytes) {
    size_t it = 0;
    const char *key;
    const struct json *value;
    if (json_kind(document) == JSON_ARRAY) in->messages = document;
    while (json_next(document, &it, &key, &value)) {
        if (strcmp(key, "messages") == 0)
            in->messages = value;
        else if (strcmp(key, "tools") == 0)
            in->tools = value;
        else if (strcmp(key, "template_vars") == 0)
            in->vars = value;
        else
            return err_set(err, err_bytes, ERR_FIELD,
                           "%.60s: not one of messages, tools, template_vars", key);
    }
    if (in->messages) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "neither a list of messages nor an object with messages");
}

int chat_encode(const struct chat *c, const struct chat_input *in, const struct tokenizer *t,
                struct arena *a, struct tokens *out, char *err, size_t err_bytes) {
    struct bytes text;
    *out = (struct tokens){0};
    int rc = chat_render(c, in, a, &text, err, err_bytes);
    return rc < 0 ? rc : tokenizer_encode(t, text, false, 0, a, out, err, err_bytes);
}
