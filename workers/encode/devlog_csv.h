/* devlog_csv.h - records of comma-separated values, as RFC 4180 says, from a text.
 *
 * A field may be quoted, and then hold the delimiter, doubled quotes and line ends. A record whose
 * quotes do not close within DEVLOG_RECORD_BYTES, or with text behind a closing quote, is bad:
 * reading goes on behind its first line, so that a stray quote costs one line.
 *
 * Units: bytes, lines from 1.  Owner: fields are borrowed until the next record.  Memory: two fixed
 * buffers in the struct.  Errors: see csv_next.  Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_ENCODE_DEVLOG_CSV_H
#define PENSTOCK_WORKERS_ENCODE_DEVLOG_CSV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define DEVLOG_COLUMNS_MAX 256u
#define DEVLOG_RECORD_BYTES 16384u

struct csv {
    const char *at, *end;
    char delimiter;
    uint32_t line; /* of the record that was read */
    uint32_t next_line;
    struct bytes raw; /* its first line, without the line end */
    uint32_t n;
    struct bytes field[DEVLOG_COLUMNS_MAX];
    char text[DEVLOG_RECORD_BYTES]; /* unquoted fields end to end */
};
void csv_init(struct csv *c, struct bytes text, char delimiter);
/* 1: a record of n fields; 0: a bad one, only `raw` and `line` count; -1: the end. */
int csv_next(struct csv *c);

#endif
