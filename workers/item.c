#include "workers/stage.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

void item_done(struct stage_item *i, struct bytes output) {
    i->output = output;
    i->error = JOB_ERROR_NONE;
}

void item_done_buf(struct stage_item *i, const struct buf *output) {
    if (output->error == ERR_LIMIT) {
        item_fail(i, JOB_ERROR_PERMANENT, "the output is larger than %zu bytes", output->max_bytes);
        return;
    }
    void *copy = output->error ? NULL : arena_copy(i->arena, output->data, output->len);
    if (copy)
        item_done(i, bytes_of(copy, output->len));
    else
        item_fail(i, JOB_ERROR_TRANSIENT, "no memory for an output of %zu bytes", output->len);
}

void item_fail(struct stage_item *i, enum job_error error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    i->output = (struct bytes){NULL, 0};
    i->error = error;
    vsnprintf(i->reason, sizeof i->reason, format, args);
    va_end(args);
    /* A reason that was cut inside a character loses that character: it travels as UTF-8. */
    size_t len = strlen(i->reason);
    i->reason[utf8_check(i->reason, len)] = '\0';
}

void item_fail_rc(struct stage_item *i, int rc, const char *err) {
    enum job_error error = rc == ERR_CANCELLED               ? JOB_ERROR_CANCELLED
                           : rc == -ENOMEM || rc == ERR_FULL ? JOB_ERROR_TRANSIENT
                                                             : JOB_ERROR_PERMANENT;
    item_fail(i, error, "%s", err && *err ? err : err_text(rc));
}

bool item_cancelled(const struct stage_item *i) {
    return i->cancelled && atomic_load_explicit(i->cancelled, memory_order_relaxed);
}

void item_emit(struct stage_item *i, const char *type, struct bytes data) {
    if (i->emit_to) i->emit_to->emit(i->emit_to->arg, i, type, data);
}
