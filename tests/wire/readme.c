#include "tests/wire/readme.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/json_schema.h"
#include "schemas/kinds.h"
#include "schemas/many.h"
#include "schemas/walk.h"

/* ---- tables of fields ---- */

static const char *type_word(const struct field *f) {
    static const char *const words[] = {"uint", "float",  "bool",  "str",
                                        "bin",  "job id", "[str]", "any"};
    return words[f->type];
}

static void print_choices(const char *choices, struct buf *out) {
    for (const char *at = choices; *at;) {
        size_t len = strcspn(at, "|");
        buf_printf(out, "%s`%.*s`", at == choices ? "" : ", ", (int)len, at);
        at += len + (at[len] == '|');
    }
}

static void print_max(uint64_t max, struct buf *out) {
    if (max == UINT64_MAX)
        buf_printf(out, "2^64-1");
    else
        buf_printf(out, "%" PRIu64, max);
}

static void print_bounds(const struct field *f, struct buf *out) {
    switch (f->type) {
    case FIELD_U64:
        buf_printf(out, "%" PRIu64 " to ", f->min);
        print_max(f->max, out);
        break;
    case FIELD_F64: buf_printf(out, "%g to %g", f->fmin, f->fmax); break;
    case FIELD_STR:
        if (f->choices)
            print_choices(f->choices, out);
        else
            buf_printf(out, "%" PRIu64 " to %" PRIu64 " bytes", f->min, f->max);
        break;
    case FIELD_STRS:
        buf_printf(out, "%" PRIu64 " to %" PRIu64 ", each at most %" PRIu64 " bytes", f->min,
                   f->max, f->item_max);
        break;
    case FIELD_BIN:
    case FIELD_PACK: buf_printf(out, "at most %" PRIu64 " bytes", f->max); break;
    case FIELD_BOOL:
    case FIELD_ID: break;
    }
}

static void print_default(const struct field *f, struct buf *out) {
    if (f->required)
        buf_printf(out, "**needed**");
    else if (f->one_of)
        buf_printf(out, "**one of these**");
    else if (f->type == FIELD_U64)
        buf_printf(out, "%" PRIu64, f->def_u64);
    else if (f->type == FIELD_F64)
        buf_printf(out, "%g", f->def_f64);
    else if (f->type == FIELD_BOOL)
        buf_printf(out, f->def_u64 ? "true" : "false");
    else if (f->choices)
        buf_printf(out, "`%.*s`", (int)strcspn(f->choices, "|"), f->choices);
}

static void print_doc(const char *doc, struct buf *out) {
    for (; *doc; doc++) buf_printf(out, *doc == '|' ? "\\|" : "%c", *doc);
}

static void print_fields(const struct field *fields, uint32_t n, struct buf *out) {
    buf_printf(out, "| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(out, "| `%s` | %s | ", fields[i].name, type_word(&fields[i]));
        print_default(&fields[i], out);
        buf_printf(out, " | ");
        print_bounds(&fields[i], out);
        buf_printf(out, " | ");
        print_doc(fields[i].doc, out);
        buf_printf(out, " |\n");
    }
}

/* ---- bytes with notes ---- */

enum { NOTE_COLUMN = 52, LINE_BYTES = 16 };

/* Sixteen bytes a line; the note stands behind the first line. */
static void print_bytes(const uint8_t *bytes, size_t n, uint32_t depth, const char *note,
                        struct buf *out) {
    for (size_t at = 0; at == 0 || at < n; at += LINE_BYTES) {
        size_t start = out->len;
        for (size_t i = at; i < n && i < at + LINE_BYTES; i++) buf_printf(out, "%02x ", bytes[i]);
        if (at == 0) {
            while (out->len - start < NOTE_COLUMN) buf_printf(out, " ");
            buf_printf(out, "# %*s%s", (int)(2 * depth), "", note);
        }
        while (out->data[out->len - 1] == ' ') out->len--;
        buf_printf(out, "\n");
    }
}

static void note_of(const struct walk_token *t, char *note, size_t room) {
    switch (t->kind) {
    case PACK_NIL: snprintf(note, room, "nil"); break;
    case PACK_BOOL: snprintf(note, room, t->b ? "true" : "false"); break;
    case PACK_U64: snprintf(note, room, "%" PRIu64, t->u); break;
    case PACK_I64: snprintf(note, room, "%" PRId64, t->i); break;
    case PACK_F64: snprintf(note, room, "%g", t->f); break;
    case PACK_STR:
        snprintf(note, room, "\"%.*s\"", (int)t->data.len, (const char *)t->data.data);
        break;
    case PACK_BIN: snprintf(note, room, "bin of %zu", t->data.len); break;
    case PACK_ARRAY: snprintf(note, room, "list of %u", t->n); break;
    case PACK_MAP: snprintf(note, room, "map of %u", t->n); break;
    }
}

static void print_value(struct reader *r, uint32_t depth, struct buf *out) {
    const uint8_t *start = r->at;
    struct walk_token t;
    char note[512];
    int rc = walk_token(r, &t, NULL);
    assert(rc == 0);
    note_of(&t, note, sizeof note);
    print_bytes(start, (size_t)(r->at - start), depth, note, out);
    uint64_t inside = t.kind == PACK_MAP ? 2ull * t.n : t.kind == PACK_ARRAY ? t.n : 0;
    for (uint64_t i = 0; i < inside; i++)
        print_value(r, depth + (t.kind == PACK_MAP && i % 2 ? 2 : 1), out);
}

/* ---- messages ---- */

/* The examples that this one names. */
static void many_example(const struct json *one, const struct json *examples, struct buf *out) {
    const struct json *names = json_get(one, "messages");
    uint32_t n = 0;
    for (size_t i = 0; i < json_len(names); i++) {
        struct buf inner[LIMIT_FRAMES];
        struct bytes frame[LIMIT_FRAMES];
        const struct msg_desc *d;
        for (uint32_t k = 0; (d = msg_desc_at(k)); k++)
            if (strcmp(d->name, json_str(json_at(names, i))) == 0) break;
        uint32_t frames = readme_frames(d, examples, inner);
        for (uint32_t k = 0; k < frames; k++) frame[k] = buf_bytes(&inner[k]);
        bool added = many_add(out, &n, frame, frames);
        assert(added);
        for (uint32_t k = 0; k < frames; k++) buf_fini(&inner[k]);
    }
    many_end(out, n);
}

uint32_t readme_frames(const struct msg_desc *d, const struct json *examples,
                       struct buf frame[LIMIT_FRAMES]) {
    const struct json *one = json_get(examples, d->name);
    const struct json *payload = json_get(one, "payload");
    struct buf given = {0};
    struct refusal why;
    char err[256];
    memset(frame, 0, LIMIT_FRAMES * sizeof *frame);
    if (!one || json_to_pack(json_get(one, "header"), &given, err, sizeof err) < 0) return 0;
    void *in = calloc(1, d->struct_bytes);
    int rc = msg_decode(d, buf_bytes(&given), in, &why);
    if (rc < 0) fprintf(stderr, "example %s: %s\n", d->name, why.message);
    assert(rc == 0);
    rc = msg_encode(d->type, in, buf_extend(&frame[0], MSG_TAG_BYTES), &frame[1]);
    assert(rc == 0);
    free(in);
    buf_fini(&given);
    uint32_t n = 2;
    if (d->type == MSG_MANY) many_example(one, examples, &frame[n++]);
    for (size_t i = 0; i < json_len(payload); i++) {
        rc = json_to_pack(json_at(payload, i), &frame[n++], err, sizeof err);
        assert(rc == 0);
    }
    return n;
}

static void print_example(const struct msg_desc *d, const struct json *examples, struct buf *out) {
    struct buf frame[LIMIT_FRAMES];
    uint32_t n = readme_frames(d, examples, frame);
    char note[64];
    assert(n >= 2);
    snprintf(note, sizeof note, "tag: \"PS\", major %d, %s", MSG_MAJOR, d->name);
    buf_printf(out, "\n```hex %s\n", d->name);
    print_bytes(frame[0].data, frame[0].len, 0, note, out);
    for (uint32_t i = 1; i < n; i++) {
        struct reader r = reader_of(buf_bytes(&frame[i]));
        if (i == 1)
            buf_printf(out, "-- header, %zu bytes\n", frame[i].len);
        else
            buf_printf(out, "-- payload %u, %zu bytes\n", i - 2, frame[i].len);
        print_value(&r, 0, out);
    }
    buf_printf(out, "```\n");
    for (uint32_t i = 0; i < n; i++) buf_fini(&frame[i]);
}

static const char *way_words(enum msg_direction way) {
    switch (way) {
    case MSG_C2B: return "client to broker";
    case MSG_B2C: return "broker to client";
    case MSG_W2B: return "worker to broker";
    case MSG_B2W: return "broker to worker";
    case MSG_B2A: return "broker to client or worker";
    case MSG_ANY: return "either way";
    }
    return "";
}

static void print_payload(const struct msg_desc *d, struct buf *out) {
    if (d->payload_max == 0)
        buf_printf(out, "no payload");
    else if (d->payload_min == d->payload_max)
        buf_printf(out, "%u payload frame%s", d->payload_min, d->payload_min == 1 ? "" : "s");
    else
        buf_printf(out, "%u to %u payload frames", d->payload_min, d->payload_max);
}

static void print_messages(const struct json *examples, struct buf *out) {
    const struct msg_desc *d;
    buf_printf(out, "| code | message | way | payload | what |\n|---|---|---|---|---|\n");
    for (uint32_t i = 0; (d = msg_desc_at(i)); i++) {
        buf_printf(out, "| `0x%02X` | [%s](#0x%02x-", d->type, d->name, d->type);
        for (const char *c = d->name; *c; c++) buf_u8(out, (uint8_t)tolower(*c));
        buf_printf(out, ") | %s | ", way_words(d->direction));
        print_payload(d, out);
        buf_printf(out, " | %s |\n", d->doc);
    }
    for (uint32_t i = 0; (d = msg_desc_at(i)); i++) {
        buf_printf(out, "\n### 0x%02X %s\n\n*%s, ", d->type, d->name, way_words(d->direction));
        print_payload(d, out);
        buf_printf(out, ".* %s\n\n", d->doc);
        print_fields(d->fields, d->n, out);
        print_example(d, examples, out);
    }
}

/* ---- the other parts ---- */

static void print_kinds(struct buf *out) {
    const struct kind_desc *k;
    for (uint32_t i = 0; (k = kind_at(i)); i++) {
        buf_printf(out, "%s#### `%s`\n\n%s\n\n", i ? "\n" : "", k->name, k->doc);
        print_fields(k->fields, k->n, out);
    }
}

static void print_refusals(struct buf *out) {
    buf_printf(out, "| code | try again? | meaning |\n|---|---|---|\n");
#define REFUSAL(code, again, meaning)                                                              \
    buf_printf(out, "| `%s` | %s | %s |\n", #code, again ? "later" : "no", meaning);
#include "schemas/refusals.def"
#undef REFUSAL
}

static void print_limits(struct buf *out) {
    const struct {
        const char *what;
        unsigned long value;
        const char *unit;
    } rows[] = {
        {"a frame", LIMIT_FRAME_BYTES, "bytes"},
        {"frames of a message, tag and header included", LIMIT_FRAMES, ""},
        {"a header to the broker", LIMIT_HEADER_BYTES, "bytes"},
        {"a header from the broker", LIMIT_FRAME_BYTES, "bytes"},
        {"payload frames of a body, a stage output or a result", LIMIT_PARTS, ""},
        {"nesting of a msgpack document", LIMIT_PACK_DEPTH, "levels"},
        {"values in a msgpack document, all levels together", LIMIT_PACK_ITEMS, ""},
        {"a job's body", LIMIT_BODY_BYTES, "bytes"},
        {"a body that travels with its SUBMIT", LIMIT_FRAME_BYTES, "bytes"},
        {"uploads that are open", LIMIT_UPLOADS, ""},
        {"of them of one tenant", LIMIT_TENANT_UPLOADS, ""},
        {"of them of one client connection", LIMIT_PEER_UPLOADS, ""},
        {"jobs of a SUBMIT_MANY", LIMIT_BATCH_JOBS, ""},
        {"messages of a MANY", LIMIT_MANY, ""},
        {"one text of a job", LIMIT_TEXT_BYTES, "bytes"},
        {"texts in a `text.embed` job", LIMIT_TEXTS, ""},
        {"names of kinds, pipelines, stages, models, workers", LIMIT_NAME_BYTES, "bytes"},
        {"an idempotency key", LIMIT_KEY_BYTES, "bytes"},
        {"a reason", LIMIT_REASON_BYTES, "bytes"},
        {"rows of a list", LIMIT_LIST_ROWS, ""},
        {"jobs that are not terminal", LIMIT_JOBS_QUEUED, ""},
        {"waits and event streams of one client connection", LIMIT_PEER_WATCHES, ""},
        {"registered workers", LIMIT_WORKERS, ""},
        {"leases of one worker", LIMIT_SPAN_JOBS, ""},
    };
    buf_printf(out, "| of | at most |\n|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        buf_printf(out, "| %s | %lu%s%s |\n", rows[i].what, rows[i].value,
                   rows[i].unit[0] ? " " : "", rows[i].unit);
}

bool readme_part(const char *name, const struct json *examples, struct buf *out) {
    if (strcmp(name, "messages") == 0)
        print_messages(examples, out);
    else if (strcmp(name, "kinds") == 0)
        print_kinds(out);
    else if (strcmp(name, "refusals") == 0)
        print_refusals(out);
    else if (strcmp(name, "limits") == 0)
        print_limits(out);
    else
        return false;
    return true;
}
