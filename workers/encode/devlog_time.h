/* devlog_time.h - the times that devices write.
 *
 * 2026-01-02T03:04:05.678Z, 2026-01-02 03:04:05,678 +0800, 2026/01/02 03:04, 02.01.2026 03:04:05,
 * 20260102T030405, seconds or milliseconds since 1970 of the years 2001 to 2100. Without an offset
 * a time counts as UTC. Times that do not name a day and a year (03:04:05, Jan  2 03:04:05) are
 * recognized as times, so that they are no part of a template, and have no value.
 *
 * Units: milliseconds since 1970.  Owner, memory: none.  Errors: none.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_DEVLOG_TIME_H
#define PENSTOCK_WORKERS_ENCODE_DEVLOG_TIME_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the time that text begins with, 0 when it begins with none; *ms is DEVLOG_NO_TIME when
 * it has no value. A time ends before a byte that is neither letter nor digit. */
size_t devlog_time(const char *text, size_t len, int64_t *ms);

#endif
