#include "workers/schema/regex_nfa.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define DEPTH_MAX 256u
#define WORK_MAX 100000u /* parts read: nested repeats read theirs again and again */
#define REPEAT_MAX 1000u
#define LAST 0x10FFFFu

/* Reads right to left in meaning: each part is given what follows it, so a repeat reads its text
 * again for every copy. */
struct reader_of_pattern {
    struct nfa *a;
    const char *text, *at, *end;
    uint32_t depth, work;
    const char *why; /* what is wrong at `at` */
};
struct set {
    struct nfa_range r[512];
    uint32_t n;
    bool ascii; /* holds a complement of \d, \w or \s */
};

int nfa_init(struct nfa *a) {
    *a = (struct nfa){.node = calloc(NFA_NODES_MAX, sizeof *a->node),
                      .range = calloc(NFA_RANGES_MAX, sizeof *a->range)};
    return a->node && a->range ? 0 : -ENOMEM;
}

void nfa_fini(struct nfa *a) {
    free(a->node);
    free(a->range);
}

static uint32_t fail(struct reader_of_pattern *p, const char *why) {
    if (!p->why) p->why = why;
    return NFA_NONE;
}

static uint32_t add(struct reader_of_pattern *p, struct nfa_node n) {
    if (p->why) return NFA_NONE;
    if (p->a->nodes == NFA_NODES_MAX) return fail(p, "is too large");
    p->a->node[p->a->nodes] = n;
    return p->a->nodes++;
}

static void put(struct reader_of_pattern *p, struct set *s, uint32_t lo, uint32_t hi) {
    if (s->n == 512)
        fail(p, "has too many ranges in a class");
    else
        s->r[s->n++] = (struct nfa_range){lo, hi};
}

static int by_lo(const void *left, const void *right) {
    const struct nfa_range *a = left, *b = right;
    return (a->lo > b->lo) - (a->lo < b->lo);
}

static void tidy(struct set *s) {
    uint32_t n = 0;
    qsort(s->r, s->n, sizeof *s->r, by_lo);
    for (uint32_t i = 0; i < s->n; i++) {
        if (n > 0 && s->r[i].lo <= s->r[n - 1].hi + 1) {
            if (s->r[i].hi > s->r[n - 1].hi) s->r[n - 1].hi = s->r[i].hi;
        } else {
            s->r[n++] = s->r[i];
        }
    }
    s->n = n;
}

static void invert(struct reader_of_pattern *p, struct set *s) {
    static struct set const none;
    struct set out = none;
    uint32_t from = 0;
    tidy(s);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->r[i].lo > from) put(p, &out, from, s->r[i].lo - 1);
        from = s->r[i].hi + 1;
    }
    if (from <= LAST) put(p, &out, from, LAST);
    out.ascii = s->ascii;
    *s = out;
}

static void named_class(struct reader_of_pattern *p, char c, struct set *s) {
    struct set own = {.n = 0};
    switch (c | 0x20) {
    case 'd': put(p, &own, '0', '9'); break;
    case 'w':
        put(p, &own, '0', '9'), put(p, &own, 'A', 'Z'), put(p, &own, '_', '_');
        put(p, &own, 'a', 'z');
        break;
    default:
        put(p, &own, '\t', '\r'), put(p, &own, ' ', ' '), put(p, &own, 0xA0, 0xA0);
        put(p, &own, 0x1680, 0x1680), put(p, &own, 0x2000, 0x200A), put(p, &own, 0x2028, 0x2029);
        put(p, &own, 0x202F, 0x202F), put(p, &own, 0x205F, 0x205F), put(p, &own, 0x3000, 0x3000);
    }
    if (!(c & 0x20)) invert(p, &own), s->ascii = true;
    for (uint32_t i = 0; i < own.n; i++) put(p, s, own.r[i].lo, own.r[i].hi);
}

static uint32_t hex(struct reader_of_pattern *p, uint32_t digits) {
    uint32_t v = 0;
    for (uint32_t i = 0; i < digits; i++, p->at++) {
        char c = p->at < p->end ? *p->at : 0, low = (char)(c | 0x20);
        if (c >= '0' && c <= '9')
            v = v * 16 + (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            v = v * 16 + (uint32_t)(low - 'a' + 10);
        else
            return fail(p, "has an escape with bad hexadecimal digits");
    }
    return v;
}

/* One character, as it stands or escaped; NFA_NONE: a class like \d, in *name. */
static uint32_t character(struct reader_of_pattern *p, char *name) {
    *name = 0;
    uint8_t c = (uint8_t)*p->at++;
    if (c >= 0x80) {
        uint32_t n = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1, v = c & (0x3Fu >> n);
        while (n-- > 0) v = v << 6 | ((uint8_t)*p->at++ & 0x3Fu);
        return v;
    }
    if (c != '\\') return c;
    if (p->at == p->end) return fail(p, "ends in a backslash");
    c = (uint8_t)*p->at++;
    switch (c) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 's':
    case 'S': *name = (char)c; return NFA_NONE;
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'x': return hex(p, 2);
    case 'u':
        if (p->at < p->end && *p->at == '{') return fail(p, "has \\u{}, which is not supported");
        return hex(p, 4);
    case 'b':
    case 'B': return fail(p, "has \\b or \\B, which are not supported");
    case 'p':
    case 'P': return fail(p, "has a Unicode property (\\p), which is not supported");
    case 'k': return fail(p, "has a back reference, which is not supported");
    default:
        if (c >= '1' && c <= '9') return fail(p, "has a back reference, which is not supported");
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '0' || c >= 0x80)
            return fail(p, "has an escape that is not supported");
        return c;
    }
}

static void bracket(struct reader_of_pattern *p, struct set *s) {
    bool inverted = p->at < p->end && *p->at == '^';
    p->at += inverted;
    while (!p->why && p->at < p->end && *p->at != ']') {
        char name;
        uint32_t lo = character(p, &name), hi = lo;
        if (p->why) return;
        bool range = p->end - p->at >= 2 && *p->at == '-' && p->at[1] != ']';
        if (name && !range) {
            named_class(p, name, s);
            if (inverted) s->ascii = true;
            continue;
        }
        if (range) {
            char last;
            p->at++;
            hi = character(p, &last);
            if (name || last)
                fail(p, "has a range with a class as its end; write \\- for a hyphen");
            else if (hi < lo)
                fail(p, "has a class with a range that is backwards");
        }
        put(p, s, lo, hi);
    }
    if (p->at == p->end)
        fail(p, "has a class without its end");
    else
        p->at++;
    if (inverted) invert(p, s);
}

static uint32_t add_set(struct reader_of_pattern *p, struct set *s, uint32_t next) {
    struct nfa *a = p->a;
    struct nfa_node n = {.kind = NFA_CHAR, .next = next, .range = a->ranges};
    tidy(s);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->ascii && s->r[i].lo > 0x7F) break;
        if (s->ascii && s->r[i].hi > 0x7F) s->r[i].hi = 0x7F;
        if (a->ranges == NFA_RANGES_MAX) return fail(p, "is too large");
        a->range[a->ranges++] = s->r[i];
    }
    n.ranges = a->ranges - n.range;
    return add(p, n);
}

static uint32_t choices(struct reader_of_pattern *p, uint32_t next);

static uint32_t group(struct reader_of_pattern *p, uint32_t next) {
    if (p->end - p->at >= 2 && *p->at == '?') {
        if (p->at[1] == ':')
            p->at += 2;
        else if (p->at[1] == '<' && p->end - p->at > 2 && p->at[2] != '=' && p->at[2] != '!') {
            while (p->at < p->end && *p->at != '>') p->at++;
            if (p->at < p->end) p->at++;
        } else
            return fail(p, "looks around, which is not supported");
    }
    if (++p->depth > DEPTH_MAX) return fail(p, "is nested too deep");
    uint32_t first = choices(p, next);
    p->depth--;
    if (p->at == p->end || *p->at != ')') return fail(p, "has a group without its end");
    p->at++;
    return first;
}

/* One thing that may be repeated, with what follows it. */
static uint32_t atom(struct reader_of_pattern *p, uint32_t next) {
    struct set s;
    s.n = 0, s.ascii = false;
    char c = *p->at, name;
    if (++p->work > WORK_MAX) return fail(p, "is too large");
    if (c == '(') return p->at++, group(p, next);
    if (c == '^') return p->at++, add(p, (struct nfa_node){.kind = NFA_BEGIN, .next = next});
    if (c == '$') return p->at++, add(p, (struct nfa_node){.kind = NFA_FINISH, .next = next});
    if (c == '*' || c == '+' || c == '?' || c == '{' || c == '}' || c == ']')
        return fail(p, "has a sign that needs a backslash, or a repeat of nothing");
    if (c == '[') {
        p->at++;
        bracket(p, &s);
    } else if (c == '.') {
        p->at++;
        put(p, &s, '\n', '\n'), put(p, &s, '\r', '\r'), put(p, &s, 0x2028, 0x2029);
        invert(p, &s);
    } else {
        uint32_t v = character(p, &name);
        if (name)
            named_class(p, name, &s);
        else
            put(p, &s, v, v);
    }
    return p->why ? NFA_NONE : add_set(p, &s, next);
}

static uint32_t count(struct reader_of_pattern *p) {
    uint32_t v = 0;
    if (p->at == p->end || *p->at < '0' || *p->at > '9') return fail(p, "has a bad repeat");
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        if ((v = v * 10 + (uint32_t)(*p->at - '0')) > REPEAT_MAX)
            return fail(p, "repeats more than 1000 times");
    return v;
}

static void quantifier(struct reader_of_pattern *p, uint32_t *min, uint32_t *max) {
    *min = *max = 1;
    if (p->why || p->at == p->end || !strchr("*+?{", *p->at)) return;
    char c = *p->at++;
    if (c == '*') *min = 0, *max = NFA_NONE;
    if (c == '+') *max = NFA_NONE;
    if (c == '?') *min = 0;
    if (c == '{') {
        *min = *max = count(p);
        if (p->at < p->end && *p->at == ',') {
            p->at++;
            *max = p->at < p->end && *p->at == '}' ? NFA_NONE : count(p);
        }
        if (p->at == p->end || *p->at != '}' || *max < *min)
            fail(p, "has a bad repeat");
        else
            p->at++;
    }
    if (p->at < p->end && *p->at == '?') p->at++; /* lazy: the same strings */
}

/* The parts of an alternative from `at` on: what follows is read first, then this part for each of
 * its copies, from the last to the first. */
static uint32_t sequence(struct reader_of_pattern *p, uint32_t next) {
    if (p->why || p->at == p->end || *p->at == '|' || *p->at == ')')
        return p->why ? NFA_NONE : next;
    const char *from = p->at;
    uint32_t min, max, nodes = p->a->nodes, ranges = p->a->ranges;
    if (++p->depth > 4 * DEPTH_MAX) return fail(p, "is too long");
    atom(p, next); /* to see where it ends */
    quantifier(p, &min, &max);
    if (p->why) return NFA_NONE;
    p->a->nodes = nodes, p->a->ranges = ranges;
    next = sequence(p, next);
    p->depth--;
    const char *end = p->at;
    if (max == NFA_NONE) {
        uint32_t loop = add(p, (struct nfa_node){.kind = NFA_SPLIT, .other = next});
        p->at = from;
        uint32_t body = p->why ? NFA_NONE : atom(p, loop);
        if (!p->why) p->a->node[loop].next = body;
        next = loop;
    }
    for (uint32_t i = max == NFA_NONE ? min : max, skip = next; i > 0 && !p->why; i--) {
        p->at = from;
        next = atom(p, next);
        if (max != NFA_NONE && i > min)
            next = add(p, (struct nfa_node){.kind = NFA_SPLIT, .next = next, .other = skip});
    }
    p->at = p->why ? p->at : end;
    return next;
}

static uint32_t choices(struct reader_of_pattern *p, uint32_t next) {
    uint32_t first = sequence(p, next);
    while (!p->why && p->at < p->end && *p->at == '|') {
        p->at++;
        uint32_t more = sequence(p, next);
        first = add(p, (struct nfa_node){.kind = NFA_SPLIT, .next = first, .other = more});
    }
    return first;
}

int nfa_read(struct nfa *a, const char *text, uint32_t number, uint32_t *first, char *err,
             uint32_t err_bytes) {
    struct reader_of_pattern p = {.a = a, .text = text, .at = text, .end = text + strlen(text)};
    uint32_t match = add(&p, (struct nfa_node){.kind = NFA_MATCH, .pattern = number});
    *first = choices(&p, match);
    if (!p.why && p.at != p.end) fail(&p, "has a ) without its (");
    return p.why ? err_set(err, err_bytes, ERR_FIELD, "%.80s: %s (near character %zu)", text, p.why,
                           (size_t)(p.at - text))
                 : 0;
}
