#include "broker/stall.h"

#include "broker/caps.h"
#include "broker/peer.h"
#include "broker/ready.h"

enum stall_news stall_look(struct stall *s, bool could, uint64_t dispatched, int64_t now_ms) {
    bool moved = dispatched != s->dispatched;
    s->dispatched = dispatched;
    if (!could || moved) {
        s->still_since_ms = 0;
        bool was = s->since_ms != 0;
        s->since_ms = 0;
        return was ? STALL_ENDS : STALL_NOTHING;
    }
    if (s->still_since_ms == 0) s->still_since_ms = now_ms;
    if (s->since_ms || now_ms - s->still_since_ms < STALL_AFTER_MS) return STALL_NOTHING;
    s->since_ms = now_ms;
    s->stalls++;
    return STALL_BEGINS;
}

bool stall_could_move(struct ready *r, const struct caps *caps, const struct workers *all) {
    for (uint32_t i = 0; i < r->n; i++) {
        const struct job *j = r->queue[i].jobs ? ready_head(&r->queue[i]) : NULL;
        if (!j || !caps_span(caps, j, 1)) continue;
        const struct pipeline_stage *s = &j->pipeline->stages[j->stage];
        for (const struct worker *w = all->first; w; w = w->next)
            if (!w->leaving && w->leases == 0 && worker_can(w, s->run, s->model)) return true;
    }
    return false;
}
