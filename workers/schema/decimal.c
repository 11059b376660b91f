#include "workers/schema/decimal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

int decimal_read(const struct json *j, struct decimal *out, char *err, size_t err_bytes) {
    char text[64];
    *out = (struct decimal){0};
    if (json_kind(j) == JSON_INT) {
        snprintf(text, sizeof text, "%" PRId64, json_int(j, 0));
    } else {
        double v = json_num(j, 0);
        if (json_kind(j) != JSON_REAL || v > 1e15 || v < -1e15)
            return err_set(err, err_bytes, ERR_FIELD, "not a number up to 1e15");
        snprintf(text, sizeof text, "%.15f", v);
        char *cut = text + strlen(text); /* the shortest that is the same double */
        while (cut[-1] != '.') {
            char last = *--cut;
            *cut = 0;
            if (strtod(text, NULL) == v) continue;
            *cut = last;
            break;
        }
        if (strtod(text, NULL) != v)
            return err_set(err, err_bytes, ERR_FIELD, "needs more than 15 digits");
    }
    const char *at = text;
    out->negative = *at == '-';
    at += out->negative;
    uint32_t n = 0;
    bool any = false;
    for (; *at && *at != '.'; at++) out->digit[n++] = (uint8_t)(*at - '0');
    out->whole = n;
    for (at += *at == '.'; *at; at++) out->digit[n++] = (uint8_t)(*at - '0');
    while (n > out->whole && out->digit[n - 1] == 0) n--;
    out->part = n - out->whole;
    for (uint32_t i = 0; i < n; i++) any |= out->digit[i] != 0;
    if (!any) out->negative = false;
    if (out->part > 0 && n > DECIMAL_DIGITS)
        return err_set(err, err_bytes, ERR_FIELD, "needs more than 15 digits");
    return 0;
}

int decimal_compare(const struct decimal *a, const struct decimal *b) {
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    int order = (a->whole > b->whole) - (a->whole < b->whole);
    uint32_t n = a->whole + (a->part > b->part ? a->part : b->part);
    for (uint32_t i = 0; order == 0 && i < n; i++) {
        int x = i < a->whole + a->part ? a->digit[i] : 0;
        int y = i < b->whole + b->part ? b->digit[i] : 0;
        order = (x > y) - (x < y);
    }
    return a->negative ? -order : order;
}

/* Bounds of the absolute value. */
struct magnitude {
    struct decimal lo, hi;
    bool lo_open, hi_open, has_hi, integer;
    uint32_t digits_max, multiple;
};
/* How far a number is written: digits, and how they compare with each bound's so far. */
struct place {
    uint8_t whole, part, lo, hi; /* lo, hi: 0 below, 1 equal, 2 above */
    bool zero, point;            /* the first digit is 0; the point is written */
    uint16_t rest;               /* of the digits, divided by what they are a multiple of */
};

static uint8_t digit_of(const struct decimal *d, uint32_t i, bool *exists) {
    *exists = i < d->whole + d->part;
    return *exists ? d->digit[i] : 0;
}

static uint8_t compared(uint8_t so_far, uint8_t digit, uint8_t bound) {
    return so_far != 1 ? so_far : digit < bound ? 0 : digit > bound ? 2 : 1;
}

/* What a comparison of the digits before the point means once they are over. */
static uint8_t settled(uint8_t so_far, uint32_t whole, const struct decimal *d) {
    return whole < d->whole ? 0 : so_far;
}

static bool add_digit(const struct magnitude *m, struct place *p, uint8_t digit) {
    if (p->whole + p->part == m->digits_max || (p->zero && !p->point)) return false;
    bool exists;
    if (!p->point) {
        p->zero = p->whole == 0 && digit == 0;
        p->lo = p->whole >= m->lo.whole ? 2 : compared(p->lo, digit, m->lo.digit[p->whole]);
        p->hi = p->whole >= m->hi.whole ? 2 : compared(p->hi, digit, m->hi.digit[p->whole]);
        p->rest = (uint16_t)((p->rest * 10u + digit) % m->multiple);
        p->whole++;
        return true;
    }
    p->lo = compared(p->lo, digit, digit_of(&m->lo, m->lo.whole + p->part, &exists));
    p->hi = compared(p->hi, digit, digit_of(&m->hi, m->hi.whole + p->part, &exists));
    p->part++;
    return p->lo != 0 && (!m->has_hi || p->hi != 2);
}

static bool add_point(const struct magnitude *m, struct place *p) {
    if (m->integer || p->point || p->whole == 0 || p->whole >= m->digits_max) return false;
    p->lo = settled(p->lo, p->whole, &m->lo);
    p->hi = settled(p->hi, p->whole, &m->hi);
    p->point = true;
    return p->lo != 0 && (!m->has_hi || p->hi != 2);
}

static bool may_end(const struct magnitude *m, const struct place *p) {
    if (p->whole == 0 || (p->point && p->part == 0) || p->rest != 0) return false;
    uint8_t lo = p->point ? p->lo : settled(p->lo, p->whole, &m->lo);
    uint8_t hi = p->point ? p->hi : settled(p->hi, p->whole, &m->hi);
    if (lo == 1 && m->lo.part > p->part) lo = 0; /* bounds end in a digit that is not 0 */
    if (hi == 1 && m->hi.part > p->part) hi = 0;
    if (lo == 0 || (lo == 1 && m->lo_open)) return false;
    return !m->has_hi || hi == 0 || (hi == 1 && !m->hi_open);
}

#define PLACES_MAX 4096u
struct places {
    struct place at[PLACES_MAX];
    uint32_t state[PLACES_MAX], n;
};

static uint32_t place_state(struct grammar *g, const struct magnitude *m, struct places *all,
                            struct place p) {
    for (uint32_t i = 0; i < all->n; i++)
        if (memcmp(&all->at[i], &p, sizeof p) == 0) return all->state[i];
    if (all->n == PLACES_MAX) {
        g->error = ERR_LIMIT;
        return GRAMMAR_END;
    }
    all->at[all->n] = p;
    return all->state[all->n++] = grammar_state(g, may_end(m, &p));
}

static uint32_t magnitude_states(struct grammar *g, const struct magnitude *m) {
    struct places *all = calloc(1, sizeof *all);
    if (!all) g->error = -ENOMEM;
    if (!all) return GRAMMAR_END;
    uint32_t first = place_state(g, m, all, (struct place){.lo = 1, .hi = 1});
    for (uint32_t i = 0; i < all->n && !g->error; i++) {
        struct grammar_edge e[11];
        uint32_t n = 0;
        struct place p = all->at[i];
        if (add_point(m, &p)) e[n++] = (struct grammar_edge){place_state(g, m, all, p), '.', '.'};
        for (uint8_t d = 0; d < 10; d++) {
            p = all->at[i];
            if (!add_digit(m, &p, d)) continue;
            uint8_t c = (uint8_t)('0' + d);
            e[n++] = (struct grammar_edge){place_state(g, m, all, p), c, c};
        }
        grammar_edges(g, all->state[i], e, n);
    }
    free(all);
    return first;
}

uint32_t decimal_states(struct grammar *g, const struct decimal_range *r) {
    static const struct decimal zero = {.whole = 1};
    uint32_t digits = DECIMAL_DIGITS, first = grammar_state(g, false);
    if (r->integer && r->has_lo && r->lo.whole > digits) digits = r->lo.whole;
    if (r->integer && r->has_hi && r->hi.whole > digits) digits = r->hi.whole;
    struct magnitude up = {.lo = zero, .hi = zero, .integer = r->integer, .digits_max = digits};
    up.multiple = r->integer && r->multiple > 0 ? r->multiple : 1;
    struct magnitude down = up;
    down.lo_open = true;
    if (r->has_lo && !r->lo.negative) up.lo = r->lo, up.lo_open = r->lo_open;
    if (r->has_hi && !r->hi.negative) up.hi = r->hi, up.hi_open = r->hi_open, up.has_hi = true;
    if (r->has_hi && r->hi.negative) down.lo = r->hi, down.lo_open = r->hi_open;
    if (r->has_lo && r->lo.negative) down.hi = r->lo, down.hi_open = r->lo_open, down.has_hi = true;
    if (!r->has_hi || !r->hi.negative) grammar_also(g, first, magnitude_states(g, &up));
    if (!r->has_lo || r->lo.negative) {
        struct grammar_edge minus = {magnitude_states(g, &down), '-', '-'};
        grammar_edges(g, first, &minus, 1);
    }
    return first;
}
