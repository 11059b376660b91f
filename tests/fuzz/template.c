/* template.c - fuzzes a chat template together with what it is given: up to the first NUL is the
 * template, behind it JSON, a list of messages or {messages, tools, template_vars}. Whatever is
 * rendered is UTF-8, and the same a second time. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "workers/chat/chat.h"
#include "workers/chat/jinja.h"

#define TEXT_BYTES (64u * 1024u)
#define ROOM_BYTES (16u * 1024u * 1024u)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int render(const struct jinja *t, const struct json *given, struct buf *out) {
    struct chat_input in = {0};
    struct arena a;
    struct value vars, v;
    char err[256] = "";
    arena_init(&a, ROOM_BYTES);
    int rc = value_dict(&a, JV_DICT, 4, &vars);
    if (rc == 0 && chat_read(&in, given, err, sizeof err) == 0) {
        const struct json *const parts[] = {in.messages, in.tools, in.vars};
        static const char *const names[] = {"messages", "tools", "v"};
        for (int i = 0; rc == 0 && i < 3; i++)
            if ((rc = value_of_json(&a, parts[i], &v)) == 0)
                rc = value_put(&a, vars, value_text(bytes_str(names[i])), v);
    }
    if (rc == 0) rc = jinja_render(t, &a, vars, 1795511107, out, err, sizeof err);
    arena_fini(&a);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const uint8_t *nul = memchr(data, 0, bytes);
    size_t source = nul ? (size_t)(nul - data) : bytes;
    struct jinja *t;
    struct json *given = NULL;
    struct buf once = {.max_bytes = TEXT_BYTES}, twice = {.max_bytes = TEXT_BYTES};
    char err[256];
    if (jinja_open(&t, bytes_of(data, source), err, sizeof err) < 0) return 0;
    if (nul) chat_json(&given, bytes_of(nul + 1, bytes - source - 1), err, sizeof err);
    int rc = render(t, given, &once);
    if (rc == 0 && utf8_check(once.data, once.len) != once.len) abort();
    if (render(t, given, &twice) != rc) abort();
    if (rc == 0 && !bytes_eq(buf_bytes(&once), buf_bytes(&twice))) abort();
    buf_fini(&once);
    buf_fini(&twice);
    json_free(given);
    jinja_close(t);
    return 0;
}
