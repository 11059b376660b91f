#include "workers/post/entities.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/regex.h"
#include "workers/encode/unicode.h"
#include "workers/post/numerals.h"
#include "workers/post/values.h"

#define STRETCH_BYTES 8192u      /* at least this much, then to the next blank line */
#define STRETCH_MAX_BYTES 16384u /* then to any line end */
#define PARTIES_BYTES 16384u     /* English parties are named at the beginning */

enum { LANG_any = GRAMMAR_EN | GRAMMAR_ZH, LANG_en = GRAMMAR_EN, LANG_zh = GRAMMAR_ZH };
enum {
    TYPE_date = ENTITY_DATE,
    TYPE_duration = ENTITY_DURATION,
    TYPE_amount = ENTITY_AMOUNT,
    TYPE_percentage = ENTITY_PERCENTAGE,
    TYPE_party = ENTITY_PARTY,
    TYPE_law = ENTITY_LAW
};

/* The groups that grammar.def speaks of. */
enum group {
    G_at,
    G_y,
    G_m,
    G_d,
    G_us,
    G_n,
    G_w,
    G_u,
    G_b,
    G_c,
    G_k,
    G_v,
    G_x,
    G_x2,
    G_j,
    G_f,
    G_per,
    G_role,
    G_law,
    GROUPS
};
static const char *const group_names[GROUPS] = {"at", "y", "m",   "d",    "us", "n", "w",
                                                "u",  "b", "c",   "k",    "v",  "x", "x2",
                                                "j",  "f", "per", "role", "law"};

static const struct {
    enum entity_type type;
    uint32_t languages;
    const char *flags;
    double score;
    const char *pattern;
} rows[] = {
#define ENTITY(type, language, flags, score, pattern)                                              \
    {(enum entity_type)TYPE_##type, LANG_##language, flags, score, pattern},
#include "workers/post/grammar.def"
#undef ENTITY
};
#define ROWS (sizeof rows / sizeof *rows)

struct grammar {
    struct {
        struct regex *regex;
        int group[GROUPS]; /* -1: the pattern has none */
    } rule[ROWS];
};

const char *entity_type_name(enum entity_type t) {
    static const char *const names[ENTITY_TYPES] = {"date",       "duration", "amount",
                                                    "percentage", "party",    "governing_law"};
    return names[t];
}

int grammar_open(struct grammar **out, char *err, size_t err_bytes) {
    struct grammar *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return err_set(err, err_bytes, -ENOMEM, "grammar: out of memory");
    for (size_t i = 0; i < ROWS; i++) {
        int rc = regex_open(&g->rule[i].regex, rows[i].pattern, rows[i].flags, err, err_bytes);
        if (rc < 0) {
            grammar_close(g);
            return rc;
        }
        for (int k = 0; k < GROUPS; k++)
            g->rule[i].group[k] = regex_group(g->rule[i].regex, group_names[k]);
    }
    *out = g;
    return 0;
}

void grammar_close(struct grammar *g) {
    for (size_t i = 0; g && i < ROWS; i++) regex_close(g->rule[i].regex);
    free(g);
}

/* ---- one match to its value ---- */

struct match {
    const char *text; /* the stretch */
    const struct regex_span *spans;
    const int *group;
    bool chinese;
};

static struct bytes get(const struct match *m, enum group g) {
    int n = m->group[g];
    if (n < 0 || n >= REGEX_GROUPS || m->spans[n].begin == (size_t)-1)
        return (struct bytes){NULL, 0};
    return bytes_of(m->text + m->spans[n].begin, m->spans[n].end - m->spans[n].begin);
}

/* A number given in words, in figures or both: the words count. */
static bool both(struct bytes words, struct bytes figures, double factor, double *out,
                 bool *conflict) {
    double w, f;
    bool has_w = words.len > 0 && numeral_value(words, &w);
    bool has_f = figures.len > 0 && numeral_value(figures, &f);
    if (has_f) f *= factor;
    if (!has_w && !has_f) return false;
    *out = has_w ? w : f;
    *conflict = has_w && has_f && fabs(w - f) > 1e-6 * (1 + fabs(f));
    return true;
}

static bool date_value(const struct match *m, struct entity *e) {
    struct bytes y = get(m, G_y), month = get(m, G_m), d = get(m, G_d);
    double a, b;
    if (get(m, G_us).data && numeral_value(month, &a) && numeral_value(d, &b)) {
        if (a > 12) { /* 31/12/2026 */
            struct bytes swap = month;
            month = d;
            d = swap;
        } else if (b > 12 || a == b) {
            e->score = 0.9; /* only one way to read it */
        }
    }
    if (get(m, G_d).data && d.len == 0) return false;
    return value_date(y, month, d, e->iso);
}

static bool duration_value(const struct match *m, struct entity *e) {
    double number;
    struct bytes n = get(m, G_n), u = get(m, G_u);
    if (bytes_is(n, "半"))
        number = 0.5;
    else if (!both(get(m, G_w), n, 1, &number, &e->conflict))
        return false;
    if (bytes_is(u, "年") && number >= 1000) return false; /* a year, not a term */
    if (!value_duration(number, u, e->iso, &e->number, &e->business)) return false;
    e->business |= get(m, G_b).len > 0;
    return true;
}

static bool amount_value(const struct match *m, struct entity *e) {
    struct bytes c = get(m, G_c), k = get(m, G_k), x = get(m, G_x);
    double factor, small, words;
    if (!numeral_factor(x.len ? x : get(m, G_x2), &factor)) return false;
    if (!both(get(m, G_w), get(m, G_v), factor, &e->number, &e->conflict)) return false;
    if (get(m, G_w).len && numeral_value(get(m, G_w), &words)) { /* 壹佰元伍角 */
        double cents = 0;
        if (get(m, G_j).len && numeral_value(get(m, G_j), &small)) cents += small / 10;
        if (get(m, G_f).len && numeral_value(get(m, G_f), &small)) cents += small / 100;
        if (cents > 0) both((struct bytes){NULL, 0}, get(m, G_v), factor, &small, &e->conflict);
        if (cents > 0) e->conflict = get(m, G_v).len > 0 && fabs(small - words - cents) > 0.005;
        e->number = words + cents;
    }
    /* 人民币 before and 元 behind agree; 美元 behind a bare ￥ decides */
    if (k.len && !bytes_is(k, "元") && !bytes_is(k, "圆"))
        return value_currency(k, m->chinese, e->currency);
    return value_currency(c.len ? c : k, m->chinese, e->currency);
}

static bool percentage_value(const struct match *m, struct entity *e) {
    struct bytes per = get(m, G_per);
    bool ignored;
    if (!both(get(m, G_v).len ? (struct bytes){NULL, 0} : get(m, G_w), get(m, G_v), 1, &e->number,
              &ignored))
        return false;
    if (bytes_is(per, "千") || bytes_is(per, "‰")) e->number /= 10;
    if (bytes_is(per, "万")) e->number /= 100;
    return e->number <= 10000;
}

static bool has(struct bytes text, const char *what) {
    return memmem(text.data, text.len, what, strlen(what)) != NULL;
}

/* Defined terms look like parties: "(the "Agreement")". */
static bool party_value(const struct match *m, struct entity *e) {
    static const char *const things[] = {"Agreement", "Contract",  "Date",    "Part",
                                         "Product",   "Service",   "Term",    "Territory",
                                         "Act",       "Effective", "Exhibit", "Confidential"};
    e->name = get(m, G_at);
    e->role = get(m, G_role);
    if (e->name.len == 0) return false;
    for (size_t i = 0; i < sizeof things / sizeof *things; i++)
        if (e->role.len >= strlen(things[i]) &&
            memcmp(e->role.data, things[i], strlen(things[i])) == 0 && !has(e->role, "Partner"))
            return false;
    if (e->role.len > 4 && memcmp((const char *)e->role.data + e->role.len - 4, " Act", 4) == 0)
        return false; /* a law: "(the "1940 Act")" */
    return !has(e->name, "Agreement") && !has(e->name, "AGREEMENT");
}

static bool law_value(const struct match *m, struct entity *e) {
    e->name = get(m, G_law);
    return e->name.len > 0;
}

static bool value_of(const struct match *m, struct entity *e) {
    static bool (*const values[ENTITY_TYPES])(const struct match *, struct entity *) = {
        [ENTITY_DATE] = date_value,     [ENTITY_DURATION] = duration_value,
        [ENTITY_AMOUNT] = amount_value, [ENTITY_PERCENTAGE] = percentage_value,
        [ENTITY_PARTY] = party_value,   [ENTITY_LAW] = law_value};
    if (!values[e->type](m, e)) return false;
    if (e->conflict) e->score = 0.5;
    return true;
}

/* ---- all matches ---- */

struct finding {
    const struct grammar *grammar;
    struct bytes text;
    enum clause_language language;
    struct arena *arena;
    struct entities *out;
    uint32_t cap;
};

static int push(struct finding *f, const struct entity *e) {
    struct entities *out = f->out;
    if (out->n == ENTITIES_MAX) {
        out->full = true;
        return 0;
    }
    if (out->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 64;
        struct entity *more = arena_alloc(f->arena, cap * sizeof *more);
        if (!more) return -ENOMEM;
        if (out->n) memcpy(more, out->at, out->n * sizeof *more);
        out->at = more;
        f->cap = cap;
    }
    out->at[out->n++] = *e;
    return 0;
}

/* All matches of one pattern in one stretch. */
static int run_rule(struct finding *f, size_t rule, uint32_t begin, uint32_t end) {
    const char *stretch = (const char *)f->text.data + begin;
    struct regex_span spans[REGEX_GROUPS];
    size_t from = 0, bytes = end - begin;
    int rc;
    while ((rc = regex_find(f->grammar->rule[rule].regex, stretch, bytes, from, spans)) == 1) {
        struct match m = {stretch, spans, f->grammar->rule[rule].group, f->language == LANGUAGE_ZH};
        struct entity e = {.type = rows[rule].type, .score = rows[rule].score};
        struct regex_span at = m.group[G_at] > 0 ? spans[m.group[G_at]] : spans[0];
        while (at.begin < at.end && strchr(" \t\r\n", stretch[at.begin])) at.begin++;
        while (at.end > at.begin && strchr(" \t\r\n", stretch[at.end - 1])) at.end--;
        e.begin = begin + (uint32_t)at.begin;
        e.end = begin + (uint32_t)at.end;
        if (e.begin < e.end && value_of(&m, &e)) {
            int pushed = push(f, &e);
            if (pushed < 0) return pushed;
        }
        if (spans[0].end == bytes) return 0;
        const char *next = stretch + spans[0].end; /* an empty match steps over a character */
        if (spans[0].end == spans[0].begin) unicode_next(&next);
        from = (size_t)(next - stretch);
    }
    if (rc == ERR_LIMIT) {
        f->out->skipped++;
        return 0;
    }
    return rc;
}

/* Where the stretch that begins at `begin` ends: behind a blank line, else a
 * line, else anywhere. */
static uint32_t stretch_end(struct bytes text, uint32_t begin) {
    const char *all = text.data;
    uint32_t line = 0, end = begin + STRETCH_BYTES;
    for (; end < text.len && end - begin < STRETCH_MAX_BYTES; end++) {
        if (all[end - 1] != '\n') continue;
        line = end;
        if (all[end] == '\n' || all[end] == '\r') return end;
    }
    if (end >= text.len) return (uint32_t)text.len;
    if (line) return line;
    while (((unsigned char)all[end] & 0xC0) == 0x80) end--;
    return end;
}

static int by_place(const void *x, const void *y) {
    const struct entity *a = x, *b = y;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end > b->end ? -1 : 1;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return (int)a->type - (int)b->type;
}

/* Of two that overlap the longer stays, then the surer one. */
static void settle(struct finding *f) {
    struct entities *out = f->out;
    uint32_t kept = 0;
    if (out->n) qsort(out->at, out->n, sizeof *out->at, by_place);
    for (uint32_t i = 0; i < out->n; i++) {
        struct entity *e = &out->at[i], *last = kept ? &out->at[kept - 1] : NULL;
        if (!last || e->begin >= last->end)
            out->at[kept++] = *e;
        else if (e->end - e->begin > last->end - last->begin)
            *last = *e;
    }
    out->n = kept;
    const char *counted = f->text.data;
    uint32_t chars = 0;
    for (uint32_t i = 0; i < kept; i++) {
        struct entity *e = &out->at[i];
        const char *begin = (const char *)f->text.data + e->begin;
        chars += (uint32_t)unicode_count(bytes_of(counted, (size_t)(begin - counted)));
        e->char_begin = chars;
        chars += (uint32_t)unicode_count(bytes_of(begin, e->end - e->begin));
        e->char_end = chars;
        counted = (const char *)f->text.data + e->end;
    }
}

int entities_find(const struct grammar *g, struct bytes text, uint32_t grammars,
                  enum clause_language language, const atomic_bool *cancelled, struct arena *a,
                  struct entities *out, char *err, size_t err_bytes) {
    struct finding f = {.grammar = g, .text = text, .language = language, .arena = a, .out = out};
    *out = (struct entities){0};
    for (uint32_t begin = 0; begin < text.len;) {
        uint32_t end =
            begin + STRETCH_BYTES < text.len ? stretch_end(text, begin) : (uint32_t)text.len;
        for (size_t rule = 0; rule < ROWS; rule++) {
            if (!(rows[rule].languages & grammars)) continue;
            if (rows[rule].type == ENTITY_PARTY && begin >= PARTIES_BYTES) continue;
            if (cancelled && atomic_load_explicit(cancelled, memory_order_relaxed))
                return err_set(err, err_bytes, ERR_CANCELLED, "cancelled");
            int rc = run_rule(&f, rule, begin, end);
            if (rc < 0) return err_set(err, err_bytes, rc, "entities: %s", err_text(rc));
        }
        begin = end;
    }
    settle(&f);
    return 0;
}
