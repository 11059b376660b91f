#include "broker/peer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

void workers_init(struct workers *t) {
    *t = (struct workers){0};
    due_init(&t->due, LIMIT_WORKERS);
}

static void worker_free(struct worker *w) {
    free(w->runs);
    free(w->models);
    free(w);
}

void workers_fini(struct workers *t) {
    for (struct worker *w = t->first, *next; w; w = next) {
        next = w->next;
        worker_free(w);
    }
    due_fini(&t->due);
    *t = (struct workers){0};
}

struct worker *worker_by_session(const struct workers *t, struct bytes session, uint32_t user) {
    for (struct worker *w = t->first; w; w = w->next)
        if (w->peer.user == user && bytes_is(session, w->session)) return w;
    return NULL;
}

struct worker *worker_named(const struct workers *t, struct bytes name, uint32_t *n) {
    struct worker *first = NULL;
    *n = 0;
    for (struct worker *w = t->first; w; w = w->next) {
        if (!bytes_is(name, w->name) && !bytes_is(name, w->session)) continue;
        if (!first) first = w;
        ++*n;
    }
    return first;
}

struct worker *worker_by_peer(const struct workers *t, const struct sock_peer *peer) {
    for (struct worker *w = t->first; w; w = w->next)
        if (sock_peer_eq(&w->peer, peer)) return w;
    return NULL;
}

static int copy_names(struct field_strs list, char (**out)[LIMIT_NAME_BYTES + 1], uint32_t *n) {
    char(*names)[LIMIT_NAME_BYTES + 1] = calloc(list.count ? list.count : 1, sizeof *names);
    if (!names) return -ENOMEM;
    struct field_strs_it it = field_strs_begin(list);
    struct bytes name;
    uint32_t i = 0;
    while (i < list.count && field_strs_next(&it, &name))
        if (bytes_to_cstr(name, names[i], sizeof names[i]) == 0) i++;
    free(*out);
    *out = names;
    *n = i;
    return 0;
}

int worker_register(struct workers *t, const struct msg_register *m, const struct sock_peer *peer,
                    int64_t now_ms, struct worker **out) {
    struct worker *w = worker_by_session(t, m->session, peer->user);
    bool fresh = !w;
    if (fresh) {
        if (t->n == LIMIT_WORKERS) return ERR_FULL;
        if (!(w = calloc(1, sizeof *w))) return -ENOMEM;
        w->since_ms = now_ms;
    }
    assert(w->leases == 0);
    int e = copy_names(m->runs, &w->runs, &w->n_runs);
    if (!e) e = copy_names(m->models, &w->models, &w->n_models);
    if (e) {
        if (fresh) worker_free(w);
        return e;
    }
    bytes_to_cstr(m->session, w->session, sizeof w->session);
    bytes_to_cstr(m->name, w->name, sizeof w->name);
    if (m->host.len) bytes_to_cstr(m->host, w->host, sizeof w->host);
    w->peer = *peer;
    w->pid = m->pid;
    w->credit_jobs = (uint32_t)m->credit_jobs;
    w->credit_bytes = m->credit_bytes;
    w->leaving = false;
    if (fresh) {
        w->next = t->first;
        t->first = w;
        t->n++;
    }
    *out = w;
    return 0;
}

void worker_heard(struct workers *t, struct worker *w, int64_t now_ms, int64_t lease_ms) {
    w->heard_ms = now_ms;
    w->choked = false;
    int e = due_set(&t->due, &w->due, now_ms + lease_ms);
    assert(e == 0 || e == -ENOMEM); /* the table holds as many as there may be workers */
    (void)e;
}

void worker_remove(struct workers *t, struct worker *w) {
    assert(w->leases == 0 && !w->first);
    struct worker **at = &t->first;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    t->n--;
    due_drop(&t->due, &w->due);
    worker_free(w);
}

static bool listed(char (*names)[LIMIT_NAME_BYTES + 1], uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

bool worker_can(const struct worker *w, const char *run, const char *model) {
    return listed(w->runs, w->n_runs, run) && (!model || listed(w->models, w->n_models, model));
}

uint32_t worker_span(const struct worker *w, const struct job *j) {
    const struct pipeline *p = j->pipeline;
    uint32_t n = 0;
    while (j->stage + n < p->n_stages &&
           worker_can(w, p->stages[j->stage + n].run, p->stages[j->stage + n].model))
        if (p->stages[j->stage + n++].fan_out) break; /* the broker goes on from there */
    return n;
}

bool worker_has_credit(const struct worker *w, uint64_t bytes) {
    if (!worker_serves(w) || w->leases >= w->credit_jobs) return false;
    return w->leases == 0 || w->bytes + bytes <= w->credit_bytes;
}

void worker_take(struct worker *w, struct job *j, uint64_t bytes) {
    assert(!j->worker);
    j->worker = w;
    j->lease_bytes = bytes;
    j->lease_prev = NULL;
    j->lease_next = w->first;
    if (w->first) w->first->lease_prev = j;
    w->first = j;
    w->leases++;
    w->bytes += bytes;
}

void worker_give(struct job *j) {
    struct worker *w = j->worker;
    if (!w) return;
    if (j->lease_prev)
        j->lease_prev->lease_next = j->lease_next;
    else
        w->first = j->lease_next;
    if (j->lease_next) j->lease_next->lease_prev = j->lease_prev;
    assert(w->leases > 0 && w->bytes >= j->lease_bytes);
    w->leases--;
    w->bytes -= j->lease_bytes;
    j->worker = NULL;
    j->lease_prev = j->lease_next = NULL;
    j->lease_bytes = 0;
}
