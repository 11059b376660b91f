#include "workers/schema/compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "workers/schema/decimal.h"
#include "workers/schema/pattern.h"

#define RULES_MAX 4096u
#define ITEMS_MAX 2048u
#define STARTS_MAX 64u
#define SEEN_MAX 4096 /* schemas that one choice may lead to */

enum { T_NULL = 1, T_BOOL = 2, T_INT = 4, T_FRACTION = 8, T_STR = 16, T_ARRAY = 32, T_OBJECT = 64 };

/* A schema that has its rule; rules are filled one after the other. */
struct todo {
    const struct json *schema;
    const char *place;
    uint32_t rule;
};
struct compiler {
    struct grammar *g;
    const struct json *root;
    struct todo todo[RULES_MAX];
    uint32_t n;
    struct arena arena;
    char *err;
    size_t err_bytes;
    int rc;
};

static void refuse(struct compiler *c, int rc, const char *place, const char *what,
                   const char *why) {
    if (c->rc == 0)
        c->rc = err_set(c->err, c->err_bytes, rc, "schema: %.120s: %.60s %.200s", place, what, why);
}

static const char *below(struct compiler *c, const char *place, const char *key) {
    const char *p = arena_printf(&c->arena, "%s/%.60s", place, key);
    if (!p) refuse(c, -ENOMEM, "#", "no memory", "");
    return p ? p : place;
}

/* The rule of a schema; made now, filled later. */
static uint32_t rule_of(struct compiler *c, const struct json *schema, const char *place) {
    for (uint32_t i = 0; i < c->n; i++)
        if (c->todo[i].schema == schema && json_kind(schema) == JSON_OBJECT) return c->todo[i].rule;
    if (c->n == RULES_MAX) refuse(c, ERR_LIMIT, place, "the schema", "has more than 4096 parts");
    if (c->rc) return 0;
    uint32_t rule = grammar_rule(c->g);
    c->todo[c->n++] = (struct todo){schema, place, rule};
    return rule;
}

/* ---- keywords ---- */

static bool is_in(const char *list, const char *key) {
    char name[66];
    snprintf(name, sizeof name, " %.60s ", key);
    return !strchr(key, ' ') && strstr(list, name);
}

#define ANNOTATIONS                                                                                \
    " $schema $id $comment $defs definitions title description default examples deprecated "       \
    "readOnly writeOnly "

static void check_keywords(struct compiler *c, const struct json *s, const char *place) {
    static const char *const known =
        ANNOTATIONS "type const enum anyOf oneOf allOf $ref minLength maxLength pattern format "
                    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf items "
                    "prefixItems minItems maxItems "
                    "properties required additionalProperties ";
    const char *key;
    const struct json *value;
    size_t it = 0;
    while (json_next(s, &it, &key, &value))
        if (!is_in(known, key)) refuse(c, ERR_FIELD, place, key, "is not supported");
}

static uint32_t type_bit(const char *name) {
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    static const uint32_t bits[] = {T_NULL, T_BOOL,  T_INT,   T_INT | T_FRACTION,
                                    T_STR,  T_ARRAY, T_OBJECT};
    for (uint32_t i = 0; name && i < 7; i++)
        if (strcmp(name, names[i]) == 0) return bits[i];
    return 0;
}

static void refuse_type(struct compiler *c, const char *place, const struct json *type) {
    const char *name = json_str(type);
    const char *why =
        arena_printf(&c->arena,
                     "%s%.60s%s is none of null, boolean, integer, number, string, "
                     "array, object",
                     name ? "\"" : "", name ? name : "that is no string", name ? "\"" : "");
    refuse(c, why ? ERR_FIELD : -ENOMEM, place, "type", why ? why : "no memory");
}

static uint32_t value_type(const struct json *v) {
    switch (json_kind(v)) {
    case JSON_NULL: return T_NULL;
    case JSON_BOOL: return T_BOOL;
    case JSON_INT: return T_INT;
    case JSON_REAL: return T_FRACTION;
    case JSON_STR: return T_STR;
    case JSON_ARRAY: return T_ARRAY;
    default: return T_OBJECT;
    }
}

/* The types that a schema names, or those that its keywords are about; 0: any. */
static uint32_t types_of(struct compiler *c, const struct json *s, const char *place) {
    static const struct {
        const char *key;
        uint32_t type;
    } about[] = {{"minLength", T_STR},
                 {"maxLength", T_STR},
                 {"pattern", T_STR},
                 {"format", T_STR},
                 {"minimum", T_INT | T_FRACTION},
                 {"maximum", T_INT | T_FRACTION},
                 {"exclusiveMinimum", T_INT | T_FRACTION},
                 {"exclusiveMaximum", T_INT | T_FRACTION},
                 {"multipleOf", T_INT | T_FRACTION},
                 {"items", T_ARRAY},
                 {"prefixItems", T_ARRAY},
                 {"minItems", T_ARRAY},
                 {"maxItems", T_ARRAY},
                 {"properties", T_OBJECT},
                 {"required", T_OBJECT}};
    const struct json *type = json_get(s, "type");
    uint32_t types = 0;
    if (json_kind(type) == JSON_ARRAY) {
        for (size_t i = 0; i < json_len(type); i++) {
            uint32_t bit = type_bit(json_str(json_at(type, i)));
            if (!bit) refuse_type(c, place, json_at(type, i));
            types |= bit;
        }
    } else if (type) {
        types = type_bit(json_str(type));
    }
    if (type && !types) refuse_type(c, place, type);
    for (uint32_t i = 0; !type && i < sizeof about / sizeof *about; i++)
        if (json_get(s, about[i].key)) types |= about[i].type;
    return types;
}

static uint32_t whole(struct compiler *c, const struct json *s, const char *place, const char *key,
                      uint32_t max, uint32_t otherwise) {
    const struct json *j = json_get(s, key);
    if (!j) return otherwise;
    int64_t v = json_int(j, -1);
    if (v < 0 || v > max) refuse(c, ERR_LIMIT, place, key, "is not a whole number, or too large");
    return v < 0 || v > max ? otherwise : (uint32_t)v;
}

/* ---- values ---- */

/* Numbers that 16 digits, or a double, do not hold would be written as others. */
static bool reads_back(const struct json *v, const char *text) {
    struct json *again;
    char err[200];
    bool same = json_parse(&again, text, strlen(text), err, sizeof err) == 0 && json_same(v, again);
    json_free(again);
    return same;
}

static uint32_t literals(struct compiler *c, const struct json *s, const char *place,
                         uint32_t types) {
    const struct json *list = json_get(s, "enum"), *only = json_get(s, "const");
    size_t n = only ? 1 : json_len(list), kept = 0;
    struct grammar_literal *l = arena_calloc(&c->arena, n + 1, sizeof *l);
    const char *key;
    const struct json *value;
    size_t it = 0;
    while (json_next(s, &it, &key, &value))
        if (!is_in(ANNOTATIONS "const enum type ", key))
            refuse(c, ERR_FIELD, place, key, "beside const or enum is not supported");
    if (only && list) refuse(c, ERR_FIELD, place, "enum", "beside const is not supported");
    if (!only && json_kind(list) != JSON_ARRAY) refuse(c, ERR_FIELD, place, "enum", "is no list");
    for (size_t i = 0; l && !c->rc && i < n; i++) {
        const struct json *v = only ? only : json_at(list, i);
        if (types && !(value_type(v) & types)) continue;
        char *text = json_text(v, 0);
        char *copy = text ? arena_strndup(&c->arena, text, strlen(text)) : NULL;
        if (text && !reads_back(v, text))
            refuse(c, ERR_LIMIT, place, only ? "const" : "enum",
                   "has a number of more than 16 digits; write it with fewer");
        free(text);
        if (!copy) refuse(c, -ENOMEM, place, "no memory", "");
        if (copy)
            l[kept++] = (struct grammar_literal){(const uint8_t *)copy, (uint32_t)strlen(copy),
                                                 GRAMMAR_END};
    }
    uint32_t state = grammar_state(c->g, false);
    if (l && !c->rc) grammar_literals(c->g, state, l, (uint32_t)kept);
    return state;
}

static uint32_t word(struct compiler *c, const char *a, const char *b) {
    struct grammar_literal l[2] = {{(const uint8_t *)a, (uint32_t)strlen(a), GRAMMAR_END},
                                   {(const uint8_t *)b, (uint32_t)strlen(b), GRAMMAR_END}};
    uint32_t state = grammar_state(c->g, false);
    grammar_literals(c->g, state, l, 2);
    return state;
}

static const char *format_pattern(const char *name) {
#define YEAR "(\\d{3}[1-9]|\\d\\d[1-9]0|\\d[1-9]00|[1-9]000)" /* not 0000 */
#define DATE                                                                                       \
    "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)"           \
    "|02-(0[1-9]|1\\d|2[0-8])))"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
    static const struct {
        const char *name, *pattern;
    } formats[] = {{"date", "^" DATE "$"},
                   {"time", "^" TIME "$"},
                   {"date-time", "^" DATE "T" TIME "$"},
                   {"uuid", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
                   {"ipv4", "^" OCTET "(\\." OCTET "){3}$"}};
    for (uint32_t i = 0; name && i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0) return formats[i].pattern;
    return NULL;
}

static uint32_t string(struct compiler *c, const struct json *s, const char *place) {
    uint32_t min = whole(c, s, place, "minLength", 65536, 0), n = 0, state = GRAMMAR_END;
    uint32_t max = whole(c, s, place, "maxLength", GRAMMAR_CHARS_MAX, GRAMMAR_CHARS_MAX);
    const struct json *pattern = json_get(s, "pattern"), *format = json_get(s, "format");
    const char *texts[2];
    char why[200];
    if (pattern && !json_str(pattern)) refuse(c, ERR_FIELD, place, "pattern", "is no string");
    if (pattern && json_str(pattern)) texts[n++] = json_str(pattern);
    if (format && !format_pattern(json_str(format)))
        refuse(c, ERR_FIELD, place, "format", "is none of date, time, date-time, uuid, ipv4");
    if (format && !c->rc) texts[n++] = format_pattern(json_str(format));
    if (max < min) refuse(c, ERR_FIELD, place, "maxLength", "is below minLength");
    if (c->rc) return state;
    if (n == 0) return grammar_call(c->g, grammar_text(c->g, min, max), GRAMMAR_END);
    int rc = pattern_states(c->g, texts, n, min, max, &state, why, sizeof why);
    if (rc) refuse(c, rc, place, pattern ? "pattern" : "format", why);
    return state;
}

static uint32_t number(struct compiler *c, const struct json *s, const char *place,
                       uint32_t types) {
    static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum",
                                       "exclusiveMaximum"};
    struct decimal_range r = {.integer = !(types & T_FRACTION)};
    const struct json *multiple = json_get(s, "multipleOf");
    int64_t factor = json_int(multiple, 0);
    if (multiple && (factor < 1 || factor > DECIMAL_MULTIPLE_MAX))
        refuse(c, ERR_FIELD, place, "multipleOf", "is supported for whole numbers from 1 to 200");
    if (multiple && !c->rc) r.integer = true, r.multiple = (uint32_t)factor;
    char why[100];
    for (uint32_t i = 0; i < 4; i++) {
        const struct json *j = json_get(s, keys[i]);
        struct decimal d;
        if (!j) continue;
        int rc = decimal_read(j, &d, why, sizeof why);
        if (rc == 0 && !r.integer && d.whole > DECIMAL_DIGITS)
            rc = err_set(why, sizeof why, ERR_FIELD, "needs more than 15 digits");
        if (rc) {
            refuse(c, rc, place, keys[i], why);
        } else if (i < 2) {
            if (r.has_lo && decimal_compare(&d, &r.lo) < 0) continue;
            r.has_lo = true, r.lo = d, r.lo_open = i == 1;
        } else {
            int order = r.has_hi ? decimal_compare(&d, &r.hi) : -1;
            if (order > 0) continue;
            r.has_hi = true, r.hi = d, r.hi_open = i == 3;
        }
    }
    if (r.has_lo && r.has_hi && decimal_compare(&r.lo, &r.hi) > 0)
        refuse(c, ERR_FIELD, place, "maximum", "is below minimum");
    return c->rc ? GRAMMAR_END : decimal_states(c->g, &r);
}

static uint32_t array(struct compiler *c, const struct json *s, const char *place) {
    const struct json *prefix = json_get(s, "prefixItems"), *items = json_get(s, "items");
    uint32_t fixed = (uint32_t)json_len(prefix);
    uint32_t min = whole(c, s, place, "minItems", ITEMS_MAX, 0);
    uint32_t max = whole(c, s, place, "maxItems", ITEMS_MAX, GRAMMAR_NONE);
    bool closed = json_kind(items) == JSON_BOOL && !json_bool(items, true);
    if (!closed && json_kind(items) != JSON_OBJECT)
        refuse(c, ERR_FIELD, place, "items", "is missing: say what the items are, or false");
    if (closed && max > fixed) max = fixed;
    if (min > max) refuse(c, ERR_FIELD, place, "minItems", "cannot be reached");
    uint32_t unrolled = max != GRAMMAR_NONE ? max : fixed > min ? fixed : min;
    if (unrolled > ITEMS_MAX) refuse(c, ERR_LIMIT, place, "prefixItems", "has too many items");
    if (c->rc) return GRAMMAR_END;
    uint32_t open = grammar_state(c->g, false), after = grammar_state(c->g, false);
    struct grammar_edge e = {after, '[', '['};
    grammar_edges(c->g, open, &e, 1);
    for (uint32_t k = 0; !c->g->error && !c->rc; k++) { /* `after` k items */
        bool loop = k > unrolled, more = k < max;
        uint32_t next = loop ? after : grammar_state(c->g, false), item = GRAMMAR_END;
        if (more) {
            const struct json *schema = k < fixed ? json_at(prefix, k) : items;
            const char *where = below(c, place, k < fixed ? "prefixItems" : "items");
            item = grammar_call(c->g, rule_of(c, schema, where), next);
        }
        struct grammar_edge out[2];
        uint32_t n = 0;
        if (k > 0 && more) out[n++] = (struct grammar_edge){item, ',', ','};
        if (k >= min) out[n++] = (struct grammar_edge){GRAMMAR_END, ']', ']'};
        grammar_edges(c->g, after, out, n);
        if (k == 0 && more) grammar_also(c->g, after, item);
        if (loop || !more) break;
        after = next;
    }
    return open;
}

/* ---- objects ---- */

struct member {
    const char *name;
    const struct json *schema;
    uint32_t call, after;
    bool required;
};

static bool is_required(const struct json *required, const char *name) {
    for (size_t i = 0; i < json_len(required); i++)
        if (json_str(json_at(required, i)) && strcmp(json_str(json_at(required, i)), name) == 0)
            return true;
    return false;
}

/* The state that has members [from, n) before it. */
static void members(struct compiler *c, uint32_t state, const struct member *m, uint32_t from,
                    uint32_t n, const char *lead) {
    struct grammar_literal *l = arena_calloc(&c->arena, n - from + 1, sizeof *l);
    uint32_t k = 0, i = from;
    if (!l) refuse(c, -ENOMEM, "#", "no memory", "");
    for (; l && !c->rc && i < n; i++) {
        struct json *name = json_new_str(m[i].name, strlen(m[i].name));
        char *quoted = name ? json_text(name, 0) : NULL;
        const char *text = quoted ? arena_printf(&c->arena, "%s%s:", lead, quoted) : NULL;
        json_free(name);
        free(quoted);
        if (!text) refuse(c, ERR_LIMIT, "#", "the schema", "is too large");
        if (text)
            l[k++] =
                (struct grammar_literal){(const uint8_t *)text, (uint32_t)strlen(text), m[i].call};
        if (m[i].required) break;
    }
    if (c->rc) return;
    if (i == n) {
        const char *end = *lead == '{' ? "{}" : "}";
        l[k++] = (struct grammar_literal){(const uint8_t *)end, (uint32_t)strlen(end), GRAMMAR_END};
    }
    grammar_literals(c->g, state, l, k);
}

static uint32_t object(struct compiler *c, const struct json *s, const char *place) {
    const struct json *properties = json_get(s, "properties"), *required = json_get(s, "required");
    const struct json *more = json_get(s, "additionalProperties"), *schema;
    size_t it = 0, n = json_len(properties);
    const char *key, *inside = below(c, place, "properties");
    uint32_t k = 0, open = grammar_state(c->g, false);
    if (more && json_kind(more) != JSON_BOOL)
        refuse(c, ERR_FIELD, place, "additionalProperties", "as a schema is not supported");
    struct member *m = arena_calloc(&c->arena, n + 1, sizeof *m);
    if (!m) refuse(c, -ENOMEM, place, "no memory", "");
    for (size_t i = 0; i < json_len(required); i++)
        if (!json_str(json_at(required, i)) ||
            !json_get(properties, json_str(json_at(required, i))))
            refuse(c, ERR_FIELD, place, "required", "names what properties does not describe");
    while (!c->rc && json_next(properties, &it, &key, &schema)) {
        m[k] =
            (struct member){.name = key, .schema = schema, .required = is_required(required, key)};
        m[k].after = grammar_state(c->g, false);
        m[k].call = grammar_call(c->g, rule_of(c, schema, below(c, inside, key)), m[k].after);
        k++;
    }
    if (!c->rc) members(c, open, m, 0, k, "{");
    for (uint32_t i = 0; i < k && !c->rc && !c->g->error; i++)
        members(c, m[i].after, m, i + 1, k, ",");
    return open;
}

/* ---- rules ---- */

struct starts {
    uint32_t at[STARTS_MAX], n;
    uint32_t depth, seen; /* seen: schemas, those that start nothing too */
};

static const struct json *referred(struct compiler *c, const char *ref, const char *place) {
    const struct json *j = c->root;
    if (*ref++ != '#') refuse(c, ERR_FIELD, place, "$ref", "points outside of the schema");
    while (!c->rc && *ref == '/') {
        char key[128];
        size_t n = 0;
        for (ref++; *ref && *ref != '/' && n + 1 < sizeof key; ref++) {
            key[n] = *ref;
            if (*ref == '~' && (ref[1] == '0' || ref[1] == '1')) key[n] = *++ref == '0' ? '~' : '/';
            n++;
        }
        key[n] = 0;
        j = json_kind(j) == JSON_ARRAY ? json_at(j, strtoul(key, NULL, 10)) : json_get(j, key);
    }
    if (!c->rc && (*ref || json_kind(j) != JSON_OBJECT))
        refuse(c, ERR_FIELD, place, "$ref", "points to nothing");
    return j;
}

static void alternatives(struct compiler *c, const struct json *s, const char *place,
                         struct starts *out);

static void one_start(struct compiler *c, struct starts *out, uint32_t state, const char *place) {
    if (out->n == STARTS_MAX) refuse(c, ERR_LIMIT, place, "anyOf", "has too many alternatives");
    if (!c->rc) out->at[out->n++] = state;
}

static void choose(struct compiler *c, const struct json *s, const char *place, const char *key,
                   struct starts *out) {
    const struct json *list = json_get(s, key), *value;
    const char *other;
    size_t it = 0;
    uint32_t seen = 0;
    while (json_next(s, &it, &other, &value))
        if (strcmp(other, key) != 0 && !is_in(ANNOTATIONS, other))
            refuse(c, ERR_FIELD, place, other, "beside a choice or $ref is not supported");
    if (strcmp(key, "$ref") == 0) {
        const struct json *to = json_str(list) ? referred(c, json_str(list), place) : NULL;
        if (!json_str(list)) refuse(c, ERR_FIELD, place, "$ref", "is no string");
        if (!c->rc) alternatives(c, to, json_str(list), out);
        return;
    }
    if (json_kind(list) != JSON_ARRAY) refuse(c, ERR_FIELD, place, key, "is no list");
    if (strcmp(key, "allOf") == 0 && json_len(list) != 1)
        refuse(c, ERR_FIELD, place, key, "is supported with one schema; write them as one");
    for (size_t i = 0; !c->rc && i < json_len(list); i++) {
        const struct json *one = json_at(list, i);
        const char *where = below(c, place, key);
        if (strcmp(key, "oneOf") == 0) {
            const struct json *only = json_get(one, "const");
            uint32_t types = only ? value_type(only) : types_of(c, one, where);
            if (types & (T_INT | T_FRACTION)) types |= T_INT | T_FRACTION;
            if (!types || (types & seen))
                refuse(c, ERR_FIELD, where, "oneOf",
                       "is supported where each alternative has a type of its own; use anyOf");
            seen |= types;
        }
        alternatives(c, one, where, out);
    }
}

static void alternatives(struct compiler *c, const struct json *s, const char *place,
                         struct starts *out) {
    static const char *const choices[] = {"anyOf", "oneOf", "allOf", "$ref"};
    if (json_kind(s) == JSON_BOOL && !json_bool(s, true)) return; /* false: nothing */
    if (json_kind(s) == JSON_BOOL)
        refuse(c, ERR_FIELD, place, "a schema", "that allows any value is not supported");
    else if (json_kind(s) != JSON_OBJECT)
        refuse(c, ERR_FIELD, place, "this",
               "is no schema: one is an object, such as "
               "{\"type\": \"string\"}");
    if (++out->depth > 32)
        refuse(c, ERR_FIELD, place, "$ref", "leads back to itself with nothing in between");
    if (++out->seen > SEEN_MAX)
        refuse(c, ERR_LIMIT, place, "anyOf", "has too many alternatives, those of $ref counted");
    if (c->rc) return;
    check_keywords(c, s, place);
    for (uint32_t i = 0; i < 4 && !c->rc; i++)
        if (json_get(s, choices[i])) {
            choose(c, s, place, choices[i], out);
            out->depth--;
            return;
        }
    uint32_t types = types_of(c, s, place);
    bool listed = json_get(s, "enum") || json_get(s, "const");
    if (listed && !c->rc) one_start(c, out, literals(c, s, place, types), place);
    if (!listed && !types)
        refuse(c, ERR_FIELD, place, "a schema", "that allows any value is not supported");
    if (!listed && !c->rc) {
        if (types & T_NULL) one_start(c, out, word(c, "null", "null"), place);
        if (types & T_BOOL) one_start(c, out, word(c, "true", "false"), place);
        if (types & T_INT) one_start(c, out, number(c, s, place, types), place);
        if (types & T_STR) one_start(c, out, string(c, s, place), place);
        if (types & T_ARRAY) one_start(c, out, array(c, s, place), place);
        if (types & T_OBJECT) one_start(c, out, object(c, s, place), place);
    }
    out->depth--;
}

int schema_compile(struct grammar *g, struct bytes schema, char *err, size_t err_bytes) {
    struct json *root = NULL;
    struct compiler *c = calloc(1, sizeof *c);
    bool every[256];
    int rc = grammar_init(g);
    memset(every, 1, sizeof every);
    if (!c || rc) rc = err_set(err, err_bytes, -ENOMEM, "schema: no memory");
    if (rc == 0 && schema.len > SCHEMA_BYTES_MAX)
        rc = err_set(err, err_bytes, ERR_LIMIT, "schema: %zu bytes, at most %u", schema.len,
                     SCHEMA_BYTES_MAX);
    char why[256];
    if (rc == 0 && (rc = json_parse(&root, schema.data, schema.len, why, sizeof why)) != 0)
        err_set(err, err_bytes, rc, "schema: %s", why);
    if (rc == 0) {
        *c = (struct compiler){.g = g, .root = root, .err = err, .err_bytes = err_bytes};
        arena_init(&c->arena, 64u << 20);
        g->root = rule_of(c, root, "#");
        for (uint32_t i = 0; i < c->n && !c->rc && !g->error; i++) {
            struct starts s = {.n = 0};
            alternatives(c, c->todo[i].schema, c->todo[i].place, &s);
            if (!c->rc) grammar_starts(g, c->todo[i].rule, s.at, s.n);
        }
        if (g->error) refuse(c, g->error, "#", "the schema", "needs too large an automaton");
        if (!c->rc) grammar_measure(g, every);
        if (!c->rc && grammar_rule_at(g, g->root)->dist >= GRAMMAR_FAR)
            refuse(c, ERR_FIELD, "#", "the schema", "holds for no value that could be written");
        rc = c->rc;
        arena_fini(&c->arena);
    }
    json_free(root);
    free(c);
    if (rc) grammar_fini(g);
    return rc;
}
