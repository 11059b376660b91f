#include "broker/health.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/version.h"

void health_ready(struct glance_box *box) {
    atomic_store(&box->turned_ms, clock_mono_ms());
    atomic_store(&box->phase, GLANCE_READY);
}

/* ---- verdicts: 200 or 503, and a line that says why ---- */

static bool started(struct glance_box *box, struct buf *why) {
    switch (atomic_load(&box->phase)) {
    case GLANCE_OPENING: buf_printf(why, "starting: the store is being opened\n"); return false;
    case GLANCE_RECOVERING:
        buf_printf(why, "recovering: %" PRIu64 " jobs loaded\n", atomic_load(&box->recovered));
        return false;
    default: buf_printf(why, "started\n"); return true;
    }
}

/* A start has its own check: it may take long and yet be alive. */
static bool alive(struct glance_box *box, struct buf *why) {
    int64_t ms = clock_mono_ms() - atomic_load(&box->turned_ms);
    if (atomic_load(&box->phase) != GLANCE_READY) return started(box, why), true;
    if (ms > HEALTH_STUCK_MS) {
        buf_printf(why, "stuck: the loop has not turned for %" PRId64 " ms\n", ms);
        return false;
    }
    buf_printf(why, "alive\n");
    return true;
}

static bool ready(struct glance_box *box, struct buf *why) {
    static const char *const words[] = {
        [GLANCE_ACCEPTING] = "ready",
        [GLANCE_DRAINING] = "draining: no new jobs are accepted",
        [GLANCE_DISK] = "the disk does not take writes; what was accepted is safe",
        [GLANCE_FULL] = "the store is full"};
    if (atomic_load(&box->phase) != GLANCE_READY) {
        started(box, why);
        return false;
    }
    struct buf stuck = {.max_bytes = 256};
    bool turns = alive(box, &stuck);
    int c = atomic_load(&box->condition);
    if (turns)
        buf_printf(why, "%s\n", words[c]);
    else
        buf_append(why, stuck.data, stuck.len);
    buf_fini(&stuck);
    return turns && c == GLANCE_ACCEPTING;
}

/* ---- the page ---- */

static void html(struct buf *out, const char *text) {
    for (const char *p = text; *p; p++) {
        if (*p == '<' || *p == '>' || *p == '&' || *p == '"')
            buf_printf(out, "&#%d;", *p);
        else
            buf_append(out, p, 1);
    }
}

static void page_rows(const struct glance *g, struct buf *out) {
    buf_printf(out, "<table><tr><th>pipeline<th>stage<th>ready<th>leased<th>delayed<th>oldest s"
                    "<th>bytes<th>in/s<th>out/s\n");
    for (uint32_t i = 0; i < g->n_rows; i++) {
        const struct tally_row *r = &g->row[i];
        buf_printf(out, "<tr><td>");
        html(out, r->pipeline);
        buf_printf(out, "<td>");
        html(out, r->stage);
        buf_printf(out,
                   "<td>%" PRIu64 "<td>%" PRIu64 "<td>%" PRIu64 "<td>%.1f<td>%" PRIu64
                   "<td>%.1f<td>%.1f\n",
                   r->ready, r->leased, r->delayed, (double)r->oldest_ms / 1000.0, r->bytes,
                   r->in_rate, r->out_rate);
    }
    buf_printf(out, "</table>\n");
}

static void page(struct glance_box *box, const struct glance *g, struct buf *out) {
    buf_printf(out, "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5>"
                    "<title>Penstock</title><style>body{font:14px sans-serif;margin:2em}"
                    "td,th{padding:.2em 1em;text-align:right}th{border-bottom:1px solid}"
                    "</style><h1>Penstock " PENSTOCK_VERSION "</h1><p>");
    ready(box, out);
    double up_s = g->at_ms ? (double)(g->at_ms - g->started_ms) / 1000.0 : 0;
    buf_printf(out,
               "<p>up %.0f s, %" PRIu64 " live jobs, %" PRIu64 " workers with %" PRIu64
               " leases, store %" PRIu64 " of %" PRIu64 " MiB%s\n",
               up_s, g->live_jobs, g->workers, g->leases,
               (g->usage.meta_bytes + g->usage.blob_bytes) >> 20,
               (g->usage.meta_cap_bytes + g->usage.blob_cap_bytes) >> 20,
               g->stalled ? "; <b>stalled: jobs wait, a free worker could run them</b>" : "");
    page_rows(g, out);
}

/* ---- paths ---- */

void health_serve(void *arg, const char *path, struct http_answer *out) {
    struct glance_box *box = arg;
    bool well = true;
    if (strcmp(path, "/startupz") == 0) {
        well = started(box, out->body);
    } else if (strcmp(path, "/readyz") == 0) {
        well = ready(box, out->body);
    } else if (strcmp(path, "/livez") == 0) {
        well = alive(box, out->body);
    } else if (strcmp(path, "/metrics") == 0) {
        struct buf unread = {.max_bytes = 1024};
        bool is_ready = ready(box, &unread), is_alive = alive(box, &unread);
        buf_fini(&unread);
        out->type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_text(glance_latest(box), is_ready, is_alive, out->body);
    } else if (strcmp(path, "/status") == 0) {
        out->type = "text/html; charset=utf-8";
        page(box, glance_latest(box), out->body);
    } else {
        out->status = 404;
        buf_printf(out->body, "there is /metrics, /livez, /readyz, /startupz and /status\n");
    }
    if (!well) out->status = 503;
}
