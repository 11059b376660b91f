#include "workers/flight.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int flight_new(struct flight **out) {
    void *p = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return -errno;
    *out = p;
    return 0;
}

void flight_free(struct flight *f) {
    if (f) munmap(f, sizeof *f);
}

void flight_clear(struct flight *f) {
    memset(f, 0, sizeof *f);
}

struct flight_slot *flight_take(struct flight *f, uint64_t job, uint64_t attempt, uint32_t stage) {
    for (uint32_t i = 0; i < FLIGHT_SLOTS; i++) {
        struct flight_slot *s = &f->slot[i];
        if (atomic_load(&s->state) != FLIGHT_FREE) continue;
        s->job = job;
        s->attempt = attempt;
        s->run[0] = '\0';
        atomic_store(&s->gone, false);
        atomic_store(&s->stage, stage);
        atomic_store(&s->state, FLIGHT_QUEUED);
        return s;
    }
    return NULL;
}

void flight_run(struct flight_slot *s, uint32_t stage, const char *run) {
    snprintf(s->run, sizeof s->run, "%s", run);
    atomic_store(&s->stage, stage);
    atomic_store(&s->state, FLIGHT_RUNNING);
}

void flight_rest(struct flight_slot *s, uint32_t next_stage) {
    atomic_store(&s->stage, next_stage);
    atomic_store(&s->state, FLIGHT_QUEUED);
}
