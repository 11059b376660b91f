#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tests/wire/random_msg.h"
#include "tests/wire/readme.h"

#define README "schemas/README.md"

static char *read_readme(void) {
    void *text;
    size_t bytes;
    char err[256];
    cr_assert_eq(file_read(README, 4u << 20, &text, &bytes, err, sizeof err), 0, "%s", err);
    return text;
}

static struct json *read_examples(void) {
    struct json *j;
    char err[256];
    cr_assert_eq(json_load(&j, "schemas/examples.json", 1u << 20, err, sizeof err), 0, "%s", err);
    return j;
}

/* The text with every part made anew. */
static void rendered(const char *text, const struct json *examples, struct buf *out) {
    const char *at = text, *begin;
    while ((begin = strstr(at, "<!-- begin "))) {
        char name[32], end[48];
        cr_assert_eq(sscanf(begin, "<!-- begin %31[a-z] -->", name), 1);
        const char *body = strchr(begin, '\n') + 1;
        snprintf(end, sizeof end, "<!-- end %s -->", name);
        const char *rest = strstr(body, end);
        cr_assert_not_null(rest, "no '%s'", end);
        buf_append(out, at, (size_t)(body - at));
        cr_assert(readme_part(name, examples, out), "no part '%s'", name);
        at = rest;
    }
    buf_printf(out, "%s", at);
    cr_assert_eq(out->error, 0);
}

Test(readme, its_tables_and_examples_are_those_of_the_code) {
    char *text = read_readme();
    struct json *examples = read_examples();
    struct buf out = {0};
    rendered(text, examples, &out);
    if (getenv("PENSTOCK_WRITE_README"))
        cr_assert_eq(file_replace(README, out.data, out.len, NULL, 0), 0);
    else
        cr_assert(bytes_is(buf_bytes(&out), text),
                  "schemas/README.md is behind the tables: run build/test/wire with "
                  "PENSTOCK_WRITE_README=1 and commit what it writes");
    for (int i = 0; i < 4; i++) {
        static const char *const parts[] = {"messages", "kinds", "refusals", "limits"};
        char begin[64];
        snprintf(begin, sizeof begin, "<!-- begin %s -->", parts[i]);
        cr_assert(strstr(text, begin), "the part %s is there", parts[i]);
    }
    buf_fini(&out);
    json_free(examples);
    free(text);
}

/* ---- the examples, read from the Markdown alone ---- */

/* Reads "```hex NAME" and its lines into frames; returns behind it, NULL at the end. */
static const char *next_example(const char *at, char name[32], struct buf frame[LIMIT_FRAMES],
                                uint32_t *frames) {
    memset(frame, 0, LIMIT_FRAMES * sizeof *frame);
    at = strstr(at, "```hex ");
    if (!at) return NULL;
    cr_assert_eq(sscanf(at, "```hex %31s", name), 1);
    *frames = 1;
    for (at = strchr(at, '\n') + 1; strncmp(at, "```", 3) != 0; at = strchr(at, '\n') + 1) {
        if (strncmp(at, "-- ", 3) == 0) {
            (*frames)++;
            continue;
        }
        char line[128];
        size_t len = strcspn(at, "#\n"); /* the note begins at the # */
        cr_assert_lt(len, sizeof line);
        memcpy(line, at, len);
        line[len] = '\0';
        for (char *p = line, *end;; p = end) {
            unsigned long byte = strtoul(p, &end, 16);
            if (end == p) break;
            buf_u8(&frame[*frames - 1], (uint8_t)byte);
        }
    }
    return at;
}

Test(readme, its_examples_decode_and_encode_to_the_same_bytes) {
    char *text = read_readme(), name[32];
    struct buf frame[LIMIT_FRAMES];
    uint32_t frames, seen = 0, rows = 0;
    while (msg_desc_at(rows)) rows++;
    for (const char *at = text; (at = next_example(at, name, frame, &frames)); seen++) {
        struct bytes part[LIMIT_FRAMES];
        for (uint32_t i = 0; i < frames; i++) part[i] = buf_bytes(&frame[i]);
        const struct msg_desc *d;
        struct refusal why = {.message = ""};
        enum msg_direction any = (enum msg_direction)(MSG_C2B | MSG_B2C | MSG_W2B | MSG_B2W);
        cr_assert_eq(msg_open(part, frames, any, &d, &why), 0, "%s: %s", name, why.message);
        cr_assert_str_eq(d->name, name);
        void *in = calloc(1, d->struct_bytes);
        cr_assert_eq(msg_decode(d, part[1], in, &why), 0, "%s: %s", name, why.message);
        uint8_t tag[MSG_TAG_BYTES];
        struct buf again = {0};
        cr_assert_eq(msg_encode(d->type, in, tag, &again), 0);
        cr_assert(bytes_eq(buf_bytes(&again), part[1]), "%s", name);
        cr_assert(bytes_eq(bytes_of(tag, sizeof tag), part[0]), "%s", name);
        buf_fini(&again);
        free(in);
        for (uint32_t i = 0; i < frames; i++) buf_fini(&frame[i]);
    }
    cr_assert_eq(seen, rows, "%u examples for %u messages", seen, rows);
    free(text);
}
