#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "schemas/json_schema.h"
#include "schemas/kinds.h"
#include "schemas/pack.h"
#include "schemas/walk.h"
#include "tests/wire/random_msg.h"

static int check(const char *kind, struct buf *b, void *out, struct refusal *why) {
    memset(why, 0, sizeof *why);
    int rc = kind_decode(kind_find(bytes_str(kind)), buf_bytes(b), out, why);
    buf_fini(b);
    return rc;
}

static bool is_text(struct bytes raw) {
    struct reader r = reader_of(raw);
    struct walk_token t;
    return raw.len && walk_token(&r, &t, NULL) == 0 && t.kind == PACK_STR;
}

/* Random fields need not go with each other. */
static void make_fit(struct kind_text_generate *g) {
    struct bytes *const values[] = {&g->messages, &g->tools, &g->template_vars, &g->schema};
    for (uint32_t i = 0; i < 4; i++)
        if (is_text(*values[i])) *values[i] = bytes_of("\xA2[]", 3);
    if (!g->messages.len) g->tools = g->template_vars = (struct bytes){NULL, 0};
    if (g->schema.len) g->stop = (struct field_strs){.count = 0};
}

Test(kinds, every_kind_decodes_to_what_was_encoded) {
    uint64_t seed = 3;
    struct arena pool;
    arena_init(&pool, 64u << 20);
    const struct kind_desc *k;
    for (uint32_t i = 0; (k = kind_at(i)); i++) {
        cr_assert_eq(kind_find(bytes_str(k->name)), k);
        for (int round = 0; round < 200; round++) {
            void *in = calloc(1, k->struct_bytes), *out = calloc(1, k->struct_bytes);
            random_fields(k->fields, k->n, &seed, &pool, in);
            if (strcmp(k->name, "text.generate") == 0) make_fit(in);
            struct buf b = {0};
            struct refusal why;
            cr_assert_eq(field_encode(k->fields, k->n, in, &b), 0, "%s", k->name);
            int rc = kind_decode(k, buf_bytes(&b), out, &why);
            cr_assert_eq(rc, 0, "%s: %s", k->name, rc ? why.message : "");
            cr_assert(fields_equal(k->fields, k->n, in, out), "%s, round %d", k->name, round);
            cr_assert_eq(kind_decode(k, buf_bytes(&b), NULL, &why), 0, "checking alone");
            buf_fini(&b);
            free(in);
            free(out);
            arena_reset(&pool);
        }
    }
    arena_fini(&pool);
}

Test(kinds, a_name_that_nobody_registered_is_not_found) {
    cr_assert_null(kind_find(bytes_str("text.sing")));
    cr_assert_null(kind_find(bytes_of(NULL, 0)));
}

Test(kinds, generate_has_the_defaults_of_the_table) {
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 1);
    pack_kv_str(&p, "prompt", "");
    struct kind_text_generate g;
    struct refusal why;
    cr_assert_eq(check("text.generate", &b, &g, &why), 0);
    cr_assert_eq(g.max_tokens, 128);
    cr_assert_float_eq(g.top_p, 1, 0);
    cr_assert_float_eq(g.temperature, 0, 0);
    cr_assert(g.stream);
    cr_assert_eq(g.stop.count, 0);
}

Test(kinds, the_first_choice_is_the_default_also_for_an_empty_string) {
    struct kind_contract_analyze c;
    struct refusal why;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 2);
    pack_kv_str(&p, "text", "x");
    pack_kv_str(&p, "language", "");
    cr_assert_eq(check("contract.analyze", &b, &c, &why), 0);
    cr_assert(bytes_is(c.language, "auto"));
    pack_map(&p, 2);
    pack_kv_str(&p, "text", "x");
    pack_kv_str(&p, "language", "fr");
    cr_assert_eq(check("contract.analyze", &b, &c, &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "choice");
    cr_assert_str_eq(why.limit, "one of auto|en|zh");
}

Test(kinds, of_fields_that_exclude_each_other_exactly_one_is_given) {
    struct kind_contract_analyze c = {0};
    struct refusal why;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 1);
    pack_kv_str(&p, "title", "x");
    cr_assert_eq(check("contract.analyze", &b, &c, &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "missing");
    cr_assert_str_eq(why.message, "none of 'document', 'text' is given");
    cr_assert_str_eq(why.fix, "give one of 'document', 'text'");
    pack_map(&p, 2);
    pack_kv_str(&p, "text", "x");
    pack_kv_str(&p, "document", "x");
    cr_assert_eq(check("contract.analyze", &b, &c, &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "conflict");
    cr_assert(strstr(why.message, "'document'") && strstr(why.message, "'text'"), "%s",
              why.message);
    pack_map(&p, 2);
    pack_str(&p, "text");
    pack_nil(&p);
    pack_kv_str(&p, "document", "x");
    cr_assert_eq(check("contract.analyze", &b, &c, &why), 0, "nil is absent: %s", why.message);
    cr_assert(c.document.len == 1 && c.text.len == 0); /* what it borrowed is gone */
    const struct kind_desc *k = kind_find(bytes_str("contract.analyze"));
    c.document = bytes_str("x");
    c.text = bytes_str("y");
    cr_assert_eq(field_encode(k->fields, k->n, &c, &b), ERR_FIELD, "the sender's own mistake");
    c.text = c.document = (struct bytes){NULL, 0};
    cr_assert_eq(field_encode(k->fields, k->n, &c, &b), ERR_FIELD);
    buf_fini(&b);
}

Test(kinds, numbers_may_be_integers_but_not_nan) {
    struct kind_text_generate g;
    struct refusal why;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 2);
    pack_kv_str(&p, "prompt", "");
    pack_kv_u64(&p, "temperature", 1);
    cr_assert_eq(check("text.generate", &b, &g, &why), 0);
    cr_assert_float_eq(g.temperature, 1, 0);
    const double bad[] = {(double)NAN, (double)INFINITY, -0.1, 2.1};
    for (int i = 0; i < 4; i++) {
        pack_map(&p, 2);
        pack_kv_str(&p, "prompt", "");
        pack_kv_f64(&p, "temperature", bad[i]);
        cr_assert_eq(check("text.generate", &b, &g, &why), ERR_LIMIT, "%g", bad[i]);
        cr_assert_str_eq(why.field, "temperature");
    }
}

Test(kinds, a_text_over_its_limit_is_refused_and_at_its_limit_taken) {
    char *text = malloc(LIMIT_TEXT_BYTES + 1);
    memset(text, 'x', LIMIT_TEXT_BYTES + 1);
    for (size_t more = 0; more <= 1; more++) {
        struct buf b = {0};
        struct packer p = packer_of(&b);
        pack_map(&p, 1);
        pack_str(&p, "text");
        pack_strn(&p, bytes_of(text, LIMIT_TEXT_BYTES + more));
        struct refusal why;
        cr_assert_eq(check("contract.analyze", &b, NULL, &why), more ? ERR_LIMIT : 0);
        if (more) cr_assert_str_eq(why.limit, "a string of 1 to 786432 bytes");
    }
    free(text);
}

Test(kinds, a_list_is_walked_and_its_bounds_are_checked) {
    struct kind_text_embed e;
    struct refusal why;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, 3);
    pack_str(&p, "one");
    pack_str(&p, "");
    pack_str(&p, "\xE4\xB8\x89");
    cr_assert_eq(kind_decode(kind_find(bytes_str("text.embed")), buf_bytes(&b), &e, &why), 0);
    cr_assert_eq(e.texts.count, 3);
    struct field_strs_it it = field_strs_begin(e.texts);
    struct bytes text;
    const char *const want[] = {"one", "", "\xE4\xB8\x89"};
    for (int i = 0; i < 3; i++) {
        cr_assert(field_strs_next(&it, &text));
        cr_assert(bytes_is(text, want[i]));
    }
    cr_assert_not(field_strs_next(&it, &text));
    buf_clear(&b);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, 0);
    cr_assert_eq(check("text.embed", &b, NULL, &why), ERR_LIMIT);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, 1);
    pack_u64(&p, 1);
    cr_assert_eq(check("text.embed", &b, NULL, &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "type");
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, LIMIT_TEXTS + 1);
    for (uint32_t i = 0; i <= LIMIT_TEXTS; i++) pack_str(&p, "x");
    cr_assert_eq(check("text.embed", &b, NULL, &why), ERR_LIMIT);
}

Test(kinds, a_body_that_is_not_a_map_is_refused) {
    struct refusal why;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_str(&p, "text");
    cr_assert_eq(check("text.embed", &b, NULL, &why), ERR_FIELD);
    cr_assert_str_eq(why.code, "type");
    cr_assert_neq(why.fix[0], '\0');
}

/* ---- JSON ---- */

Test(json_schema, every_field_of_every_kind_is_described) {
    const struct kind_desc *k;
    for (uint32_t i = 0; (k = kind_at(i)); i++) {
        struct json *j;
        cr_assert_eq(json_schema(k, &j), 0);
        cr_assert_str_eq(json_str(json_get(j, "title")), k->name);
        const struct json *fields = json_get(j, "properties");
        cr_assert_eq(json_len(fields), k->n);
        size_t required = 0, one_of = 0;
        for (uint32_t f = 0; f < k->n; f++) {
            const struct json *one = json_get(fields, k->fields[f].name);
            if (k->fields[f].type != FIELD_PACK) /* any value */
                cr_assert_not_null(json_str(json_get(one, "type")));
            cr_assert_not_null(json_str(json_get(one, "description")));
            required += k->fields[f].required;
            one_of += k->fields[f].one_of;
        }
        cr_assert_eq(json_len(json_get(j, "required")), required);
        cr_assert_eq(json_len(json_get(j, "oneOf")), one_of);
        char *text = json_text(j, 2);
        struct json *again;
        cr_assert_eq(json_parse(&again, text, strlen(text), NULL, 0), 0);
        json_free(again);
        free(text);
        json_free(j);
    }
}

Test(json_schema, bounds_and_choices_are_those_of_the_row) {
    struct json *j;
    cr_assert_eq(json_schema(kind_find(bytes_str("contract.analyze")), &j), 0);
    const struct json *language = json_get(json_get(j, "properties"), "language");
    cr_assert_eq(json_len(json_get(language, "enum")), 3);
    cr_assert_str_eq(json_str(json_get(language, "default")), "auto");
    const struct json *text = json_get(json_get(j, "properties"), "text");
    cr_assert_eq(json_int(json_get(text, "maxLength"), 0), LIMIT_TEXT_BYTES);
    const struct json *branches = json_get(j, "oneOf");
    cr_assert_eq(json_len(branches), 2);
    cr_assert_str_eq(json_str(json_at(json_get(json_at(branches, 0), "required"), 0)), "document");
    cr_assert_str_eq(json_str(json_at(json_get(json_at(branches, 1), "required"), 0)), "text");
    json_free(j);
}

Test(json_schema, json_survives_the_way_through_msgpack) {
    static const char text[] = "{\"a\":[1,-2,2.5,true,null,\"\xE5\x90\x88\"],\"b\":{\"c\":{}}}";
    struct json *j, *back;
    struct buf b = {0};
    char err[128];
    cr_assert_eq(json_parse(&j, text, sizeof text - 1, err, sizeof err), 0, "%s", err);
    cr_assert_eq(json_to_pack(j, &b, err, sizeof err), 0);
    cr_assert_eq(json_from_pack(buf_bytes(&b), &back, err, sizeof err), 0, "%s", err);
    char *x = json_text(j, 0), *y = json_text(back, 0);
    cr_assert_str_eq(x, y);
    free(x);
    free(y);
    json_free(j);
    json_free(back);
    buf_fini(&b);
}

Test(json_schema, binary_becomes_base64_and_large_integers_keep_their_digits) {
    struct buf b = {0};
    struct packer p = packer_of(&b);
    pack_array(&p, 5);
    pack_bin(&p, bytes_of("\x00\xFF\x10", 3));
    pack_bin(&p, bytes_of("M", 1));
    pack_bin(&p, bytes_of("Ma", 2));
    pack_u64(&p, UINT64_MAX);
    pack_f64(&p, (double)NAN);
    struct json *j;
    cr_assert_eq(json_from_pack(buf_bytes(&b), &j, NULL, 0), 0);
    char *text = json_text(j, 0);
    cr_assert_str_eq(text, "[\"AP8Q\", \"TQ==\", \"TWE=\", \"18446744073709551615\", null]");
    free(text);
    json_free(j);
    buf_fini(&b);
}

Test(json_schema, json_nested_too_deep_is_refused_and_the_buffer_is_as_before) {
    char text[64] = "";
    for (int depth = 15; depth <= 18; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        struct json *j;
        struct buf b = {0};
        char err[128] = "";
        cr_assert_eq(json_parse(&j, text, 2 * (size_t)depth, err, sizeof err), 0);
        int rc = json_to_pack(j, &b, err, sizeof err);
        cr_assert_eq(rc, depth <= 16 ? 0 : ERR_LIMIT, "depth %d", depth);
        if (rc)
            cr_assert_eq(b.len, 0);
        else
            cr_assert_eq(pack_check(buf_bytes(&b), err, sizeof err), 0);
        buf_fini(&b);
        json_free(j);
    }
}
