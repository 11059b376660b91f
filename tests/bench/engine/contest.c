#include "tests/bench/engine/contest.h"

#include <stdio.h>

static double ratio_of(const struct contest *c, double ours, double theirs) {
    if (ours <= 0 || theirs <= 0) return 0;
    return c->less_is_better ? theirs / ours : ours / theirs;
}

/* The peer whose median is the best, and that; n_peers: none has run. */
static uint32_t best_of(const struct contest *c, double peer[][CONTEST_RUNS_MAX], int runs,
                        double *best) {
    uint32_t of = c->n_peers;
    *best = 0;
    for (uint32_t p = 0; p < c->n_peers; p++) {
        double median = report_median(peer[p], runs);
        if (c->n_peers > 1) printf("    %-36s %12.1f %s\n", c->peer[p], median, c->unit);
        if (median <= 0 || (*best > 0 && ratio_of(c, median, *best) < 1)) continue;
        *best = median;
        of = p;
    }
    return of;
}

uint32_t contest_run(const struct contest *c, struct report *report, int runs) {
    double value[CONTEST_RUNS_MAX], limit[CONTEST_RUNS_MAX], fraction[CONTEST_RUNS_MAX];
    double peer[CONTEST_PEERS_MAX][CONTEST_RUNS_MAX], ratio[CONTEST_RUNS_MAX], best;
    if (c->warm) c->ours(c->arg);
    for (int i = 0; i < runs; i++) {
        limit[i] = c->limit ? c->limit(c->arg) / 2 : 0;
        value[i] = c->ours(c->arg);
        limit[i] += c->limit ? c->limit(c->arg) / 2 : 0;
        fraction[i] = ratio_of(c, value[i], limit[i]);
        for (uint32_t p = 0; p < c->n_peers; p++) peer[p][i] = c->theirs(c->arg, p);
    }
    uint32_t of = best_of(c, peer, runs, &best);
    bool any = of < c->n_peers;
    for (int i = 0; i < runs; i++) ratio[i] = any ? ratio_of(c, value[i], peer[of][i]) : 0;
    report_add(report, &(struct report_row){.name = c->name,
                                            .unit = c->unit,
                                            .value = report_median(value, runs),
                                            .peer = any ? c->peer[of] : NULL,
                                            .peer_value = best,
                                            .ratio = report_median(ratio, runs),
                                            .limit_of = c->limit_of,
                                            .limit = report_median(limit, runs),
                                            .fraction = report_median(fraction, runs),
                                            .less_is_better = c->less_is_better,
                                            .runs = runs});
    return of;
}
