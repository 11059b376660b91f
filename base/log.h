/* log.h - structured log lines on stderr, one logfmt line an event.
 *
 *   log_info("job_accepted", "job=%s kind=%s", id, kind);
 *   -> ts=2026-01-02T03:04:05.678Z level=info app=penstock-broker event=job_accepted job=...
 *
 * The caller quotes values that may hold spaces with log_quote.
 *
 * Units: none.  Owner: the line is written with one write(2).  Memory: a stack buffer of 2 KiB;
 * longer lines are cut and marked.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_BASE_LOG_H
#define PENSTOCK_BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* once, before threads; app is borrowed for ever */
void log_init(const char *app, enum log_level level);
int log_level_parse(const char *name, enum log_level *out); /* "debug|info|warn|error"; -EINVAL */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Copies text into buf as a quoted logfmt value (quotes, escapes, control bytes); returns buf. */
const char *log_quote(char *buf, size_t buf_bytes, const char *text);

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
