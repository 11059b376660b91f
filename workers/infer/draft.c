#include "workers/infer/draft.h"

#include <assert.h>

#define ROW_COST 0.1      /* of a row to the first one's, before it was measured */
#define PACE_SLOWER 0.25f /* of a new time in what is remembered */
#define PACE_FASTER 0.5f
#define PACE_SLOWEST 1.5f      /* a step that was disturbed counts as so much slower at most */
#define PACE_FORGOTTEN 512u    /* steps, after which a number of rows may be tried again */
#define ODDS_SHARE_LEAST 0.06f /* of one more guess in the odds of many */
#define PLAIN_EVERY 48u        /* steps with guesses, then one without */
#define GAIN_LEAST 1.03        /* what a plan must promise */

uint32_t draft_class(uint32_t match) {
    assert(match >= 2);
    return match < 5 ? match - 1 : match < 7 ? 4 : match < 10 ? 5 : match < 16 ? 6 : 7;
}

float draft_odds_of(const struct draft_odds *o, uint32_t class) {
    static const float first[DRAFT_CLASSES] = {0.6f, 0.3f, 0.4f, 0.5f, 0.6f, 0.75f, 0.8f, 0.9f};
    return o->seen[class] ? o->right[class] : first[class];
}

void draft_odds_note(struct draft_odds *o, uint32_t class, bool right) {
    float share = 1.0f / (float)(o->seen[class] + 4), was = draft_odds_of(o, class);
    if (share < ODDS_SHARE_LEAST) share = ODDS_SHARE_LEAST;
    o->right[class] = was + share * ((right ? 1.0f : 0.0f) - was);
    if (o->seen[class] < UINT32_MAX) o->seen[class]++;
}

/* In units of the first row. Beyond DRAFT_ROWS_MAX a row costs its share of that many. */
static double expected(uint32_t rows) {
    if (rows <= DRAFT_ROWS_MAX) return 1 + ROW_COST * (rows - 1.0);
    return (1 + ROW_COST * (DRAFT_ROWS_MAX - 1.0)) * rows / DRAFT_ROWS_MAX;
}

static bool is_known(const struct draft_pace *p, uint32_t rows) {
    return p->rows[rows].factor > 0 && p->steps - p->rows[rows].step < PACE_FORGOTTEN;
}

/* Between the numbers of rows that were seen, else as the nearest one. */
static double factor_of(const struct draft_pace *p, uint32_t rows) {
    uint32_t low = rows, high = rows;
    while (low > 0 && !is_known(p, low)) low--;
    while (high <= DRAFT_ROWS_MAX && !is_known(p, high)) high++;
    if (low == 0 && high > DRAFT_ROWS_MAX) return 1;
    if (low == 0) low = high;
    if (high > DRAFT_ROWS_MAX) high = low;
    double a = (double)p->rows[low].factor, b = (double)p->rows[high].factor;
    return low == high ? a : a + (b - a) * (rows - low) / (high - low);
}

double draft_pace_of(const struct draft_pace *p, uint32_t rows) {
    return expected(rows) * factor_of(p, rows < DRAFT_ROWS_MAX ? rows : DRAFT_ROWS_MAX);
}

void draft_pace_note(struct draft_pace *p, uint32_t rows, int64_t ns) {
    uint32_t at = rows < DRAFT_ROWS_MAX ? rows : DRAFT_ROWS_MAX;
    assert(rows > 0);
    float factor = (float)((double)ns / expected(rows)), *was = &p->rows[at].factor;
    p->steps++;
    if (!is_known(p, at)) {
        *was = factor;
    } else {
        if (factor > *was * PACE_SLOWEST) factor = *was * PACE_SLOWEST;
        *was += (factor < *was ? PACE_FASTER : PACE_SLOWER) * (factor - *was);
    }
    p->rows[at].step = p->steps;
    double time =
        (double)*was * expected(at); /* fewer rows do not take longer: one was disturbed */
    for (uint32_t i = 1; i < at; i++)
        if ((double)p->rows[i].factor * expected(i) > time)
            p->rows[i].factor = (float)(time / expected(i));
}

/* The text whose next guess is the likeliest, given `taken` of each; n: nobody has one. */
static uint32_t likeliest(const struct draft_text *text, uint32_t n, const uint32_t *taken,
                          const double *chance) {
    uint32_t best = n;
    double most = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (taken[i] == text[i].most) continue;
        double odds = chance[i] * (double)text[i].odds[taken[i]];
        if (odds > most) {
            most = odds;
            best = i;
        }
    }
    return best;
}

/* Rows that a step of so many may come to: what they cost is tried out in doubling steps. */
static uint32_t rows_to_try(const struct draft_pace *p, uint32_t rows) {
    uint32_t known = DRAFT_ROWS_MAX;
    if (rows >= DRAFT_ROWS_MAX) return UINT32_MAX;
    while (known > rows && !is_known(p, known)) known--;
    return 2 * known + 1;
}

void draft_plan(struct draft_pace *p, uint32_t rows, uint32_t room, double extra_ns,
                struct draft_text *text, uint32_t n) {
    uint32_t taken[DRAFT_ROWS_MAX], longest = 0;
    double chance[DRAFT_ROWS_MAX]; /* that all guesses taken so far are right */
    assert(n <= DRAFT_ROWS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        taken[i] = text[i].n = 0;
        chance[i] = 1;
    }
    /* Rows of prompts are work of their own: time is that of a step that only decodes, and what
     * further rows add to this one. */
    double plain = draft_pace_of(p, n > 0 ? n : 1), base = draft_pace_of(p, rows);
    double tokens = n, best = GAIN_LEAST * n / plain;
    uint32_t to = rows_to_try(p, rows);
    if (p->guessed == PLAIN_EVERY) { /* what it costs without is seen again */
        p->guessed = 0;
        return;
    }
    for (uint32_t k = 1; k <= room && rows + k <= to; k++) {
        uint32_t i = likeliest(text, n, taken, chance);
        if (i == n) break;
        chance[i] *= (double)text[i].odds[taken[i]++];
        tokens += chance[i];
        if (taken[i] > longest) longest = taken[i];
        double time = plain + draft_pace_of(p, rows + k) - base + extra_ns * longest;
        if (tokens / time <= best) continue;
        best = tokens / time;
        for (uint32_t j = 0; j < n; j++) text[j].n = taken[j];
    }
    p->guessed += best > GAIN_LEAST * n / plain;
}
