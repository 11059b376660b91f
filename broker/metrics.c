#include <inttypes.h>

#include "base/version.h"
#include "broker/health.h"

/* ---- the text format ----
 * https://prometheus.io/docs/instrumenting/exposition_formats/ */

static void head(struct buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP penstock_%s %s\n# TYPE penstock_%s %s\n", name, help, name, type);
}

static void value(struct buf *out, const char *name, const char *type, const char *help, double v) {
    head(out, name, type, help);
    buf_printf(out, "penstock_%s %.17g\n", name, v);
}

static void gauge(struct buf *out, const char *name, const char *help, double v) {
    value(out, name, "gauge", help, v);
}

static void counter(struct buf *out, const char *name, const char *help, uint64_t v) {
    value(out, name, "counter", help, (double)v);
}

/* Label values come from pipeline files and may hold anything. */
static void label(struct buf *out, const char *name, const char *text) {
    buf_printf(out, "%s=\"", name);
    for (const char *p = text; *p; p++) {
        if (*p == '\\' || *p == '"')
            buf_printf(out, "\\%c", *p);
        else if (*p == '\n')
            buf_printf(out, "\\n");
        else
            buf_append(out, p, 1);
    }
    buf_append(out, "\"", 1);
}

static void buckets(struct buf *out, const char *name, const char *run, const struct histogram *h) {
    uint64_t n = 0;
    for (uint32_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
        n += atomic_load_explicit(&h->count[i], memory_order_relaxed);
        buf_printf(out, "penstock_%s_bucket{", name);
        if (run) label(out, "stage", run);
        if (run) buf_append(out, ",", 1);
        if (i < HISTOGRAM_BOUNDS)
            buf_printf(out, "le=\"%g\"} %" PRIu64 "\n", (double)histogram_bound_us[i] / 1e6, n);
        else
            buf_printf(out, "le=\"+Inf\"} %" PRIu64 "\n", n);
    }
    double sum_s = (double)atomic_load_explicit(&h->sum_us, memory_order_relaxed) / 1e6;
    for (int count = 0; count < 2; count++) {
        buf_printf(out, "penstock_%s_%s", name, count ? "count" : "sum");
        if (run) buf_append(out, "{", 1);
        if (run) label(out, "stage", run);
        if (run) buf_append(out, "}", 1);
        if (count)
            buf_printf(out, " %" PRIu64 "\n", n);
        else
            buf_printf(out, " %.17g\n", sum_s);
    }
}

/* ---- what there is ---- */

static void jobs(const struct glance *g, struct buf *out) {
    gauge(out, "jobs_live", "Jobs that are accepted and have not ended.", (double)g->live_jobs);
    counter(out, "jobs_accepted_total", "Jobs that were accepted since the start.", g->accepted);
    head(out, "jobs_finished_total", "counter", "Jobs that ended since the start, by how.");
    for (uint32_t s = 0; s < JOB_STATES; s++)
        if (job_state_terminal((enum job_state)s))
            buf_printf(out, "penstock_jobs_finished_total{state=\"%s\"} %" PRIu64 "\n",
                       job_state_name((enum job_state)s), g->finished[s]);
    counter(out, "refused_total", "Messages that were answered by REFUSED.", g->refused);
    counter(out, "messages_dropped_total", "Messages to peers that were gone or did not read.",
            g->dropped);
}

enum row_field { DEPTH, LEASED, DELAYED, BYTES, OLDEST, IN, OUT };

static double field_of(const struct tally_row *r, enum row_field f) {
    switch (f) {
    case DEPTH: return (double)r->ready;
    case LEASED: return (double)r->leased;
    case DELAYED: return (double)r->delayed;
    case BYTES: return (double)r->bytes;
    case OLDEST: return (double)r->oldest_ms / 1000.0;
    case IN: return (double)r->in;
    case OUT: return (double)r->out;
    }
    return 0;
}

static void rows(const struct glance *g, struct buf *out, const char *name, const char *type,
                 const char *help, enum row_field f) {
    head(out, name, type, help);
    for (uint32_t i = 0; i < g->n_rows; i++) {
        buf_printf(out, "penstock_%s{", name);
        label(out, "pipeline", g->row[i].pipeline);
        buf_append(out, ",", 1);
        label(out, "stage", g->row[i].stage);
        buf_printf(out, "} %.17g\n", field_of(&g->row[i], f));
    }
}

static void queues(const struct glance *g, struct buf *out) {
    rows(g, out, "queue_depth", "gauge", "Jobs that are ready for a worker.", DEPTH);
    rows(g, out, "queue_leased", "gauge", "Jobs that a worker holds.", LEASED);
    rows(g, out, "queue_delayed", "gauge", "Jobs that wait for their time.", DELAYED);
    rows(g, out, "queue_size_bytes", "gauge", "Bodies of the jobs at the stage.", BYTES);
    rows(g, out, "queue_oldest_seconds", "gauge", "How long the oldest ready job waits.", OLDEST);
    rows(g, out, "queue_in_total", "counter", "Jobs that came to the stage.", IN);
    rows(g, out, "queue_out_total", "counter", "Jobs that left the stage.", OUT);
}

static void times(const struct glance *g, struct buf *out) {
    head(out, "accept_duration_seconds", "histogram", "From a submit's message to its ACCEPTED.");
    buckets(out, "accept_duration_seconds", NULL, &g->accept);
    head(out, "commit_duration_seconds", "histogram", "One transaction with its flush.");
    buckets(out, "commit_duration_seconds", NULL, &g->commit);
    head(out, "queue_wait_seconds", "histogram", "From ready to leased, by stage program.");
    for (uint32_t i = 0; i < g->n_times; i++)
        buckets(out, "queue_wait_seconds", g->times[i].run, &g->times[i].wait);
    head(out, "stage_duration_seconds", "histogram", "Time in a stage, by stage program.");
    for (uint32_t i = 0; i < g->n_times; i++)
        buckets(out, "stage_duration_seconds", g->times[i].run, &g->times[i].duration);
}

static void store(const struct glance *g, struct buf *out) {
    const struct store_usage *u = &g->usage;
    counter(out, "commits_total", "Transactions.", g->commits);
    counter(out, "commit_operations_total", "Changes that they wrote.", g->commit_ops);
    gauge(out, "commit_pending", "Changes on their way to the disk.",
          (double)g->commits_outstanding);
    gauge(out, "commit_pending_bytes", "Payloads on their way to the disk.",
          (double)g->commit_bytes);
    head(out, "store_used_bytes", "gauge", "Live pages of each half of the store.");
    buf_printf(out,
               "penstock_store_used_bytes{half=\"meta\"} %" PRIu64
               "\npenstock_store_used_bytes{half=\"blob\"} %" PRIu64 "\n",
               u->meta_bytes, u->blob_bytes);
    head(out, "store_cap_bytes", "gauge", "What each half may grow to.");
    buf_printf(out,
               "penstock_store_cap_bytes{half=\"meta\"} %" PRIu64
               "\npenstock_store_cap_bytes{half=\"blob\"} %" PRIu64 "\n",
               u->meta_cap_bytes, u->blob_cap_bytes);
    gauge(out, "store_jobs", "Jobs in the store, ended ones too.", (double)u->jobs);
    gauge(out, "store_failing", "1 while the disk does not take writes.", g->disk_error != 0);
    gauge(out, "store_full", "1 while the store has no room for new jobs.", g->store_full);
    gauge(out, "store_epoch", "Starts of a broker on this store.", (double)g->epoch);
    gauge(out, "store_set_aside", "Records that the start could not read.", (double)g->set_aside);
    counter(out, "scrub_read_bytes_total", "Read by the scrub and compared with its CRC.",
            g->scrub.bytes);
    counter(out, "scrub_rounds_total", "Times that it has read the whole store.", g->scrub.rounds);
    counter(out, "scrub_stale_readers_total", "Readers of dead processes that it freed.",
            g->scrub.stale_readers);
    gauge(out, "scrub_damaged", "Records and chunks that its last round found damaged.",
          (double)g->scrub.damaged);
    gauge(out, "handed_bytes", "Stage outputs that are handed on in memory.",
          (double)g->handed_bytes);
}

static void peers(const struct glance *g, struct buf *out) {
    gauge(out, "workers", "Workers that are registered.", (double)g->workers);
    gauge(out, "worker_leases", "Leases that they hold.", (double)g->leases);
    gauge(out, "worker_credits", "Leases that they would hold at most.", (double)g->credit);
    gauge(out, "watches", "Waits and event streams of clients.", (double)g->watches);
    gauge(out, "answers_owed", "Answers that wait for clients to read.", (double)g->owed);
    gauge(out, "uploads", "Bodies that are being uploaded.", (double)g->uploads);
    gauge(out, "upload_missing_bytes", "What these have yet to bring.",
          (double)g->upload_bytes_missing);
    gauge(out, "stalled", "1 while jobs wait, a free worker could run them, and nothing moves.",
          g->stalled);
    counter(out, "connections_refused_total", "Connections for which there were too few files.",
            g->crowded);
    counter(out, "stalls_total", "How often that began.", g->stalls);
}

static void texts(const struct texts *t, struct buf *out) {
    gauge(out, "texts_running", "Texts that workers write.", (double)t->running);
    gauge(out, "texts_waiting", "Texts that wait in workers for room beside these.",
          (double)t->waiting);
    gauge(out, "kv_pages_used", "Pages of the workers' KV pools that texts hold.",
          (double)t->kv_pages);
    gauge(out, "kv_pages", "Pages of these pools.", (double)t->kv_pages_max);
    head(out, "generate_step_duration_seconds", "summary", "Steps in which texts are written.");
    buf_printf(out, "penstock_generate_step_duration_seconds_sum %.17g\n",
               (double)t->steps_us / 1e6);
    buf_printf(out, "penstock_generate_step_duration_seconds_count %" PRIu64 "\n", t->steps);
    counter(out, "generated_tokens_total", "Tokens written.", t->tokens);
    counter(out, "text_pauses_total", "Texts that gave their KV pages back for a while.",
            t->pauses);
}

void metrics_text(const struct glance *g, bool ready, bool alive, struct buf *out) {
    head(out, "build_info", "gauge", "The version that runs.");
    buf_printf(out, "penstock_build_info{version=\"%s\"} 1\n", PENSTOCK_VERSION);
    gauge(out, "ready", "1 while /readyz says so.", ready);
    gauge(out, "alive", "1 while /livez says so.", alive);
    if (g->at_ms == 0) return; /* nothing is known yet */
    gauge(out, "start_time_seconds", "When the broker started, since 1970.",
          (double)g->started_wall_ms / 1000.0);
    jobs(g, out);
    queues(g, out);
    times(g, out);
    store(g, out);
    peers(g, out);
    texts(&g->texts, out);
}
