#include "broker/texts.h"

static void grow(uint64_t *sum, uint64_t *was, uint64_t now, bool heard) {
    if (heard && now > *was) *sum += now - *was;
    *was = now;
}

void texts_heard(struct texts *of_worker, struct texts *sum, const struct msg_heartbeat *m) {
    struct texts *t = of_worker;
    t->running = m->texts_running;
    t->waiting = m->texts_waiting;
    t->kv_pages = m->kv_pages;
    t->kv_pages_max = m->kv_pages_max;
    grow(&sum->steps, &t->steps, m->steps, t->heard);
    grow(&sum->steps_us, &t->steps_us, m->steps_us, t->heard);
    grow(&sum->tokens, &t->tokens, m->tokens, t->heard);
    grow(&sum->pauses, &t->pauses, m->pauses, t->heard);
    t->heard = true;
}

void texts_add_now(struct texts *sum, const struct texts *of_worker) {
    sum->running += of_worker->running;
    sum->waiting += of_worker->waiting;
    sum->kv_pages += of_worker->kv_pages;
    sum->kv_pages_max += of_worker->kv_pages_max;
}
