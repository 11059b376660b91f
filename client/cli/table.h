/* table.h - columns of text on stdout, as wide as their widest cell; wide characters count twice.
 *
 * On a terminal the widest columns give way until a row fits on a line.
 *
 * Units: columns on the screen.  Owner: table_fini.  Memory: the cells, copied.
 * Errors: none; without memory the table is cut.  Threads: one. */
#ifndef PENSTOCK_CLIENT_TABLE_H
#define PENSTOCK_CLIENT_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/term.h"

#define TABLE_COLUMNS 12
struct table {
    size_t columns, cells, cap, max[TABLE_COLUMNS];
    char **cell;            /* row by row, the head first */
    enum term_style *style; /* of each cell */
};
/* heads ends with NULL; a head "reason:40" cuts the column's cells to 40. */
void table_init(struct table *t, const char *const *heads);
void table_fini(struct table *t);
/* The next cell, left to right and row by row; control characters become spaces. */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The last cell in a style, where colour belongs. */
void table_style(struct table *t, enum term_style style);
/* "2026-01-02 03:04:05" in local time, "-" for 0. */
void table_time(struct table *t, int64_t wall_ms);
void table_duration(struct table *t, int64_t ms); /* "1.2 s"; "-" for negative */
void table_print(const struct table *t);

#endif
